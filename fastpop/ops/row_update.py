"""One optimiser step on the touched rows of an embedding table, in place."""

from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels.sampled_softmax.reference import sum_duplicates
from fastpop.ops import _dispatch
from fastpop.types import Impl


def row_sgd_(table: Tensor, ids: Tensor, rows: Tensor, *, lr: float, impl: Impl = "auto") -> None:
    """table.index_add_(0, ids, rows, alpha=-lr), duplicates summed first.

    Args:
        table: [V, D] float, changed in place.
        ids: [n] int64 in [0, V), duplicates allowed.
        rows: [n, D] gradients of those rows.
        lr: learning rate, >= 0.
    Cost: O(n D); untouched rows are not read.
    """
    ids, rows, module = _enter(table, ids, rows, lr, impl)
    module.sgd_(table, ids, rows, lr)


def row_adagrad_(
    table: Tensor, ids: Tensor, rows: Tensor, square: Tensor, *, lr: float, eps: float = 1e-10,
    impl: Impl = "auto",
) -> None:
    """square[ids] += rows.square().mean(1); table[ids] -= lr * rows / (square[ids].sqrt() + eps).

    Args:
        table, ids, rows, lr: as in `row_sgd_`; duplicates are summed before the square.
        square: [V] float32 (float64 beside a float64 table) running sum, changed in place.
        eps: added to the root, > 0.
    Cost: O(n D); 1 + D numbers of traffic a row instead of Adagrad's 2 D.
    Source: row-wise Adagrad of FBGEMM/DLRM (arXiv 1906.00091).
    """
    ids, rows, module = _enter(table, ids, rows, lr, impl)
    _state("square", square, (table.shape[0],), table)
    checks.number("eps", eps, above=0)
    module.adagrad_(table, ids, rows, square, lr, eps)


def row_adam_(
    table: Tensor, ids: Tensor, rows: Tensor, mean: Tensor, square: Tensor, step: Tensor, *,
    lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, impl: Impl = "auto",
) -> None:
    """Adam on the touched rows, with one second moment a row.

    Args:
        table, ids, rows, lr: as in `row_sgd_`; duplicates are summed first.
        mean: [V, D] first moment; square: [V] mean squared gradient; step: [V] int64 steps taken
            by each row. All changed in place on the touched rows only: an untouched row keeps
            its moments, so they do not decay while it rests.
        betas: decay rates in [0, 1). eps: added to the root, > 0.
    Cost: O(n D).
    Source: Adam, arXiv 1412.6980; row-wise second moment as in FBGEMM's partial row-wise Adam.
    """
    ids, rows, module = _enter(table, ids, rows, lr, impl)
    _state("mean", mean, tuple(table.shape), table)
    _state("square", square, (table.shape[0],), table)
    checks.shape("step", step, (table.shape[0],))
    if step.dtype != torch.int64:
        raise checks.wrong_type("step", "an int64 tensor", step)
    for beta in betas:
        checks.number("betas", beta, least=0)
        if beta >= 1:
            raise checks.wrong("betas", "two numbers in [0, 1)", betas)
    checks.number("eps", eps, above=0)
    module.adam_(table, ids, rows, mean, square, step, lr, betas, eps)


def _enter(table: Any, ids: Any, rows: Any, lr: float, impl: str):
    if not isinstance(table, Tensor) or not table.dtype.is_floating_point:
        raise checks.wrong_type("table", "a [V, D] float tensor", table)
    checks.shape("table", table, ("V", "D"))
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
        raise checks.wrong_type("ids", "an int64 tensor", ids)
    checks.shape("ids", ids, ("n",))
    checks.shape("rows", rows, (ids.shape[0], table.shape[1]))
    checks.number("lr", lr, least=0)
    if ids.device.type == "cpu":
        checks.ids_in_range("ids", ids, table.shape[0])
    ascending = ids.numel() < 2 or bool((ids[1:] > ids[:-1]).all())
    if not ascending:
        ids, rows = sum_duplicates(ids, rows)
    return ids, rows, _dispatch.choose("row_update", impl, table.device.type, table)


def _state(name: str, state: Tensor, shape: tuple[int, ...], table: Tensor) -> None:
    checks.shape(name, state, shape)
    wanted = torch.float64 if table.dtype == torch.float64 else torch.float32
    if state.dtype != wanted:
        raise checks.wrong_type(name, f"a {str(wanted)[6:]} tensor", state)
