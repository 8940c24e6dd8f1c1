"""Sampled softmax in CUDA C++ for rows that have their own negatives (csrc/sampled_softmax/rows.h).

One warp a row, gathered item rows used from registers, ids drawn inside from the table, whose seed
and step the kernel reads on the device; backward draws them again. Groups of up to 8 rows may share
negatives; larger ones are matrix products. fp32 inside, whatever the half inputs.

The table's gradient: backward writes each logit's coefficient and item (8 B K bytes), these are
sorted by item, and one owner for each stretch sums coefficient * query (kernels/row_sum). It has
min(B + G K, V) rows: a device cannot say how many items are different without being waited for.

Nothing waits for the device, nothing is atomic: bitwise repeatable, and a graph can capture it. Ids
out of range, a log p that is NaN or +inf and a log q that is not finite give their rows a loss that
is not finite (and no gradient) where the CPU raises: raising would wait for the device.

Bytes (rows.h, row_sum.h derive them; memory binds in all three): K (D s + 40) a row forward and again
backward, s the size of an item's numbers; 44 per entry for the table's gradient besides its query,
which comes from L2, and the sort. B = 65,536, K = 1,024, D = 128, bf16: 17.2 GB of items each way.
"""

import torch
from torch import Tensor

from fastpop import _C
from fastpop.kernels import device, native
from fastpop.kernels.row_sum import _cuda as row_sum
from fastpop.kernels.sampled_softmax.reference import Gradients, Inputs, Needs, prior_gradients

MAX_GROUP_SIZE: int = _C.max_group_size


def unsupported(inputs: Inputs) -> str | None:
    reason = device.unsupported(query=inputs.query_BD, items=inputs.item_VD)
    if reason is not None:
        return reason
    group_size = inputs.group_size
    if group_size > MAX_GROUP_SIZE:
        return (
            f"negatives shared by {group_size} rows, more than {MAX_GROUP_SIZE}; impl='triton' "
            "computes these on tensor cores"
        )
    return None


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(lse [B], pos_logit [B]); equals `reference.forward` within rounding."""
    num_rows = len(inputs.query_BD)
    lse_B, pos_logit_B = _empty(inputs, num_rows), _empty(inputs, num_rows)
    _run(inputs, False, lse=lse_B, pos_logit=pos_logit_B)
    return lse_B, pos_logit_B


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit); equals `reference.backward`, padded."""
    num_rows, dim = inputs.query_BD.shape
    num_items = len(inputs.item_VD)
    num_groups, num_negatives = inputs.num_groups, inputs.num_negatives
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    needs_rows = (needs.item or needs_prior) and num_rows > 0
    d_query_BD = _empty(inputs, num_rows, dim) if needs.query else None
    d_scale_B = _empty(inputs, num_rows, dtype=torch.float64) if needs.scale else None
    entry_id = coef_pos_B = coef_BK = None
    if needs_rows:
        entry_id = _empty(inputs, num_rows + num_groups * num_negatives, dtype=torch.int32)
        coef_pos_B, coef_BK = _empty(inputs, num_rows), _empty(inputs, num_rows, num_negatives)
    _run(
        inputs,
        True,
        lse=lse_B.contiguous(),
        pos_logit=pos_logit_B.contiguous(),
        d_lse=d_lse_B.to(torch.float32).contiguous(),
        d_pos=d_pos_B.to(torch.float32).contiguous(),
        d_query=d_query_BD,
        d_scale=d_scale_B,
        entry_id=entry_id,
        coef_pos=coef_pos_B,
        coef=coef_BK,
    )

    id_n = item_nD = log_prior_n = d_prior_weight = None
    if entry_id is not None:
        id_n, item_nD, d_bias_n = row_sum.sum_entries(
            row_sum.sort(entry_id),
            inputs.query_BD.contiguous(),
            min(len(entry_id), num_items),
            wants_rows=needs.item,
            wants_weights=needs_prior,
            head_coef=coef_pos_B,
            coef_BK=coef_BK,
            group_size=inputs.group_size,
            scale=inputs.scale,
        )
        if d_bias_n is not None:
            log_prior_n, d_prior_weight = prior_gradients(inputs, id_n, d_bias_n)
    elif needs.item or needs_prior:
        id_n, item_nD = _empty(inputs, 0, dtype=torch.int64), _empty(inputs, 0, dim)
        log_prior_n, d_prior_weight = _empty(inputs, 0), torch.zeros_like(inputs.prior_weight)
    return Gradients(
        query_BD=d_query_BD,
        id_n=id_n,
        item_nD=item_nD if needs.item else None,
        log_prior_n=log_prior_n if needs.log_prior else None,
        prior_weight=d_prior_weight if needs.prior_weight else None,
        scale=None if d_scale_B is None else d_scale_B.sum().to(torch.float32),
    )


def _empty(inputs: Inputs, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=inputs.query_BD.device)


def _run(inputs: Inputs, backward: bool, **results: Tensor | None) -> None:
    """Fills `results`; those that a pass leaves out are not wanted."""
    given, _held = device.named(inputs)
    del given["merge_repeats"]  # each row's own draws are read where they lie
    num_rows, dim = inputs.query_BD.shape
    device.run(
        "sampled_rows",
        inputs.query_BD.device,
        backward,
        **given,
        B=num_rows,
        V=len(inputs.item_VD),
        D=dim,
        **{name: native.address(one) for name, one in results.items()},
    )
