"""Row-wise optimiser steps in CUDA C++ (csrc/row_update/step.h): a team of lanes a touched row.

Ids come in any order and any number of times: they are sorted on the device, rows of ids that come
again are summed first (kernels/row_sum), the others are read where they lie. An id makes one step;
one out of range makes none. Nothing waits for the device, so it cannot raise as the CPU does; with
FASTPOP_CHECK_IDS=1 the ops look first. fp32 inside and one rounding at the end, whatever the
table; state is fp32.

Bytes a row of D numbers (memory binds; 2 to 10 FLOPs a number): gradient and table D (4 + 2 s), s the
size of a table's number; 8 more for Adagrad, 8 D + 24 for Adam; and the sort, 28 an id. Read and
written once, 16 bytes at a time; rows that 16-byte loads do not fit (an odd D, strides) number by
number.
"""

import torch
from torch import Tensor

from fastpop.kernels import device, native
from fastpop.kernels.row_sum import _cuda as row_sum
from fastpop.kernels.row_update.reference import Inputs

SGD, ADAGRAD, ADAM = 0, 1, 2


def unsupported(inputs: Inputs) -> str | None:
    reason = device.unsupported(table=inputs.table_VD)
    if reason is not None:
        return reason
    if any(stride == 0 and size > 1 for stride, size in
           zip(inputs.table_VD.stride(), inputs.table_VD.shape)):
        return f"table has strides {list(inputs.table_VD.stride())}: its rows lie on each other"
    mean_VD = inputs.mean_VD
    if mean_VD is not None and mean_VD.shape[1] > 1 and (
            mean_VD.stride(1) != 1 or mean_VD.stride(0) < mean_VD.shape[1]):
        return f"mean has strides {list(mean_VD.stride())}, these kernels want rows side by side"
    for name, state in (("square", inputs.square_V), ("step", inputs.step_V)):
        if state is not None and not state.is_contiguous():
            return f"{name} is not contiguous"
    if inputs.rows_nD.shape[0] > device.MAX_INT32:
        return f"{inputs.rows_nD.shape[0]} gradient rows, these kernels take up to 2^31 - 1"
    return None


def sgd_(table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, lr: float) -> None:
    """Equals `reference.sgd_` within rounding."""
    _run(SGD, table_VD, ids_n, rows_nD, lr)


def adagrad_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, square_V: Tensor, lr: float, eps: float
) -> None:
    """Equals `reference.adagrad_` within rounding."""
    _run(ADAGRAD, table_VD, ids_n, rows_nD, lr, eps, square=square_V)


def adam_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, mean_VD: Tensor, square_V: Tensor,
    step_V: Tensor, lr: float, betas: tuple[float, float], eps: float,
) -> None:
    """Equals `reference.adam_` within rounding."""
    _run(ADAM, table_VD, ids_n, rows_nD, lr, eps, betas, mean=mean_VD, square=square_V, step=step_V)


def _run(
    rule: int, table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, lr: float, eps: float = 0.0,
    betas: tuple[float, float] = (0.0, 0.0), **state: Tensor,
) -> None:
    if len(ids_n) == 0:
        return
    if rows_nD.dtype != table_VD.dtype:
        rows_nD = rows_nD.to(torch.float32)
    rows_nD = rows_nD.contiguous()
    num_items, dim = table_VD.shape
    mean_VD = state.get("mean")
    entries = row_sum.sort_ids(ids_n, num_items)
    sum_nD = row_sum.sum_repeats(entries, rows_nD)
    device.run(
        "row_update", table_VD.device,
        n=len(ids_n), V=num_items, D=dim, table=native.matrix(table_VD),
        key=native.address(entries.key_N), place=native.address(entries.place_N),
        segment=native.address(entries.segment_N), rows=native.matrix(rows_nD),
        sum=native.address(sum_nD), rule=rule, lr=lr, eps=eps, beta_mean=betas[0],
        beta_square=betas[1], mean=0 if mean_VD is None else native.pointer(mean_VD),
        mean_stride=0 if mean_VD is None else mean_VD.stride(0),
        **{name: native.address(state.get(name)) for name in ("square", "step")})
    # Written behind torch's back: without this, autograd would not see that a saved table changed.
    for changed in (table_VD, *state.values()):
        if not changed.is_inference():
            torch.autograd.graph.increment_version(changed)
