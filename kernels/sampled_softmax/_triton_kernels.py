"""The Triton kernels of sampled softmax; `_triton.py` launches them.

Every kernel walks tiles of logits [rows, candidates] that never leave the chip. In a tile

    logit(b, k) = scale * <query[b], items[id_k]> + bias_k

where candidates come packed (`_triton_pack.py`), whole tiles of them. Where there is a count, which the
device alone knows, tiles past it are not read. Row numbers past the end of a group are
clamped to its last, so every load reads something real, and such rows are not written. An id out of range is
read as a row of zeros or item 0: forward makes the rows that it reaches NaN, and backward, where such rows
weigh nothing, leaves it out.
"""

import triton
import triton.language as tl

from fastpop.kernels import triton_tiles
from fastpop.kernels.sampled_softmax._triton_pack import candidate_tile
from fastpop.kernels.triton_softmax import (
    empty_sum,
    log_sum,
    logit,
    online_sum,
    powers,
    prior_term,
    row_dots,
    row_terms,
    start_sum,
    store_item_gradients,
    store_query_gradients,
)
from fastpop.kernels.triton_tiles import add_product, known_ids, load_rows, product


@triton.jit
def dropped(logit_bk, hit_b, id_k, offs_k, own_b, HITS: tl.constexpr, DIAGONAL: tl.constexpr):
    """[rows, candidates] or its transpose, -inf at a row's positive and at its diagonal."""
    if HITS:
        logit_bk = tl.where(id_k == hit_b, float("-inf"), logit_bk)
    if DIAGONAL:
        logit_bk = tl.where(offs_k == own_b, float("-inf"), logit_bk)
    return logit_bk


@triton_tiles.kernel
def forward_kernel(
    query_ptr,
    item_ptr,
    pos_id_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    log_proposal_ptr,
    scale_ptr,
    row_ptr,
    bias_ptr,
    id_ptr,
    count_ptr,
    lse_ptr,
    pos_logit_ptr,
    num_rows,
    num_items,
    num_tiles,
    dim,
    group_size,
    blocks_per_group,
    split_tiles,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    CORRECT_POSITIVE: tl.constexpr,
    HITS: tl.constexpr,
    DIAGONAL: tl.constexpr,
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
    2. Per tile of candidates: their biases and rows, tensor-core product.
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
            query_ptr, row_b, stride_qb, stride_qd, item_ptr, item_row_b, stride_ev, stride_ed, dim, 16, DOT
        )
        if log_prior_ptr is not None:
            pos_b = logit(pos_b, 1.0, prior_term(item_row_b, log_prior_ptr, tl.load(prior_weight_ptr)))
        if CORRECT_POSITIVE:
            pos_b -= tl.load(log_proposal_ptr + item_row_b)
        pos_b = tl.where(pos_id_b < 0, float("nan"), pos_b)
        tl.store(pos_logit_ptr + offs_b, pos_b, mask=inside_b)
        largest_b, base_b, sum_b = start_sum(pos_b)

    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    hit_b = tl.where(pos_id_b < 0, -2, pos_id_b)  # no candidate has the id -2
    if count_ptr is not None:
        num_tiles = tl.cdiv(tl.load(count_ptr), BLOCK_K)
        split_tiles = tl.cdiv(num_tiles, tl.num_programs(1))
    first_tile = tl.program_id(1) * split_tiles
    for tile in range(first_tile, tl.minimum(first_tile + split_tiles, num_tiles)):
        at = (group.to(tl.int64) * num_tiles + tile) * BLOCK_K
        offs_k = tl.arange(0, BLOCK_K)
        bias_k = tl.load(bias_ptr + at + offs_k)
        item_kd = candidate_tile(
            row_ptr, item_ptr, id_ptr, bias_k, at, stride_ev, stride_ed, dim, DOT, BLOCK_K, BLOCK_D
        )
        logit_bk = product(query_bd, tl.trans(item_kd), PRECISION) * scale + bias_k[None, :]
        id_k = tl.load(id_ptr + at + offs_k) if HITS else offs_k
        own_b = offs_b - tile * BLOCK_K
        logit_bk = dropped(
            logit_bk, hit_b[:, None], id_k[None, :], offs_k[None, :], own_b[:, None], HITS, DIAGONAL
        )
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
    scale_ptr,
    row_ptr,
    bias_ptr,
    id_ptr,
    count_ptr,
    terms_ptr,
    own_ptr,
    hit_ptr,
    d_query_ptr,
    d_scale_ptr,
    num_rows,
    num_items,
    num_tiles,
    dim,
    group_size,
    blocks_per_group,
    padded_rows,
    split_tiles,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    HITS: tl.constexpr,
    DIAGONAL: tl.constexpr,
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
    1. Per tile of candidates: the logits again, probability = exp(logit - lse).
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
    padded_b = row_b + group.to(tl.int64) * (padded_rows - group_size)
    base_b, weight_b = row_terms(terms_ptr, padded_b)
    hit_b = tl.load(hit_ptr + padded_b)
    scale = tl.load(scale_ptr)
    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    d_query_bd = tl.zeros([BLOCK_B, BLOCK_D], tl.float32)
    d_scale_b = tl.zeros([BLOCK_B], tl.float32)
    if count_ptr is not None:
        num_tiles = tl.cdiv(tl.load(count_ptr), BLOCK_K)
        split_tiles = tl.cdiv(num_tiles, tl.num_programs(1))
    first_tile = tl.program_id(1) * split_tiles
    for tile in range(first_tile, tl.minimum(first_tile + split_tiles, num_tiles)):
        at = (group.to(tl.int64) * num_tiles + tile) * BLOCK_K
        offs_k = tl.arange(0, BLOCK_K)
        bias_k = tl.load(bias_ptr + at + offs_k)
        item_kd = candidate_tile(
            row_ptr, item_ptr, id_ptr, bias_k, at, stride_ev, stride_ed, dim, DOT, BLOCK_K, BLOCK_D
        )
        dot_bk = product(query_bd, tl.trans(item_kd), PRECISION)
        # The same roundings as in forward, whose sum the base is: probabilities then add up to 1.
        logit_bk = dot_bk * scale + bias_k[None, :]
        id_k = tl.load(id_ptr + at + offs_k) if HITS else offs_k
        own_b = offs_b - tile * BLOCK_K
        logit_bk = dropped(
            logit_bk, hit_b[:, None], id_k[None, :], offs_k[None, :], own_b[:, None], HITS, DIAGONAL
        )
        probability_bk = powers(logit_bk, base_b[:, None])
        if d_scale_ptr is not None:
            d_scale_b += tl.sum(probability_bk * dot_bk, 1)
        if d_query_ptr is not None:
            d_query_bd = add_product(d_query_bd, (probability_bk * RANGE).to(DOT), item_kd, PRECISION)

    store_query_gradients(
        d_query_bd,
        d_scale_b,
        weight_b,
        offs_b,
        inside_b,
        row_b,
        tl.maximum(known_ids(tl.load(pos_id_ptr + row_b), num_items), 0).to(tl.int64),
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
        DOT,
    )


