"""Optimisers for embedding tables: one adaptive number per row, untouched rows left alone.

Tables are [V, D], or [V] for one number per item. The optimisers take sparse gradients
(`sparse_grad=True`, `nn.Embedding(sparse=True)`) and dense ones, where every row counts as touched.

With update_in_backward=True the step is made inside backward(), as soon as a table's gradient is
complete, and the gradient is let go: it never waits beside those of other tables. `step()` then only
ends the step. What needs gradients to stay is refused: a second backward() before `step()` (gradient
accumulation), more than one process (their gradients would have to be summed first, which `complete=` does:
it is called with each table whose gradient is there, before its step), GradScaler, and
`fastpop.optim.clip_grad_norm_`, which takes sparse, dense and sharded gradients. torch's own
clip_grad_norm_ takes no sparse ones and cannot tell that a gradient is gone.

With rounding_seed=, tables in bfloat16 are rounded up or down at random, a function of the seed, the table's
place, the step and the number's place: steps smaller than half of a number's last place, which rounding to
nearest drops one and all, then move it as far on average as they should. State stays float32.

FSDP2 and DTensor: a table sharded by rows is stepped part by part. Each process updates its rows from its
part of the gradient, without communication, to the bits of one process; the state is sharded alike, for
torch.distributed.checkpoint. Make the optimiser after `fully_shard`, which replaces parameters. FSDP2
itself has no sparse gradients: leave sparse_grad off there.
"""

import functools
import math
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastpop import checks, ops
from fastpop.ops import summed_ids
from fastpop.ops.row_shard import is_dtensor
from fastpop.tables import zeros_beside


def _eagerly(function: Callable[..., Any]) -> Callable[..., Any]:
    """As it is, within a step that torch.compile was given, too: the ops are compiled code, and what stands
    around them would be traced anew for each table. `torch.compiler.disable` imports for a second what
    torch's optimisers import when they are made, hence at the first call."""
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def run(*given: Any, **named: Any) -> Any:
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*given, **named)

    return run


