"""What a training step asks of a device, counted without one: launches, copies, and waits for it.

The step runs on tensors of torch's meta device, which have shapes and no numbers: every branch that is for
a device is taken, and what would wait for one is seen, since there is nothing to read. Kernels of ours are
counted where they are launched. Attention counts as torch's composed form does on the meta device, which
has no autocast either.

    python -P bench/step_calls.py
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastpop.kernels import device, native, triton_tiles
from fastpop.ops import _dispatch, _full_softmax_op, _sampled_softmax_op, readable, row_update, validation

# What does nothing on a device: fresh memory, and other views of what there is.
NOTHING = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "promote_types",
    "detach",
    "detach_",
    "alias",
    "_sparse_coo_tensor_with_dims_and_tensors",
    "_sparse_coo_tensor_unsafe",
    "_indices",
    "_values",
    "_coalesced_",
    "is_coalesced",
    "_unsafe_view",
    "lift_fresh",
    "_fused_sdp_choice",
}
WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "_coalesce",
}
# Whose numbers are made all the same: the host reads whether they converged.
CHECKED = {"_linalg_eigh", "_linalg_svd"}
OURS = {
    f"{op}_{name}": getattr(module, name)
    for op, module in (("sampled_softmax", _sampled_softmax_op), ("full_softmax", _full_softmax_op))
    for name in ("forward", "loss", "backward")
    if hasattr(module, name)
}
KERNELS = {"row_update": 1, "row_sum": 2, "sampled_rows": 1}  # launches of one call into csrc/*/cuda.cu


@dataclass
class Calls:
    """Of a step: names of torch's operators that launch something, of Triton kernels, of CUDA kernels; copies
    from the host's memory; and what waits for the device."""

    operators: list[str] = field(default_factory=list)
    triton: list[str] = field(default_factory=list)
    cuda: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    seen: int = 0  # operators of torch, views and fresh memory included

    @property
    def host(self) -> int:
        """What the host calls, one after the other."""
        return self.seen + len(self.triton) + len(self.cuda)

    @property
    def launches(self) -> int:
        return len(self.operators) + len(self.triton) + len(self.cuda) + len(self.copies)

    def row(self) -> dict[str, int]:
        return {
            "host calls": self.host,
            "launches": self.launches,
            "operators": len(self.operators),
            "triton": len(self.triton),
            "cuda": len(self.cuda),
            "copies": len(self.copies),
            "waits": len(self.waits),
        }

    def commonest(self) -> str:
        return ", ".join(f"{name} {times}" for name, times in Counter(self.operators).most_common())


def _tensors(given: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(given) if isinstance(one, torch.Tensor)]


