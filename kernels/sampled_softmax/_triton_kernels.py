"""The Triton kernels of sampled softmax; `_triton.py` launches them.

Every kernel walks tiles of logits [rows, candidates] that never leave the chip. In a tile

    logit(b, k) = scale * <query[b], items[id_k]> + bias_k

where bias_k holds the prior, the correction, and -inf past the last candidate. Indices past the end
are clamped to the last valid one, so every load reads something real, and such rows are not written.
An id out of range is read as item 0: forward makes the rows that it reaches NaN, and backward, where
such rows weigh nothing, leaves it out.
"""

import triton
import triton.language as tl

from fastpop.kernels import triton_tiles
from fastpop.kernels.alias_draw._triton import alias_ids
from fastpop.kernels.triton_softmax import (
    candidate_rows,
    empty_sum,
    log_sum,
    logit,
    online_sum,
    powers,
    prior_term,
    row_dots,
    start_sum,
    store_item_gradients,
    store_query_gradients,
)
from fastpop.kernels.triton_tiles import add_product, known_ids, load_rows, product


@triton.jit
def candidate_ids(neg_id_ptr, table_ptr, counter_ptr, num_items, num_negatives, group, offs_k):
    """int32 ids [BLOCK_K] of a group's candidates, given or drawn here; -1 for one out of range."""
    safe_k = tl.minimum(offs_k, num_negatives - 1)
    if table_ptr is not None:
        return alias_ids(table_ptr, counter_ptr, num_items, group, safe_k).to(tl.int32)
    else:
        id_k = tl.load(neg_id_ptr + group.to(tl.int64) * num_negatives + safe_k)
        return known_ids(id_k, num_items)


@triton.jit
def candidate_bias(id_k, inside_k, unknown, log_prior_ptr, prior_weight_ptr, log_proposal_ptr, log_count):
    """[BLOCK_K] what is added to a candidate's scaled dot product; `unknown` for an id out of range."""
    bias_k = tl.where(inside_k, tl.where(id_k < 0, unknown, 0.0), float("-inf"))
    safe_id_k = tl.maximum(id_k, 0)
    if log_prior_ptr is not None:
        bias_k += prior_term(safe_id_k, log_prior_ptr, tl.load(prior_weight_ptr))
    if log_proposal_ptr is not None:
        bias_k -= tl.load(log_proposal_ptr + safe_id_k) + log_count
    return bias_k