class _RowOptimizer(torch.optim.Optimizer):
    """found_inf: None, or 0-d float32 on the tables' device: no step is made where it is not 0, which is
    read there. torch's name, and that of its fused optimisers."""

    heeds_found_inf = True
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        defaults: dict[str, Any],
        update_in_backward: bool,
        rounding_seed: int | None = None,
        complete: Callable[[Tensor], None] | None = None,
    ):
        _check_numbers(defaults)
        if rounding_seed is not None:
            checks.number("rounding_seed", rounding_seed, ge=0, le=2**62, integer=True)
        self.rounding_seed = rounding_seed
        if update_in_backward and complete is None and _num_processes() > 1:
            raise checks.wrong(
                "update_in_backward",
                "False with several processes, whose gradients must be summed before a step",
                True,
            )
        self.update_in_backward, self._complete = update_in_backward, complete
        self._updated: set[Tensor] = set()
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        params = param_group["params"]
        if not isinstance(params, set):  # which has no order, and is refused
            params = [params] if isinstance(params, Tensor) else list(params)
        _check_numbers(self.defaults | param_group)
        # Optimizer itself says what else may be wrong with them.
        for param in (one[1] if isinstance(one, tuple) else one for one in params):
            if isinstance(param, Tensor) and param.ndim not in (1, 2):
                raise checks.wrong("params", "tables of shape [V, D] or [V]", param)
            if isinstance(param, Tensor) and self.update_in_backward and not param.requires_grad:
                raise checks.wrong("params", "tables that require a gradient, with update_in_backward", param)
            if is_dtensor(param):
                _check_sharded(param, self.update_in_backward)
        super().add_param_group(param_group | {"params": params})
        if self.update_in_backward:
            self._watch(self.param_groups[-1]["params"])

    def _watch(self, params: list[Tensor]) -> None:
        # Weakly: a table that outlives its optimizer is not updated any more.
        for param in params:
            param.register_post_accumulate_grad_hook(partial(_on_gradient, weakref.ref(self)))

    def __getstate__(self) -> dict[str, Any]:
        own = {"update_in_backward": self.update_in_backward, "rounding_seed": self.rounding_seed}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy, whose tables have no hooks yet; and of load_state_dict, which names less."""
        super().__setstate__(state)
        self.__dict__.setdefault("rounding_seed", None)
        self.__dict__.setdefault("_complete", None)
        if "update_in_backward" in state:
            self._updated = set()
            if self.update_in_backward:
                for group in self.param_groups:
                    self._watch(group["params"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but for the state of half tables: that stays float32, as it was saved."""
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        pairs = list(zip(numbers, params))
        for number, param in pairs:
            for name, value in state_dict["state"].get(number, {}).items():
                if is_dtensor(param) != is_dtensor(value):
                    kinds = ("a plain tensor", "a DTensor, as its table is")
                    raise checks.wrong_type(
                        f"state_dict[{name!r}]",
                        kinds[is_dtensor(param)] + " (torch.distributed.checkpoint."
                        "state_dict.set_optimizer_state_dict makes one of the other)",
                        value,
                    )
        super().load_state_dict(state_dict)
        for number, param in pairs:
            for name, value in state_dict["state"].get(number, {}).items():
                device = torch.device("cpu") if name == "rounds" else param.device
                self.state[param][name] = value.detach().to(device, copy=True)

    @_eagerly
    @torch.no_grad()
    def on_gradient(self, param: Tensor) -> None:
        if param in self._updated:
            param.grad = None
            raise RuntimeError(
                "update_in_backward: expected one backward() for each step(); got a second gradient of "
                "a table that was already updated. Gradient accumulation needs update_in_backward=False"
            )
        self._updated.add(param)
        if self._complete is not None:
            self._complete(param)
        group = next(group for group in self.param_groups if any(param is one for one in group["params"]))
        self._update_table(group, param)
        param.grad = None

    def _update_table(self, group: dict, param: Tensor) -> None:
        if param.grad is None:
            return
        table, grad = _local(param), _local_gradient(param)
        ids, rows = _touched(grad)
        state = self.state.get(param) or self._new_state(param)
        rounding = self._rounding(param, table, state)
        if state:
            self.state[param] = state
        table = table if table.ndim == 2 else table[:, None]
        self._update(
            table,
            ids,
            rows.reshape(len(ids), table.shape[1]),
            {name: _local(value) for name, value in state.items()},
            group,
            {
                "rounding": rounding,
                "summed": not grad.is_sparse or summed_ids.is_marked(ids),
                "found_inf": self.found_inf,
            },
        )

    def _rounding(self, param: Tensor, table: Tensor, state: dict[str, Tensor]) -> tuple[int, int] | None:
        """(seed, step) of a table that is rounded at random; the step is kept with the state."""
        if self.rounding_seed is None or table.dtype != torch.bfloat16:
            return None
        state.setdefault("rounds", torch.zeros((), dtype=torch.int64))
        state["rounds"] += 1
        places = (one for group in self.param_groups for one in group["params"])
        place = next(number for number, one in enumerate(places) if one is param)
        return self.rounding_seed + place, int(state["rounds"])

    @_eagerly
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.update_in_backward:
            self._updated.clear()
            return loss
        for group in self.param_groups:
            for param in group["params"]:
                self._update_table(group, param)
        return loss

    def _new_state(self, param: Tensor) -> dict[str, Tensor]:
        """Before the first step, sharded as the table is."""
        return {}

    def _update(
        self, table: Tensor, ids: Tensor, rows: Tensor, state: dict, group: dict, given: dict
    ) -> None:
        raise NotImplementedError


def _on_gradient(optimizer: "weakref.ref[_RowOptimizer]", param: Tensor) -> None:
    alive = optimizer()
    if alive is not None:
        alive.on_gradient(param)


def _check_numbers(group: dict[str, Any]) -> None:
    checks.number("lr", group["lr"], ge=0)
    if "eps" in group:
        checks.number("eps", group["eps"], ge=0)
    if "betas" in group:
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise checks.wrong("betas", "two numbers", betas)
        for beta in betas:
            checks.number("betas", beta, ge=0)
            if beta >= 1:
                raise checks.wrong("betas", "numbers in [0, 1)", beta)


def fused_where(device: torch.device) -> dict[str, Any]:
    """Options of torch.optim.Adam and AdamW on a device: one launch for all tables, which a graph can capture
    and `found_inf` keeps from being made. None on the CPU."""
    return {} if device.type == "cpu" else {"fused": True, "capturable": True}


