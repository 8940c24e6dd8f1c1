"""Row-wise optimiser steps in C++ (csrc/row_update/cpu.cpp), on all of torch's threads.

A touched row and its state are read once and written once, asked for ahead of time; gradients of a
repeated id are summed in the order they came. Ids in order are seen to be so in one pass and never
sorted. Float32 inside, whatever the table's dtype, and the numbers there is one of a row in float64.

Cost: 4 D (n + 2 touched rows) bytes of a float32 table and its gradients, and the state. Touched rows
lie on as many pages: torch puts large tables on huge ones under THP_MEM_ALLOC_ENABLE=1 (Linux), which
helps a step on a table that is out of cache.
"""

import torch
from torch import Tensor

from fastpop import _C, checks
from fastpop.kernels import native
from fastpop.kernels.row_update.reference import Inputs

SGD, ADAGRAD, ADAM = 0, 1, 2


def unsupported(inputs: Inputs) -> str | None:
    reason = native.unsupported(table=inputs.table_VD) or native.negated(
        rows=inputs.rows_nD, mean=inputs.mean_VD, square=inputs.square_V)
    if reason is not None:
        return reason
    for name, rows in (("table", inputs.table_VD), ("mean", inputs.mean_VD)):
        if rows is not None and not _has_whole_rows(rows):
            return f"{name} has strides {list(rows.stride())}, these kernels want rows side by side"
    for name, numbers in (("square", inputs.square_V), ("step", inputs.step_V)):
        if numbers is not None and not numbers.is_contiguous():
            return f"{name} is not contiguous"
    if inputs.rows_nD.shape[0] >= 2**32:
        return f"{inputs.rows_nD.shape[0]} gradient rows, these kernels count them in 32 bits"
    return None


def sgd_(table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, lr: float) -> None:
    """Equals `reference.sgd_` within rounding."""
    _run(SGD, table_VD, ids_n, rows_nD, (), lr=lr)


def adagrad_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, square_V: Tensor, lr: float, eps: float
) -> None:
    """Equals `reference.adagrad_` within rounding."""
    _run(ADAGRAD, table_VD, ids_n, rows_nD, (square_V,), lr=lr, eps=eps,
         square=native.pointer(square_V))


def adam_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, mean_VD: Tensor, square_V: Tensor,
    step_V: Tensor, lr: float, betas: tuple[float, float], eps: float,
) -> None:
    """Equals `reference.adam_` within rounding."""
    _run(ADAM, table_VD, ids_n, rows_nD, (mean_VD, square_V, step_V), lr=lr, beta1=betas[0],
         beta2=betas[1], eps=eps, mean=native.pointer(mean_VD), mean_stride=mean_VD.stride(0),
         square=native.pointer(square_V), step=native.pointer(step_V))


def _has_whole_rows(rows_VD: Tensor) -> bool:
    num_rows, dim = rows_VD.shape
    return (dim <= 1 or rows_VD.stride(1) == 1) and (num_rows <= 1 or rows_VD.stride(0) >= dim)


def _run(rule: int, table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, state: tuple[Tensor, ...],
         **numbers: float) -> None:
    if rows_nD.dtype == torch.float64:
        rows_nD = rows_nD.to(torch.float32)
    ids_n = ids_n.contiguous()
    num_items, dim = table_VD.shape
    bad = _C.row_update(
        rule=rule, table=native.matrix(table_VD), V=num_items, D=dim, ids=native.pointer(ids_n),
        n=ids_n.shape[0], rows=native.matrix(rows_nD), threads=native.threads_for(20 * rows_nD.numel()),
        path=native.path, **numbers)
    if bad >= 0:
        raise checks.id_out_of_range("ids", int(ids_n[bad]), bad, num_items)
    # Written behind torch's back: without this, autograd would not see that a saved table changed.
    for changed in (table_VD, *state):
        if not changed.is_inference():
            torch.autograd.graph.increment_version(changed)
