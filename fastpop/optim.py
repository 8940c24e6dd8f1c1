"""Optimisers for embedding tables: one adaptive number a row, untouched rows left alone.

Tables are [V, D], or [V] for one number an item. The optimisers take sparse gradients
(`sparse_grad=True`, `nn.Embedding(sparse=True)`) and dense ones, where every row counts as touched.

With update_in_backward=True the step is made inside backward(), as soon as a table's gradient is
complete, and the gradient is let go: it never waits beside those of other tables. `step()` then only
ends the step. What needs gradients to stay is refused: a second backward() before `step()` (gradient
accumulation), and more than one process (their gradients would have to be summed first). Clipping and
GradScaler find no gradient: torch's GradScaler says so, clip_grad_norm_ cannot.
"""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastpop import checks, ops


class _RowOptimizer(torch.optim.Optimizer):
    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], update_in_backward: bool):
        _check_numbers(defaults)
        if update_in_backward and _num_processes() > 1:
            raise checks.wrong("update_in_backward", "False with several processes, whose gradients "
                               "must be summed before a step", True)
        self.update_in_backward = update_in_backward
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
        super().add_param_group(param_group | {"params": params})
        if self.update_in_backward:
            self._watch(self.param_groups[-1]["params"])

    def _watch(self, params: list[Tensor]) -> None:
        # Weakly: a table that outlives its optimizer is not updated any more.
        for param in params:
            param.register_post_accumulate_grad_hook(partial(_on_gradient, weakref.ref(self)))

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"update_in_backward": self.update_in_backward}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy, whose tables have no hooks yet; and of load_state_dict, which names less."""
        super().__setstate__(state)
        if "update_in_backward" in state:
            self._updated = set()
            if self.update_in_backward:
                for group in self.param_groups:
                    self._watch(group["params"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but for the state of half tables: that stays float32, as it was saved."""
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for number, param in zip(numbers, params):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[param][name] = value.detach().to(param.device, copy=True)

    @torch.no_grad()
    def on_gradient(self, param: Tensor) -> None:
        if param in self._updated:
            param.grad = None
            raise RuntimeError(
                "update_in_backward: expected one backward() for each step(); got a second gradient of "
                "a table that was already updated. Gradient accumulation needs update_in_backward=False")
        self._updated.add(param)
        group = next(group for group in self.param_groups if any(param is one for one in group["params"]))
        self._update_table(group, param)
        param.grad = None

    def _update_table(self, group: dict, param: Tensor) -> None:
        if param.grad is None:
            return
        ids, rows = _touched(param.grad)
        table = param if param.ndim == 2 else param[:, None]
        self._update(table, ids, rows.reshape(len(ids), table.shape[1]), self.state[param], group)

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

    def _update(self, param: Tensor, ids: Tensor, rows: Tensor, state: dict, group: dict) -> None:
        raise NotImplementedError


def _on_gradient(optimizer: "weakref.ref[_RowOptimizer]", param: Tensor) -> None:
    alive = optimizer()
    if alive is not None:
        alive.on_gradient(param)


def _check_numbers(group: dict[str, Any]) -> None:
    checks.number("lr", group["lr"], least=0)
    if "eps" in group:
        checks.number("eps", group["eps"], least=0)
    if "betas" in group:
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise checks.wrong("betas", "two numbers", betas)
        for beta in betas:
            checks.number("betas", beta, least=0)
            if beta >= 1:
                raise checks.wrong("betas", "numbers in [0, 1)", beta)


def _num_processes() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if (
        distributed.is_available() and distributed.is_initialized()) else 1


def _touched(grad: Tensor) -> tuple[Tensor, Tensor]:
    """(ids, rows) of a gradient as they came: the ops sum duplicates themselves, and see whether ids
    are in order, which autograd's coalesced flag does not tell."""
    if grad.is_sparse:
        return grad._indices()[0], grad._values()
    return torch.arange(grad.shape[0], device=grad.device), grad


def _state_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


class RowSGD(_RowOptimizer):
    """SGD on the touched rows. params: [V, D] tables; lr: learning rate."""

    def __init__(self, params: Iterable[Any], lr: float = 0.1, *, update_in_backward: bool = False):
        super().__init__(params, {"lr": lr}, update_in_backward)

    def _update(self, param, ids, rows, state, group):
        ops.row_sgd_(param, ids, rows, lr=group["lr"])


class RowAdagrad(_RowOptimizer):
    """Row-wise Adagrad: state is one number a row (`fastpop.ops.row_adagrad_`)."""

    def __init__(self, params: Iterable[Any], lr: float = 0.1, eps: float = 1e-10, *,
                 update_in_backward: bool = False):
        super().__init__(params, {"lr": lr, "eps": eps}, update_in_backward)

    def _update(self, param, ids, rows, state, group):
        if not state:
            state["square"] = torch.zeros(param.shape[0], dtype=_state_dtype(param),
                                          device=param.device)
        ops.row_adagrad_(param, ids, rows, state["square"], lr=group["lr"], eps=group["eps"])


class RowAdam(_RowOptimizer):
    """Row-wise Adam: full first moment, one second moment and step a row (`fastpop.ops.row_adam_`)."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, *,
                 update_in_backward: bool = False):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps}, update_in_backward)

    def _update(self, param, ids, rows, state, group):
        if not state:
            dtype = _state_dtype(param)
            state["mean"] = torch.zeros(param.shape, dtype=dtype, device=param.device)
            state["square"] = torch.zeros(param.shape[0], dtype=dtype, device=param.device)
            state["step"] = torch.zeros(param.shape[0], dtype=torch.int64, device=param.device)
        ops.row_adam_(param, ids, rows, state["mean"], state["square"], state["step"],
                      lr=group["lr"], betas=tuple(group["betas"]), eps=group["eps"])
