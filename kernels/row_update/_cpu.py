"""Row-wise optimiser steps in C++ (csrc/row_update/cpu.cpp), on all of torch's threads.

A touched row and its state are read once and written once, asked for ahead of time; gradients of a
repeated id are summed in the order they came. Ids in order are seen to be so in one pass and never
sorted. Float32 inside, whatever the table's dtype, and the numbers there is one of a row in float64.

Cost: 4 D (n + 2 touched rows) bytes of a float32 table and its gradients, and the state. Touched rows
lie on as many pages: fastpop/pages.py puts large tables on huge ones, which helps a step on a table that is
out of cache. A bfloat16 row that is rounded at random takes D / 8 blocks of Philox.
"""

import torch
from torch import Tensor

from fastpop import _C, checks
from fastpop.kernels import fields, native
from fastpop.kernels.row_update.reference import Inputs


def unsupported(inputs: Inputs) -> str | None:
    reason = native.unsupported(table=inputs.table_VD) or native.negated(
        rows=inputs.rows_nD, mean=inputs.mean_VD, square=inputs.square_V
    )
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


def forward(inputs: Inputs) -> None:
    """Equals `reference.forward` within rounding."""
    if inputs.found_inf is not None and inputs.found_inf.item():
        return
    rows_nD, mean_VD = inputs.rows_nD, inputs.mean_VD
    if rows_nD.dtype == torch.float64:
        rows_nD = rows_nD.to(torch.float32)
        inputs = inputs._replace(rows_nD=rows_nD)
    num_items, dim = inputs.table_VD.shape
    given, _held = native.named(inputs)
    # Here a pass sees for itself whether ids ascend, and words are made where they are used.
    del given["found_inf"], given["summed"], given["noise"]
    # Rows side by side, however far apart: an address and a stride.
    given["mean"], given["mean_stride"] = (0, 0) if mean_VD is None else given["mean"][:2]
    bad = _C.row_update(
        **given,
        V=num_items,
        D=dim,
        n=inputs.ids_n.shape[0],
        threads=native.threads_for(20 * rows_nD.numel()),
        path=native.path,
    )
    if bad >= 0:
        raise checks.id_out_of_range("ids", int(inputs.ids_n[bad]), bad, num_items)
    fields.written(inputs.table_VD, inputs.mean_VD, inputs.square_V, inputs.step_V)


def _has_whole_rows(rows_VD: Tensor) -> bool:
    num_rows, dim = rows_VD.shape
    return (dim <= 1 or rows_VD.stride(1) == 1) and (num_rows <= 1 or rows_VD.stride(0) >= dim)
