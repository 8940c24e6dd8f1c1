"""A recording of torch's operators that stands for a CUDA graph, and assemblies whose steps are recorded."""

import contextlib
import dataclasses
from unittest import mock

import numpy as np
import torch
from helpers_logs import small_log
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastpop import optim
from fastpop.ops import row_update, validation
from fastpop.training import TrainConfig, build, captured, late, loop

OPTIONS = {
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "dropout": 0.2,
}
KINDS = {
    "factor": {"encoder": "factor"},
    "factor, inside backward": {"encoder": "factor", "update_in_backward": True},
    "factor, groups, a learned temperature": {
        "encoder": "factor",
        "group_size": 16,
        "learn_temperature": True,
    },
    "bag, row_adagrad": {"encoder": "bag", "table_optimizer": "row_adagrad"},
    "sasrec": {"encoder": "sasrec"},
    "sasrec, full": {"encoder": "sasrec", "loss": "full_softmax"},
    "sasrec, weighted, learned prior": {"encoder": "sasrec", "prior": "learned", "weighted": True},
}


class SparseSums(TorchDispatchMode):
    """As CUDA adds sparse tensors: the CPU looks for equal ids."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.add.Tensor and all(one.is_sparse for one in args):
            ids, rows = (torch.cat(parts, dim) for parts, dim in zip(zip(*map(numbers_of, args)), (1, 0)))
            return torch.sparse_coo_tensor(ids, rows, args[0].shape, check_invariants=False)
        return function(*args, **(kwargs or {}))


def numbers_of(tensor):
    return (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,)


def assembled(weighted=False, **options):
    log = small_log(weighted=weighted)
    config = TrainConfig(**OPTIONS | options)
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    stop = late.Stop(torch.device("cpu"))
    for one in parts.optimizers:
        one.found_inf = stop.flag
    return dataclasses.replace(parts, stop=stop)


def state_of(parts):
    """Every tensor that a step changes."""
    own = [value for one in parts.optimizers for state in one.state.values() for value in state.values()]
    return [*parts.model.state_dict().values(), *own, parts.stop.flag, parts.stop._seen]


class Recorded(TorchDispatchMode):
    """A graph: operators with the tensors that they were given, and the numbers as they were then."""

    def __init__(self, parts):
        super().__init__()
        self.parts, self.calls = parts, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, found))
        return found

    def record(self, function):
        state = state_of(self.parts)
        before = [one.clone() for one in state]
        step, self.real_step = row_update._step, row_update._step

        def noted(inputs, impl):
            self.calls.append((step, (inputs, impl), {}, None))
            with torch._C._DisableTorchDispatch():
                step(inputs, impl)

        row_update._step = noted
        try:
            with self:
                found = function()
        finally:
            row_update._step = step
        for one, was in zip(state, before):
            one.detach().copy_(was)
        return found

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, found in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again)):
                if isinstance(old, torch.Tensor) and old is not new:
                    for memory, value in zip(numbers_of(old), numbers_of(new)):
                        memory.detach().copy_(value)


def recorder(parts, graph=None):
    config, device = parts.config, parts.model.device
    return captured.Recorder(
        parts,
        lambda step: loop._seed_dropout(loop._mixed(config.seed, step), device),
        lambda: loop._autocast(config, device),
        graph or (lambda: Recorded(parts)),
    )


@contextlib.contextmanager
def as_on_a_device():
    """Optimisers are fused: no Python reads their step counts. A gradient has rows for all that was drawn,
    and one of two parts is one after the other."""
    with (
        mock.patch.object(optim, "fused_where", return_value={"fused": True}),
        mock.patch.object(validation, "shapes_are_fixed", return_value=True),
        SparseSums(),
    ):
        yield