def _num_processes() -> int:
    distributed = torch.distributed
    return (
        distributed.get_world_size() if (distributed.is_available() and distributed.is_initialized()) else 1
    )


def _touched(grad: Tensor) -> tuple[Tensor, Tensor]:
    """(ids, rows) of a gradient as they came: the ops sum duplicates themselves, and see whether ids
    are in order, which autograd's coalesced flag does not tell."""
    if grad.is_sparse:
        return grad._indices()[0], grad._values()
    return torch.arange(grad.shape[0], device=grad.device), grad


def _check_sharded(param: Any, update_in_backward: bool) -> None:
    if update_in_backward:
        raise checks.wrong(
            "update_in_backward",
            "False with DTensor tables, whose gradients are summed over processes after backward",
            True,
        )
    for placement in param.placements:
        if not placement.is_replicate() and getattr(placement, "dim", None) != 0:
            raise checks.wrong(
                "params",
                "DTensor tables that are sharded by rows, Shard(0), or replicated: "
                "a step looks at whole rows",
                text=f"{placement}",
            )


def _local(value: Any) -> Tensor:
    """What this process has of it."""
    if not is_dtensor(value):
        return value
    part = value.to_local()
    return part.wait() if hasattr(part, "wait") else part  # what a collective has not delivered yet


def _local_gradient(param: Any) -> Tensor:
    grad: Any = param.grad
    if is_dtensor(param) and (grad.device_mesh, grad.placements) != (param.device_mesh, param.placements):
        grad = grad.redistribute(param.device_mesh, param.placements)
    return _local(grad)


def _zeros(param: Any, dtype: torch.dtype, *, a_row: bool = False) -> Tensor:
    """State of a table: a number per entry, or one per row."""

    def shape_of(table: Tensor) -> tuple[int, ...]:
        return (table.shape[0],) if a_row else (table.shape[0], *(table.shape[1:] or (1,)))

    part = _local(param)
    zeros = zeros_beside(part, shape_of(part), dtype)
    if not is_dtensor(param):
        return zeros
    shape = torch.Size(shape_of(param))
    return sys.modules["torch.distributed.tensor"].DTensor.from_local(
        zeros,
        param.device_mesh,
        param.placements,
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )


def _state_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


class RowSGD(_RowOptimizer):
    """SGD on the touched rows. params: [V, D] tables; lr: learning rate."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        *,
        update_in_backward: bool = False,
        rounding_seed: int | None = None,
        complete: Callable[[Tensor], None] | None = None,
    ):
        super().__init__(params, {"lr": lr}, update_in_backward, rounding_seed, complete)

    def _update(
        self, table: Tensor, ids: Tensor, rows: Tensor, state: dict, group: dict, given: dict
    ) -> None:
        ops.row_sgd_(table, ids, rows, lr=group["lr"], **given)


class RowAdagrad(_RowOptimizer):
    """Row-wise Adagrad: state is one number per row (`fastpop.ops.row_adagrad_`)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        eps: float = 1e-10,
        *,
        update_in_backward: bool = False,
        rounding_seed: int | None = None,
        complete: Callable[[Tensor], None] | None = None,
    ):
        super().__init__(params, {"lr": lr, "eps": eps}, update_in_backward, rounding_seed, complete)

    def _new_state(self, param: Tensor) -> dict[str, Tensor]:
        return {"square": _zeros(param, _state_dtype(param), a_row=True)}

    def _update(
        self, table: Tensor, ids: Tensor, rows: Tensor, state: dict, group: dict, given: dict
    ) -> None:
        ops.row_adagrad_(table, ids, rows, state["square"], lr=group["lr"], eps=group["eps"], **given)