@triton_tiles.kernel
def forward_kernel(
    query_ptr,
    item_ptr,
    pos_id_ptr,
    neg_id_ptr,
    table_ptr,
    counter_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    log_proposal_ptr,
    scale_ptr,
    lse_ptr,
    pos_logit_ptr,
    num_rows,
    num_items,
    num_negatives,
    dim,
    group_size,
    blocks_per_group,
    split_size,
    log_count,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    CORRECT_POSITIVE: tl.constexpr,
    DROP_ACCIDENTAL_HITS: tl.constexpr,
    EXCLUDE_DIAGONAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_B rows of one group and one range of its candidates.

    In registers: query tile [BLOCK_B, BLOCK_D], logit tile [BLOCK_B, BLOCK_K], and the run's largest,
    base and sum [BLOCK_B]. To memory, once: lse [split, B], and pos_logit [B] from split 0.
    1. Split 0: positive logit as float32 dot products; it seeds the run, so no row starts empty.
    2. Per block of candidates: ids (read or drawn), bias, gather of item rows, tensor-core product.
    3. Accidental hits and the in-batch diagonal become -inf: they leave the sum, exp(-inf) = 0.
    4. Merge into the run; at the end lse = log of the run.
    Each program owns its outputs: no atomics, hence bitwise repeatable.
    Cost: 2 BLOCK_B K D FLOPs; K D numbers of items through the L2 cache.
    """
    group = tl.program_id(0) // blocks_per_group
    first = group * group_size + (tl.program_id(0) % blocks_per_group) * BLOCK_B
    last = tl.minimum((group + 1) * group_size, num_rows) - 1
    offs_b = first + tl.arange(0, BLOCK_B)
    inside_b = offs_b <= last
    row_b = tl.minimum(offs_b, last).to(tl.int64)
    pos_id_b = known_ids(tl.load(pos_id_ptr + row_b), num_items)
    scale = tl.load(scale_ptr)
    largest_b, base_b, sum_b = empty_sum(BLOCK_B)
    if tl.program_id(1) == 0:
        item_row_b = tl.maximum(pos_id_b, 0).to(tl.int64)
        pos_b = scale * row_dots(
            query_ptr, row_b, stride_qb, stride_qd, item_ptr, item_row_b, stride_ev, stride_ed, dim, 16
        )
        if log_prior_ptr is not None:
            pos_b = logit(pos_b, 1.0, prior_term(item_row_b, log_prior_ptr, tl.load(prior_weight_ptr)))
        if CORRECT_POSITIVE:
            pos_b -= tl.load(log_proposal_ptr + item_row_b)
        pos_b = tl.where(pos_id_b < 0, float("nan"), pos_b)
        tl.store(pos_logit_ptr + offs_b, pos_b, mask=inside_b)
        largest_b, base_b, sum_b = start_sum(pos_b)

    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    split_first = tl.program_id(1) * split_size
    for first_k in range(split_first, tl.minimum(split_first + split_size, num_negatives), BLOCK_K):
        offs_k = first_k + tl.arange(0, BLOCK_K)
        id_k = candidate_ids(neg_id_ptr, table_ptr, counter_ptr, num_items, num_negatives, group, offs_k)
        bias_k = candidate_bias(
            id_k,
            offs_k < num_negatives,
            float("nan"),
            log_prior_ptr,
            prior_weight_ptr,
            log_proposal_ptr,
            log_count,
        )
        row_k = tl.maximum(id_k, 0).to(tl.int64)
        item_kd = load_rows(item_ptr, row_k, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D)
        dot_bk = product(query_bd, tl.trans(item_kd), PRECISION)
        logit_bk = dot_bk * scale + bias_k[None, :]
        if log_prior_ptr is not None:
            # Of a removed item, too, whatever its row holds: NaN and -inf are NaN.
            logit_bk = tl.where((bias_k == float("-inf"))[None, :], float("-inf"), logit_bk)
        if DROP_ACCIDENTAL_HITS:
            logit_bk = tl.where(id_k[None, :] == pos_id_b[:, None], float("-inf"), logit_bk)
        if EXCLUDE_DIAGONAL:
            logit_bk = tl.where(offs_k[None, :] == offs_b[:, None], float("-inf"), logit_bk)
        largest_b, base_b, sum_b = online_sum(largest_b, base_b, sum_b, logit_bk)
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
    neg_id_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    log_proposal_ptr,
    scale_ptr,
    base_ptr,
    weight_ptr,
    own_ptr,
    d_query_ptr,
    d_scale_ptr,
    num_rows,
    num_items,
    num_negatives,
    dim,
    group_size,
    blocks_per_group,
    split_size,
    log_count,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    CORRECT_POSITIVE: tl.constexpr,
    DROP_ACCIDENTAL_HITS: tl.constexpr,
    EXCLUDE_DIAGONAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_B rows of one group and one range of its candidates.

    In registers: query tile [BLOCK_B, BLOCK_D], logit tile [BLOCK_B, BLOCK_K], d_query
    [BLOCK_B, BLOCK_D]. To memory, once: d_query [split, B, D] and d_scale [split, B], each where
    its pointer is given.
    1. Per block of candidates: the logits again, probability = exp(logit - lse).
    2. d_query += probability @ items; d_scale += sum of probability * dot.
    3. Times the row's weight; split 0 adds own * the positive's item.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 4 BLOCK_B K D FLOPs.
    """
    group = tl.program_id(0) // blocks_per_group
    first = group * group_size + (tl.program_id(0) % blocks_per_group) * BLOCK_B
    last = tl.minimum((group + 1) * group_size, num_rows) - 1
    offs_b = first + tl.arange(0, BLOCK_B)
    inside_b = offs_b <= last
    row_b = tl.minimum(offs_b, last).to(tl.int64)
    pos_id_b = known_ids(tl.load(pos_id_ptr + row_b), num_items)
    base_b = tl.load(base_ptr + row_b)
    scale = tl.load(scale_ptr)
    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    d_query_bd = tl.zeros([BLOCK_B, BLOCK_D], tl.float32)
    d_scale_b = tl.zeros([BLOCK_B], tl.float32)
    split_first = tl.program_id(1) * split_size
    for first_k in range(split_first, tl.minimum(split_first + split_size, num_negatives), BLOCK_K):
        offs_k = first_k + tl.arange(0, BLOCK_K)
        id_k = candidate_ids(neg_id_ptr, None, None, num_items, num_negatives, group, offs_k)
        bias_k = candidate_bias(
            id_k,
            offs_k < num_negatives,
            float("-inf"),
            log_prior_ptr,
            prior_weight_ptr,
            log_proposal_ptr,
            log_count,
        )
        row_k = tl.maximum(id_k, 0).to(tl.int64)
        item_kd = candidate_rows(
            item_ptr, row_k, bias_k, log_prior_ptr, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D
        )
        dot_bk = product(query_bd, tl.trans(item_kd), PRECISION)
        # The same roundings as in forward, whose sum the base is: probabilities then add up to 1.
        probability_bk = powers(dot_bk * scale + bias_k[None, :], base_b[:, None])
        if DROP_ACCIDENTAL_HITS:
            hit_bk = id_k[None, :] == pos_id_b[:, None]
            probability_bk = tl.where(hit_bk, 0.0, probability_bk)
        if EXCLUDE_DIAGONAL:
            probability_bk = tl.where(offs_k[None, :] == offs_b[:, None], 0.0, probability_bk)
        if d_scale_ptr is not None:
            d_scale_b += tl.sum(probability_bk * dot_bk, 1)
        if d_query_ptr is not None:
            d_query_bd = add_product(d_query_bd, (probability_bk * RANGE).to(DOT), item_kd, PRECISION)

    store_query_gradients(
        d_query_bd,
        d_scale_b,
        offs_b,
        inside_b,
        row_b,
        tl.maximum(pos_id_b, 0).to(tl.int64),
        query_ptr,
        item_ptr,
        weight_ptr,
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
    neg_id_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    log_proposal_ptr,
    scale_ptr,
    base_ptr,
    weight_ptr,
    peak_ptr,
    d_row_ptr,
    d_bias_ptr,
    num_rows,
    num_items,
    num_negatives,
    dim,
    group_size,
    num_groups,
    split_size,
    log_count,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    CORRECT_POSITIVE: tl.constexpr,
    DROP_ACCIDENTAL_HITS: tl.constexpr,
    EXCLUDE_DIAGONAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_K candidates of one group and one range of its rows.

    In registers: item tile [BLOCK_K, BLOCK_D], logit tile [BLOCK_K, BLOCK_B], d_item
    [BLOCK_K, BLOCK_D], d_bias [BLOCK_K]. To memory, once: d_row [split, G K, D] and d_bias
    [split, G K], each where its pointer is given. Repeated ids are not summed here.
    1. Per block of rows: the logits again; share = weight * probability, over `peak` in float16.
    2. d_item += share @ queries; d_bias += sum of shares over the rows.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 4 B BLOCK_K D FLOPs.
    """
    blocks = tl.cdiv(num_negatives, BLOCK_K)
    group = tl.program_id(0) // blocks
    offs_k = (tl.program_id(0) % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside_k = offs_k < num_negatives
    id_k = candidate_ids(neg_id_ptr, None, None, num_items, num_negatives, group, offs_k)
    bias_k = candidate_bias(
        id_k, inside_k, float("-inf"), log_prior_ptr, prior_weight_ptr, log_proposal_ptr, log_count
    )
    row_k = tl.maximum(id_k, 0).to(tl.int64)
    item_kd = candidate_rows(
        item_ptr, row_k, bias_k, log_prior_ptr, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D
    )
    scale = tl.load(scale_ptr)
    peak = 1.0
    if peak_ptr is not None:
        peak = tl.load(peak_ptr)
    d_item_kd = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    d_bias_k = tl.zeros([BLOCK_K], tl.float32)
    last = tl.minimum((group + 1) * group_size, num_rows) - 1
    split_first = group * group_size + tl.program_id(1) * split_size
    for first_b in range(split_first, tl.minimum(split_first + split_size, last + 1), BLOCK_B):
        offs_b = first_b + tl.arange(0, BLOCK_B)
        row_b = tl.minimum(offs_b, last).to(tl.int64)
        base_b = tl.load(base_ptr + row_b)
        weight_b = tl.where(offs_b <= last, tl.load(weight_ptr + row_b), 0.0)
        if peak_ptr is not None:
            weight_b = weight_b / peak
        query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
        dot_kb = product(item_kd, tl.trans(query_bd), PRECISION)
        share_kb = powers(dot_kb * scale + bias_k[:, None], base_b[None, :]) * weight_b[None, :]
        if DROP_ACCIDENTAL_HITS:
            pos_id_b = tl.load(pos_id_ptr + row_b).to(tl.int32)
            share_kb = tl.where(id_k[:, None] == pos_id_b[None, :], 0.0, share_kb)
        if EXCLUDE_DIAGONAL:
            share_kb = tl.where(offs_k[:, None] == offs_b[None, :], 0.0, share_kb)
        if d_bias_ptr is not None:
            d_bias_k += tl.sum(share_kb, 1)
        if d_row_ptr is not None:
            d_item_kd = add_product(d_item_kd, (share_kb * RANGE).to(DOT), query_bd, PRECISION)

    split_group = tl.program_id(1).to(tl.int64) * num_groups + group
    out_k = split_group * num_negatives + offs_k
    store_item_gradients(
        d_item_kd, d_bias_k, out_k, inside_k, d_row_ptr, d_bias_ptr, scale, peak, dim, RANGE, BLOCK_D
    )
