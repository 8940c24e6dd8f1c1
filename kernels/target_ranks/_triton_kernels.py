"""The Triton kernels of the target ranks; `_triton.py` launches them.

Every score comes from `score_tile`, in a tile of one shape: those of pairs (row * num_items + item), which
are the targets and what is excluded, and those of the catalogue, which never leave the chip. So a (row, item)
has the same bits wherever it is made, and those that it has in the top items. Numbers past the end are
clamped to the last, and what they make is not written.
"""

import triton
import triton.language as tl

from fastpop.kernels import triton_tiles
from fastpop.kernels.triton_softmax import empty_sum, log_sum, online_sum
from fastpop.kernels.triton_tiles import WIDEN, item_tile, load_rows, score_tile


@triton.jit
def slots(offs_s, target_ptr, target_offsets_ptr, num_rows, num_items, num_targets):
    """(row, whether it is needed, whether it writes the row's lse) of slots: the targets, then the rows, of
    which those without target are needed. A row's first target writes its lse."""
    is_target_s = offs_s < num_targets
    row_s = tl.load(target_ptr + offs_s, mask=is_target_s, other=0) // num_items
    row_s = tl.where(is_target_s, row_s, tl.minimum(offs_s - num_targets, num_rows - 1))
    first_s, end_s = tl.load(target_offsets_ptr + row_s), tl.load(target_offsets_ptr + row_s + 1)
    is_bare_s = (offs_s < num_targets + num_rows) & (first_s == end_s)
    writes_lse_s = tl.where(is_target_s, offs_s == first_s, is_bare_s)
    return row_s, is_target_s | writes_lse_s, writes_lse_s


@triton.jit
def count_negative(difference_bv):
    """[B] of each row, by the sign bit: one instruction where a comparison and a count are two. NaN, of level
    infinities, has none."""
    if WIDEN:  # where a NaN's sign is the processor's
        return tl.sum((difference_bv < 0.0).to(tl.int32), 1)
    else:
        return tl.sum((difference_bv.to(tl.uint32, bitcast=True) >> 31).to(tl.int32), 1)


