"""The Triton kernels of the full softmax; `_triton.py` launches them.

A tile of logits [rows, items] never leaves the chip:

    logit(b, i) = scale * <query[b], items[i]> + prior_weight * log_prior[i]

Indices past the end are clamped to the last valid one, so every load reads something real; such items
get a bias of -inf, such rows are not written. A positive out of range is read as item 0: its logit is NaN
and its row gives no gradient.
"""

import triton
import triton.language as tl

from fastpop.kernels import triton_tiles
from fastpop.kernels.triton_softmax import (
    candidate_rows,
    empty_sum,
    log_sum,
    logit,
    online_sum,
    powers,
    prior_term,
    row_dots,
    row_terms,
    store_item_gradients,
    store_query_gradients,
)
from fastpop.kernels.triton_tiles import add_product, known_ids, load_rows, product


@triton.jit
def item_bias(id_v, inside_v, log_prior_ptr, prior_weight_ptr):
    """[BLOCK_V] what is added to an item's scaled dot product."""
    bias_v = tl.where(inside_v, 0.0, float("-inf"))
    if log_prior_ptr is not None:
        bias_v += prior_term(id_v, log_prior_ptr, tl.load(prior_weight_ptr))
    return bias_v


@triton_tiles.kernel
def forward_kernel(
    query_ptr,
    item_ptr,
    pos_id_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    scale_ptr,
    lse_ptr,
    pos_logit_ptr,
    num_rows,
    num_items,
    dim,
    split_size,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_B rows and one range of the catalogue.

    In registers: query tile [BLOCK_B, BLOCK_D], logit tile [BLOCK_B, BLOCK_V], and the run's largest,
    base and sum [BLOCK_B]. To memory, once: lse [split, B], and pos_logit [B] from split 0.
    1. Split 0: the positive's logit as float32 dot products.
    2. Per block of items: tensor-core product, scale, bias; merge into the run.
    3. lse = log of the run; a range whose items are all removed gives -inf.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 2 BLOCK_B V D FLOPs.
    """
    offs_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    inside_b = offs_b < num_rows
    row_b = tl.minimum(offs_b, num_rows - 1).to(tl.int64)
    scale = tl.load(scale_ptr)
    if tl.program_id(1) == 0:
        pos_id_b = known_ids(tl.load(pos_id_ptr + row_b), num_items)
        item_row_b = tl.maximum(pos_id_b, 0).to(tl.int64)
        pos_b = scale * row_dots(
            query_ptr, row_b, stride_qb, stride_qd, item_ptr, item_row_b, stride_ev, stride_ed, dim, 16
        )
        if log_prior_ptr is not None:
            pos_b = logit(pos_b, 1.0, prior_term(item_row_b, log_prior_ptr, tl.load(prior_weight_ptr)))
        pos_b = tl.where(pos_id_b < 0, float("nan"), pos_b)
        tl.store(pos_logit_ptr + offs_b, pos_b, mask=inside_b)

    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    largest_b, base_b, sum_b = empty_sum(BLOCK_B)
    first = tl.program_id(1) * split_size
    for first_v in range(first, tl.minimum(first + split_size, num_items), BLOCK_V):
        offs_v = first_v + tl.arange(0, BLOCK_V)
        id_v = tl.minimum(offs_v, num_items - 1).to(tl.int64)
        bias_v = item_bias(id_v, offs_v < num_items, log_prior_ptr, prior_weight_ptr)
        item_vd = load_rows(item_ptr, id_v, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D)
        dot_bv = product(query_bd, tl.trans(item_vd), PRECISION)
        largest_b, base_b, sum_b = online_sum(largest_b, base_b, sum_b, logit(dot_bv, scale, bias_v[None, :]))
    tl.store(
        lse_ptr + tl.program_id(1).to(tl.int64) * num_rows + offs_b,
        log_sum(largest_b, base_b, sum_b),
        mask=inside_b,
    )


@triton_tiles.kernel
def query_kernel(
    query_ptr,
    item_ptr,
    pos_id_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    scale_ptr,
    terms_ptr,
    own_ptr,
    d_query_ptr,
    d_scale_ptr,
    num_rows,
    num_items,
    dim,
    split_size,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_B rows and one range of the catalogue.

    In registers: query tile [BLOCK_B, BLOCK_D], logit tile [BLOCK_B, BLOCK_V], d_query
    [BLOCK_B, BLOCK_D]. To memory, once: d_query [split, B, D] and d_scale [split, B], each where
    its pointer is given.
    1. Per block of items: the logits again, probability = exp(logit - lse).
    2. d_query += probability @ items; d_scale += sum of probability * dot.
    3. Times the row's weight; split 0 adds own * the positive's item.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 4 BLOCK_B V D FLOPs.
    """
    offs_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    inside_b = offs_b < num_rows
    row_b = tl.minimum(offs_b, num_rows - 1).to(tl.int64)
    base_b, weight_b = row_terms(terms_ptr, row_b)
    scale = tl.load(scale_ptr)
    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    d_query_bd = tl.zeros([BLOCK_B, BLOCK_D], tl.float32)
    d_scale_b = tl.zeros([BLOCK_B], tl.float32)
    first = tl.program_id(1) * split_size
    for first_v in range(first, tl.minimum(first + split_size, num_items), BLOCK_V):
        offs_v = first_v + tl.arange(0, BLOCK_V)
        id_v = tl.minimum(offs_v, num_items - 1).to(tl.int64)
        bias_v = item_bias(id_v, offs_v < num_items, log_prior_ptr, prior_weight_ptr)
        item_vd = candidate_rows(
            item_ptr, id_v, bias_v, log_prior_ptr, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D
        )
        dot_bv = product(query_bd, tl.trans(item_vd), PRECISION)
        # The same roundings as in forward, whose sum the base is: probabilities then add up to 1.
        probability_bv = powers(dot_bv * scale + bias_v[None, :], base_b[:, None])
        if d_scale_ptr is not None:
            d_scale_b += tl.sum(probability_bv * dot_bv, 1)
        if d_query_ptr is not None:
            d_query_bd = add_product(d_query_bd, (probability_bv * RANGE).to(DOT), item_vd, PRECISION)

    pos_id_b = tl.maximum(known_ids(tl.load(pos_id_ptr + row_b), num_items), 0).to(tl.int64)
    store_query_gradients(
        d_query_bd,
        d_scale_b,
        weight_b,
        offs_b,
        inside_b,
        row_b,
        pos_id_b,
        query_ptr,
        item_ptr,
        own_ptr,
        d_query_ptr,
        d_scale_ptr,
        scale,
        num_rows,
        dim,
        stride_qb,
        stride_qd,
        stride_ev,
        stride_ed,
        RANGE,
        BLOCK_D,
    )


@triton_tiles.kernel
def item_kernel(
    query_ptr,
    item_ptr,
    pos_id_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    scale_ptr,
    terms_ptr,
    own_ptr,
    peak_ptr,
    d_item_ptr,
    d_bias_ptr,
    num_rows,
    num_items,
    dim,
    split_size,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_V items and one range of the rows.

    In registers: item tile [BLOCK_V, BLOCK_D], logit tile [BLOCK_V, BLOCK_B], d_item
    [BLOCK_V, BLOCK_D], d_bias [BLOCK_V]. To memory, once: d_item [split, V, D] and d_bias [split, V],
    each where its pointer is given.
    1. Per block of rows: the logits again; share = weight * probability, plus own where the item is
       the row's positive, both over `peak` in float16.
    2. d_item += share @ queries; d_bias += sum of shares over the rows.
    Each item has one owner: no atomics, hence bitwise repeatable. Cost: 4 B BLOCK_V D FLOPs.
    """
    offs_v = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    inside_v = offs_v < num_items
    id_v = tl.minimum(offs_v, num_items - 1).to(tl.int64)
    bias_v = item_bias(id_v, inside_v, log_prior_ptr, prior_weight_ptr)
    item_vd = candidate_rows(
        item_ptr, id_v, bias_v, log_prior_ptr, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D
    )
    scale = tl.load(scale_ptr)
    peak = 1.0
    if peak_ptr is not None:
        peak = tl.load(peak_ptr)
    d_item_vd = tl.zeros([BLOCK_V, BLOCK_D], tl.float32)
    d_bias_v = tl.zeros([BLOCK_V], tl.float32)
    first = tl.program_id(1) * split_size
    for first_b in range(first, tl.minimum(first + split_size, num_rows), BLOCK_B):
        offs_b = first_b + tl.arange(0, BLOCK_B)
        inside_b = offs_b < num_rows
        row_b = tl.minimum(offs_b, num_rows - 1).to(tl.int64)
        base_b, weight_b = row_terms(terms_ptr, row_b)
        weight_b = tl.where(inside_b, weight_b, 0.0)
        own_b = tl.where(inside_b, tl.load(own_ptr + row_b), 0.0)
        if peak_ptr is not None:
            weight_b, own_b = weight_b / peak, own_b / peak
        pos_id_b = known_ids(tl.load(pos_id_ptr + row_b), num_items)
        query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
        dot_vb = product(item_vd, tl.trans(query_bd), PRECISION)
        share_vb = powers(dot_vb * scale + bias_v[:, None], base_b[None, :]) * weight_b[None, :]
        share_vb += tl.where(offs_v[:, None] == pos_id_b[None, :], own_b[None, :], 0.0)
        if d_bias_ptr is not None:
            d_bias_v += tl.sum(share_vb, 1)
        if d_item_ptr is not None:
            d_item_vd = add_product(d_item_vd, (share_vb * RANGE).to(DOT), query_bd, PRECISION)

    split_item_v = tl.program_id(1).to(tl.int64) * num_items + offs_v
    store_item_gradients(
        d_item_vd, d_bias_v, split_item_v, inside_v, d_item_ptr, d_bias_ptr, scale, peak, dim, RANGE, BLOCK_D
    )
