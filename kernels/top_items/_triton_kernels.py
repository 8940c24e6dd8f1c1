"""The Triton kernels of the top items; `_triton.py` launches them.

A tile of scores [rows, items] never leaves the chip whole. Both kernels make it by `score_tile`, by a product
of the same shape, so a (row, item) has the same bits in both. Scores leave as keys: int32 in the order of
scores, NaN above all, -0 as 0. Rows past the end are clamped to the last and not written.
"""

import triton
import triton.language as tl

from fastpop.kernels import triton_tiles
from fastpop.kernels.triton_tiles import item_tile, load_rows, row_maximum, score_tile


@triton.jit
def key_of(score):
    """int32 in the order of float32 scores. Where the sign is set, the other bits count downwards."""
    # -0 equals 0, and a NaN may carry a sign: equal scores need one key, and NaN the highest.
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    return tl.where(score == score, bits ^ ((bits >> 31) & 0x7FFFFFFF), 0x7FC00000)


@triton_tiles.kernel
def best_kernel(
    query_ptr,
    item_ptr,
    bias_ptr,
    best_ptr,
    num_rows,
    num_items,
    dim,
    num_tiles,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    split_tiles,
    scale,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_B rows of `best` and one range of the tiles.

    In registers: query tile [BLOCK_B, BLOCK_D], score tile [BLOCK_B, BLOCK_V].
    To memory, once: best [B, tiles], the key of the largest score of each row in each tile.
    1. Per tile: scores, the maximum of each row, its key.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 2 BLOCK_B V D FLOPs;
    beside the product three operations a score: multiply-add, mask, maximum.
    """
    offs_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    row_b = tl.minimum(offs_b, num_rows - 1).to(tl.int64)
    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    first = tl.program_id(1) * split_tiles
    for tile in range(first, tl.minimum(first + split_tiles, num_tiles)):
        bias_v = tl.load(bias_ptr + tile * BLOCK_V + tl.arange(0, BLOCK_V))
        item_vd = item_tile(
            item_ptr, tile, num_items, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_V, BLOCK_D
        )
        score_bv = score_tile(query_bd, item_vd, bias_v, scale, PRECISION)
        tl.store(best_ptr + row_b * num_tiles + tile, key_of(row_maximum(score_bv)), mask=offs_b < num_rows)


@triton_tiles.kernel
def pairs_kernel(
    query_ptr,
    item_ptr,
    bias_ptr,
    pair_ptr,
    slot_ptr,
    banned_ptr,
    tile_ptr,
    first_ptr,
    end_ptr,
    best_ptr,
    key_ptr,
    num_rows,
    num_items,
    dim,
    num_tiles,
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
    """Program n owns up to BLOCK_B pairs (tile * num_rows + row) of tile[n], from first[n] before end[n].

    The pairs come sorted by tile, so that rows which have nothing else in common share its items. A
    program without pairs has the tile num_tiles. In registers: the gathered queries [BLOCK_B, BLOCK_D],
    score tile [BLOCK_B, BLOCK_V].
    To memory, once: key [slot, BLOCK_V], the pair's keys; or, where best is given, best[row, tile], the
    key of their maximum.
    1. Scores of the tile; -inf for the items whose bits are set in the pair's `banned` (int64).
    2. The keys, or the key of the maximum.
    Each pair has one owner: no atomics, hence bitwise repeatable. Cost: 2 BLOCK_B BLOCK_V D FLOPs.
    """
    tile = tl.load(tile_ptr + tl.program_id(0))
    if tile == num_tiles:
        return
    first = tl.load(first_ptr + tl.program_id(0))
    end = tl.load(end_ptr + tl.program_id(0))
    offs_p = first + tl.arange(0, BLOCK_B)
    inside_p = offs_p < end
    at_p = tl.minimum(offs_p, end - 1)
    row_p = (tl.load(pair_ptr + at_p) % num_rows).to(tl.int64)
    query_pd = load_rows(query_ptr, row_p, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    bias_v = tl.load(bias_ptr + tile * BLOCK_V + tl.arange(0, BLOCK_V))
    item_vd = item_tile(item_ptr, tile, num_items, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_V, BLOCK_D)
    score_pv = score_tile(query_pd, item_vd, bias_v, scale, PRECISION)
    if banned_ptr is not None:
        offs_bit = tl.arange(0, BLOCK_V).to(tl.int64)
        is_banned_pv = (tl.load(banned_ptr + at_p)[:, None] >> offs_bit[None, :]) & 1
        score_pv = tl.where(is_banned_pv == 0, score_pv, float("-inf"))
    if best_ptr is not None:
        tl.store(best_ptr + row_p * num_tiles + tile, key_of(row_maximum(score_pv)), mask=inside_p)
    else:
        slot_p = tl.load(slot_ptr + at_p)
        tl.store(
            key_ptr + slot_p[:, None] * BLOCK_V + tl.arange(0, BLOCK_V)[None, :],
            key_of(score_pv),
            mask=inside_p[:, None],
        )