@triton_tiles.kernel
def ranks_kernel(
    query_ptr,
    item_ptr,
    bias_ptr,
    target_ptr,
    target_offsets_ptr,
    own_ptr,
    count_ptr,
    lse_ptr,
    num_rows,
    num_items,
    num_targets,
    num_tiles,
    split_tiles,
    dim,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    scale,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_B slots (`slots`) and one range of the catalogue's tiles.

    In registers: the slots' queries [BLOCK_B, BLOCK_D], score tile [BLOCK_B, BLOCK_V], and of each slot two
    counts and a running sum of exponentials. To memory, once: count [2, split, M], above and below the
    target's own score, what is excluded among them; lse [split, B].
    1. Per tile of items: scores, compared with each slot's own, and merged into its sum.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 2 BLOCK_B V D FLOPs; a row of
    several targets is as many slots.
    """
    offs_s = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    row_s, is_needed_s, writes_lse_s = slots(
        offs_s, target_ptr, target_offsets_ptr, num_rows, num_items, num_targets
    )
    if tl.max(is_needed_s.to(tl.int32), 0) == 0:
        return
    query_bd = load_rows(query_ptr, row_s, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    own_s = tl.load(own_ptr + offs_s, mask=offs_s < num_targets, other=0.0)
    # A difference from a level score has to be +0, whatever the sign of a zero.
    own_s, own_less_s = tl.where(own_s == 0.0, 0.0, own_s), tl.where(own_s == 0.0, -0.0, own_s)
    greater_s, less_s = tl.zeros([BLOCK_B], tl.int32), tl.zeros([BLOCK_B], tl.int32)
    largest_s, base_s, sum_s = empty_sum(BLOCK_B)
    first_tile = tl.program_id(1) * split_tiles
    for tile in range(first_tile, tl.minimum(first_tile + split_tiles, num_tiles)):
        bias_v = tl.load(bias_ptr + tile * BLOCK_V + tl.arange(0, BLOCK_V))
        item_vd = item_tile(
            item_ptr, tile, num_items, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_V, BLOCK_D
        )
        score_sv = score_tile(query_bd, item_vd, bias_v, scale, PRECISION)
        greater_s += count_negative(own_s[:, None] - score_sv)
        less_s += count_negative(score_sv - own_less_s[:, None])
        largest_s, base_s, sum_s = online_sum(largest_s, base_s, sum_s, score_sv)

    is_target_s = offs_s < num_targets
    split = tl.program_id(1).to(tl.int64)
    count_ptr += split * num_targets + offs_s
    tl.store(count_ptr, greater_s, mask=is_target_s)
    tl.store(count_ptr + tl.num_programs(1).to(tl.int64) * num_targets, less_s, mask=is_target_s)
    tl.store(lse_ptr + split * num_rows + row_s, log_sum(largest_s, base_s, sum_s), mask=writes_lse_s)


@triton_tiles.kernel
def pairs_kernel(
    query_ptr,
    item_ptr,
    bias_ptr,
    place_ptr,
    score_ptr,
    num_items,
    num_pairs,
    dim,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    scale,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns as many pairs as a tile's diagonal is long.

    In registers: their queries [BLOCK_B, BLOCK_D], score tile [BLOCK_B, BLOCK_V]. To memory, once: score, of
    each pair. Cost: 2 BLOCK_B BLOCK_V D FLOPs, of which the diagonal is wanted.
    """
    PAIRS: tl.constexpr = min(BLOCK_B, BLOCK_V)
    first = tl.program_id(0) * PAIRS
    in_b, in_v = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_V)
    pair_b = tl.load(place_ptr + tl.minimum(first + in_b % PAIRS, num_pairs - 1))
    pair_v = tl.load(place_ptr + tl.minimum(first + in_v % PAIRS, num_pairs - 1))
    query_bd = load_rows(query_ptr, pair_b // num_items, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    item_v = pair_v % num_items
    item_vd = load_rows(item_ptr, item_v, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D)
    score_bv = score_tile(query_bd, item_vd, tl.load(bias_ptr + item_v), scale, PRECISION)
    score_b = tl.sum(tl.where(in_b[:, None] == in_v[None, :], score_bv, 0.0), 1)
    tl.store(score_ptr + first + in_b, score_b, mask=(in_b < PAIRS) & (first + in_b < num_pairs))


@triton_tiles.kernel
def finish_kernel(
    target_ptr,
    own_ptr,
    count_ptr,
    exclude_offsets_ptr,
    excluded_ptr,
    score_ptr,
    greater_ptr,
    equal_ptr,
    num_items,
    num_targets,
    num_splits,
    num_columns,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program owns BLOCK_M targets: greater and equal [M], int64.

    1. The counts of all splits, BLOCK_N at a time, of num_columns scores. Those past the last item were -inf.
    2. Of the rows' pairs, sorted, BLOCK_N at a time, each different one is taken off; so is the target
       itself, unless it was among them.
    """
    at_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside_m = at_m < num_targets
    at_m = tl.minimum(at_m, num_targets - 1)
    own_m = tl.load(own_ptr + at_m)
    offs_n = tl.arange(0, BLOCK_N).to(tl.int64)
    greater_m, less_m = tl.zeros([BLOCK_M], tl.int64), tl.zeros([BLOCK_M], tl.int64)
    for first in range(0, num_splits, BLOCK_N):
        split_n = first + offs_n
        count_ptr_mn = count_ptr + at_m[:, None] + split_n[None, :] * num_targets
        is_there = split_n[None, :] < num_splits
        greater_m += tl.sum(tl.load(count_ptr_mn, mask=is_there, other=0).to(tl.int64), 1)
        count_ptr_mn += num_splits.to(tl.int64) * num_targets
        less_m += tl.sum(tl.load(count_ptr_mn, mask=is_there, other=0).to(tl.int64), 1)
    equal_m = tl.where(own_m == float("-inf"), num_items, num_columns).to(tl.int64) - greater_m - less_m - 1
    if excluded_ptr is not None:
        itself_m = tl.load(target_ptr + at_m)
        row_m = itself_m // num_items
        begin_m, end_m = tl.load(exclude_offsets_ptr + row_m), tl.load(exclude_offsets_ptr + row_m + 1)
        for first in range(0, tl.max(end_m - begin_m, 0).to(tl.int32), BLOCK_N):
            at_mn = begin_m[:, None] + first + offs_n[None, :]
            is_there = at_mn < end_m[:, None]
            pair_mn = tl.load(excluded_ptr + at_mn, mask=is_there, other=-1)
            before_mn = tl.load(
                excluded_ptr + at_mn - 1, mask=is_there & (at_mn > begin_m[:, None]), other=-1
            )
            score_mn = tl.load(score_ptr + at_mn, mask=is_there, other=0.0)
            is_new = pair_mn != before_mn
            greater_m -= tl.sum((is_new & (score_mn > own_m[:, None])).to(tl.int64), 1)
            equal_m -= tl.sum((is_new & (score_mn == own_m[:, None])).to(tl.int64), 1)
            equal_m += tl.sum((is_new & (pair_mn == itself_m[:, None])).to(tl.int64), 1)
    tl.store(greater_ptr + at_m, greater_m, mask=inside_m)
    tl.store(equal_ptr + at_m, equal_m, mask=inside_m)