class _Counting(TorchDispatchMode):
    def __init__(self, calls: Calls):
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.calls.seen += 1
        name = function.__name__.split(".")[0]
        if function.namespace == "fastpop":
            with self:
                return OURS[name](*args, **kwargs)
        if name == "clone" and args[0].is_sparse:  # which autograd takes over without a copy on a device
            one = args[0]
            return torch.sparse_coo_tensor(one._indices(), one._values(), one.shape, check_invariants=False)
        flat = _tensors((args, kwargs))
        if name in ("add", "add_") and all(one.is_sparse for one in flat):  # as CUDA adds them
            with self:
                ids = torch.cat([one._indices() for one in flat], 1)
                rows = torch.cat([one._values() for one in flat])
            return torch.sparse_coo_tensor(ids, rows, flat[0].shape, check_invariants=False)
        if name in CHECKED and any(one.is_meta for one in flat):
            self.calls.waits.append(name)
        if name in ("add", "add_") and [one.is_sparse for one in flat] == [False, True]:  # as CUDA adds them
            with self:
                add = torch.index_add if name == "add" else torch.Tensor.index_add_
                return add(flat[0], 0, flat[1]._indices()[0], flat[1]._values())
        if name in WAITS and any(one.is_meta for one in flat):
            return self.waited(name, args)
        masks = [one for one in flat[1:] if one.dtype == torch.bool] if name.startswith("index") else []
        if masks and flat[0].is_meta:
            self.calls.waits.append(f"{name} by a mask")
            return args[0].flatten(0, masks[0].ndim - 1).clone() if name == "index" else args[0]
        if name.startswith("_fused_adam"):
            self.calls.operators.append(name)
            return None
        if name == "_to_copy" and str(kwargs.get("device")) == "cpu" and args[0].is_meta:
            self.calls.waits.append(f"{name} to the host")
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        found = function(*args, **kwargs)
        made = _tensors(found)
        if not any(one.is_meta for one in (*made, *flat)):
            return found
        if name in ("_to_copy", "copy_") and any(one.device.type == "cpu" for one in flat):
            self.calls.copies.append(name)
        elif not function.is_view and name not in NOTHING and any(one.numel() for one in (*made, *flat)):
            self.calls.operators.append(name)
        return found

    def waited(self, name, args):
        """Something in place of what a device would have said: a 1, or that all are there."""
        self.calls.waits.append(name)
        if name == "_local_scalar_dense":
            return 1.0 if args[0].is_floating_point() else 1
        if name == "nonzero":
            return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.int64, device="meta")
        if name == "_coalesce":
            one = args[0]
            return torch.sparse_coo_tensor(
                one._indices(), one._values(), one.shape, check_invariants=False, is_coalesced=True
            )
        if "unique" in name:
            one = args[0].flatten()
            return one, one.long(), one.long()
        return args[0] if name == "masked_select" else True


@contextlib.contextmanager
def counting() -> Iterator[Calls]:
    """Inside, ops take tensors of the meta device for those of a card, and what is asked of it is counted."""
    calls = Calls()

    def launched(jitted: Any, grid: tuple[int, ...], **arguments: Any) -> None:
        calls.triton.append(getattr(jitted, "fn", jitted).__name__)

    def ran(kernel: str, *_: Any, **__: Any) -> None:
        calls.cuda.extend([kernel] * KERNELS[kernel])

    autocast = torch.autocast

    def without_meta(kind: str, *given: Any, **named: Any) -> Any:
        return contextlib.nullcontext() if kind == "meta" else autocast(kind, *given, **named)

    split, processors = triton_tiles.split, SimpleNamespace(multi_processor_count=132)

    def split_as_there(num_programs: int, num_steps: int, _: Any) -> tuple[int, int]:
        return split(num_programs, num_steps, SimpleNamespace(type="cuda"))  # type: ignore[arg-type]

    with (
        mock.patch.object(triton_tiles, "launch", launched),
        mock.patch.object(triton_tiles, "unsupported", return_value=None),
        mock.patch.object(triton_tiles, "cannot_run_on", return_value=None),
        mock.patch.object(triton_tiles, "capability", return_value=90),
        mock.patch.object(triton_tiles, "split", split_as_there),
        mock.patch.object(device, "unsupported", return_value=None),
        mock.patch.object(torch, "autocast", without_meta),
        mock.patch.object(device, "run", ran),
        mock.patch.object(native, "pointer", return_value=0),
        mock.patch.object(row_update, "_apart"),  # which compares addresses
        mock.patch.object(validation, "autocast_query", lambda query: query),
        mock.patch.object(validation, "rounds_items", return_value=False),
        mock.patch.object(readable, "tensor", lambda name, value, expected="": value),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=processors),
        mock.patch.object(optimizer, "_get_foreach_kernels_supported_devices", return_value=["cuda", "meta"]),
        mock.patch.object(optimizer, "_get_fused_kernels_supported_devices", return_value=["cuda", "meta"]),
        mock.patch.dict(_dispatch.AUTO_ORDER, {"meta": _dispatch.AUTO_ORDER["cuda"]}),
        _Counting(calls),
    ):
        yield calls