class RowAdam(_RowOptimizer):
    """Row-wise Adam: full first moment, one second moment and step per row (`fastpop.ops.row_adam_`)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        update_in_backward: bool = False,
        rounding_seed: int | None = None,
        complete: Callable[[Tensor], None] | None = None,
    ):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps}, update_in_backward, rounding_seed, complete
        )

    def _new_state(self, param: Tensor) -> dict[str, Tensor]:
        dtype = _state_dtype(param)
        return {
            "mean": _zeros(param, dtype),
            "square": _zeros(param, dtype, a_row=True),
            "step": _zeros(param, torch.int64, a_row=True),
        }

    def _update(
        self, table: Tensor, ids: Tensor, rows: Tensor, state: dict, group: dict, given: dict
    ) -> None:
        ops.row_adam_(
            table,
            ids,
            rows,
            state["mean"],
            state["square"],
            state["step"],
            lr=group["lr"],
            betas=tuple(group["betas"]),
            eps=group["eps"],
            **given,
        )


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    *,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """torch.nn.utils.clip_grad_norm_ for sparse, dense and sharded gradients together.

    grad *= min(1, max_norm / (norm + 1e-6)), norm that of all gradients as one vector, as if the sparse
    ones were dense: entries of a repeated id are summed first, so the gradient is coalesced. Gradients
    that are DTensors count whole, whatever part of them a process holds.

    Args:
        parameters: a tensor or tensors; those without a gradient are passed over.
        max_norm: >= 0; inf only measures. norm_type: p > 0 of the norm; inf for the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite, and leave the gradients.
    Returns:
        the norm before clipping, 0-d, on the first gradient's device.
    Raises:
        ValueError: a bad number; a table with update_in_backward, whose gradient is gone by now.
        RuntimeError: error_if_nonfinite.
    Cost: two passes over the entries that are there. With DTensors one sum over processes each.
    """
    if max_norm != math.inf:
        checks.number("max_norm", max_norm, ge=0)
    if norm_type != math.inf:
        checks.number("norm_type", norm_type, gt=0)
    grads = []
    for param in [parameters] if isinstance(parameters, Tensor) else list(parameters):
        if not isinstance(param, Tensor):
            raise checks.wrong_type("parameters", "tensors", param)
        if _steps_in_backward(param):
            raise checks.wrong(
                "parameters", "tables whose gradients stay until step()", text="one with update_in_backward"
            )
        if param.grad is not None:
            param.grad = summed_gradient(param.grad)
            grads.append(param.grad)
    if not grads:
        return torch.zeros(())
    first = _numbers(grads[0]).device
    norms = [_norm(grad, float(norm_type)).to(first) for grad in grads]
    total = torch.linalg.vector_norm(torch.stack(norms), norm_type)
    if error_if_nonfinite and not torch.isfinite(total):
        raise RuntimeError(f"clip_grad_norm_: expected a finite norm of the gradients; got {total.item()}")
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for grad in grads:
        numbers = _numbers(grad)
        numbers.mul_(factor.to(numbers.device))
    return total


def _steps_in_backward(param: Tensor) -> bool:
    hooks = getattr(param, "_post_accumulate_grad_hooks", None) or {}
    return any(
        getattr(hook, "func", None) is _on_gradient and hook.args[0]() is not None for hook in hooks.values()
    )


def summed_gradient(grad: Tensor) -> Tensor:
    """A gradient whose numbers are those of the dense one, but for zeros: of entries that come again the sum
    stands once. Autograd drops the flag of one that is coalesced, so the CPU checks whether ids ascend before
    anything is sorted; a GPU is not waited for."""
    if grad.layout == torch.strided:
        return grad
    if grad.layout != torch.sparse_coo:
        raise checks.wrong_type(
            "parameters", "dense or COO gradients", text=f"{grad.layout} {list(grad.shape)}"
        )
    ids = grad._indices()
    if (
        grad.is_coalesced()
        or summed_ids.is_marked(ids)
        or (ids.device.type == "cpu" and len(ids) == 1 and bool((ids[0, 1:] > ids[0, :-1]).all()))
    ):
        return grad
    found = summed_ids.summed(ids[0], grad._values(), grad.shape[0]) if len(ids) == 1 else None
    if found is None:
        return grad.coalesce()
    return torch.sparse_coo_tensor(found[0][None], found[1], grad.shape, check_invariants=False)


def _numbers(grad: Tensor) -> Tensor:
    """The entries that this process has, to be changed in place."""
    return grad._values() if grad.layout == torch.sparse_coo else _local(grad)


def _norm(grad: Any, norm_type: float) -> Tensor:
    if is_dtensor(grad):
        return torch.linalg.vector_norm(grad, norm_type).full_tensor()
    numbers = _numbers(grad)
    if numbers.numel() == 0:
        return numbers.new_zeros(())  # of no entries, which the norm for inf refuses
    return torch.linalg.vector_norm(numbers, norm_type)
