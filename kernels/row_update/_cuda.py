"""Row-wise optimiser steps in CUDA C++ (csrc/row_update/step.h): a team of lanes a touched row.

Ids come in any order and any number of times: they are sorted on the device, rows of ids that come
again are summed first (kernels/row_sum), the others are read where they lie. Ids that come in order, each
one's first row its sum, go without: one launch instead of twelve. An id makes one step;
one out of range makes none. Nothing waits for the device, so it cannot raise as the CPU does; with
FASTPOP_CHECK_IDS=1 the ops check first. fp32 inside and one rounding at the end, whatever the
table; state is fp32.

Bytes per row of D numbers (memory binds; 2 to 10 FLOPs a number): gradient and table D (4 + 2 s), s the
size of a table's number; 8 more for Adagrad, 8 D + 24 for Adam; and the sort, 28 per id. Read and
written once, 16 bytes at a time; rows that 16-byte loads do not fit (an odd D, strides) number by
number.
"""

import torch

from fastpop.kernels import device, fields, native
from fastpop.kernels.row_sum import _cuda as row_sum
from fastpop.kernels.row_update.reference import Inputs


def unsupported(inputs: Inputs) -> str | None:
    reason = device.unsupported(table=inputs.table_VD)
    if reason is not None:
        return reason
    if inputs.rounding_step >= 0:
        return "rounding at random, which this kernel does not do"
    if any(stride == 0 and size > 1 for stride, size in zip(inputs.table_VD.stride(), inputs.table_VD.shape)):
        return f"table has strides {list(inputs.table_VD.stride())}: its rows lie on each other"
    mean_VD = inputs.mean_VD
    if (
        mean_VD is not None
        and mean_VD.shape[1] > 1
        and (mean_VD.stride(1) != 1 or mean_VD.stride(0) < mean_VD.shape[1])
    ):
        return f"mean has strides {list(mean_VD.stride())}, these kernels want rows side by side"
    for name, state in (("square", inputs.square_V), ("step", inputs.step_V)):
        if state is not None and not state.is_contiguous():
            return f"{name} is not contiguous"
    if inputs.rows_nD.shape[0] > device.MAX_INT32:
        return f"{inputs.rows_nD.shape[0]} gradient rows, these kernels take up to 2^31 - 1"
    return None


def forward(inputs: Inputs) -> None:
    """Equals `reference.forward` within rounding; ids that no table has make no step."""
    if len(inputs.ids_n) == 0:
        return
    rows_nD, table_VD, mean_VD = inputs.rows_nD, inputs.table_VD, inputs.mean_VD
    if rows_nD.dtype != table_VD.dtype:
        rows_nD = rows_nD.to(torch.float32)
    rows_nD = rows_nD.contiguous()
    num_items, dim = table_VD.shape
    ids_n = key = place = segment = sum_nD = None
    if inputs.summed:
        ids_n = inputs.ids_n.contiguous()
    else:
        key, place, segment = entries = row_sum.sort_ids(inputs.ids_n, num_items)
        sum_nD = row_sum.sum_repeats(entries, rows_nD)
    device.run(
        "row_update",
        table_VD.device,
        rule=inputs.rule,
        n=len(inputs.ids_n),
        V=num_items,
        D=dim,
        table=native.matrix(table_VD),
        id=native.address(ids_n),
        key=native.address(key),
        place=native.address(place),
        segment=native.address(segment),
        rows=native.matrix(rows_nD),
        sum=native.address(sum_nD),
        lr=inputs.lr,
        eps=inputs.eps,
        beta1=inputs.beta1,
        beta2=inputs.beta2,
        mean=0 if mean_VD is None else native.pointer(mean_VD),
        mean_stride=0 if mean_VD is None else mean_VD.stride(0),
        square=native.address(inputs.square_V),
        step=native.address(inputs.step_V),
        found_inf=native.address(inputs.found_inf),
    )
    fields.written(table_VD, mean_VD, inputs.square_V, inputs.step_V)