@triton_tiles.kernel
def item_kernel(
    query_ptr,
    item_ptr,
    scale_ptr,
    row_ptr,
    bias_ptr,
    id_ptr,
    count_ptr,
    terms_ptr,
    hit_ptr,
    peak_ptr,
    d_row_ptr,
    d_bias_ptr,
    num_rows,
    num_negatives,
    num_tiles,
    dim,
    group_size,
    num_groups,
    padded_rows,
    split_size,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    HITS: tl.constexpr,
    DIAGONAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (tile, split) owns BLOCK_K candidates of one group and one range of its rows.

    In registers: item tile [BLOCK_K, BLOCK_D], logit tile [BLOCK_K, BLOCK_B], d_item
    [BLOCK_K, BLOCK_D], d_bias [BLOCK_K]. To memory, once: d_row [split, G K, D] and d_bias
    [split, G K], each where its pointer is given. Repeated ids are not summed here.
    1. Per block of rows: the logits again; share = weight * probability, over `peak` in float16.
    2. d_item += share @ queries; d_bias += sum of shares over the rows.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 4 B BLOCK_K D FLOPs.
    """
    group, tile = tl.program_id(0) // num_tiles, tl.program_id(0) % num_tiles
    at = tl.program_id(0).to(tl.int64) * BLOCK_K
    offs_k = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    id_k = tl.load(id_ptr + at + tl.arange(0, BLOCK_K))
    bias_k = tl.load(bias_ptr + at + tl.arange(0, BLOCK_K))
    item_kd = candidate_tile(
        row_ptr, item_ptr, id_ptr, bias_k, at, stride_ev, stride_ed, dim, DOT, BLOCK_K, BLOCK_D
    )
    scale = tl.load(scale_ptr)
    peak = 1.0
    if peak_ptr is not None:
        peak = tl.load(peak_ptr)
    d_item_kd = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    d_bias_k = tl.zeros([BLOCK_K], tl.float32)
    last = tl.minimum((group + 1) * group_size, num_rows) - 1
    first_row = group * group_size
    num_here = last + 1 - first_row
    if count_ptr is not None:
        num_here = tl.where(tile * BLOCK_K < tl.load(count_ptr), num_here, 0)  # zeros past the last
    split_first = tl.program_id(1) * split_size
    for first_b in range(split_first, tl.minimum(split_first + split_size, num_here), BLOCK_B):
        first_b = tl.multiple_of(first_b, BLOCK_B)
        offs_b = first_row + first_b + tl.arange(0, BLOCK_B)
        row_b = tl.minimum(offs_b, last).to(tl.int64)
        padded_b = group.to(tl.int64) * padded_rows + first_b + tl.arange(0, BLOCK_B)
        base_b, weight_b = row_terms(terms_ptr, padded_b)  # a weight of 0 past the last row
        if peak_ptr is not None:
            weight_b = weight_b / peak
        query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
        dot_kb = product(item_kd, tl.trans(query_bd), PRECISION)
        logit_kb = dot_kb * scale + bias_k[:, None]
        hit_b = tl.load(hit_ptr + padded_b) if HITS else row_b
        own_k = offs_k - (first_row + first_b)
        logit_kb = dropped(
            logit_kb,
            hit_b[None, :],
            id_k[:, None],
            own_k[:, None],
            tl.arange(0, BLOCK_B)[None, :],
            HITS,
            DIAGONAL,
        )
        share_kb = powers(logit_kb, base_b[None, :]) * weight_b[None, :]
        if d_bias_ptr is not None:
            d_bias_k += tl.sum(share_kb, 1)
        if d_row_ptr is not None:
            d_item_kd = add_product(d_item_kd, (share_kb * RANGE).to(DOT), query_bd, PRECISION)

    split_group = tl.program_id(1).to(tl.int64) * num_groups + group
    out_k = split_group * num_negatives + offs_k
    store_item_gradients(
        d_item_kd,
        d_bias_k,
        out_k,
        offs_k < num_negatives,
        d_row_ptr,
        d_bias_ptr,
        scale,
        peak,
        dim,
        RANGE,
        BLOCK_D,
    )
