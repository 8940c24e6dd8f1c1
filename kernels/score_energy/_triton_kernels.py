"""The Triton kernel of the streamed score energies; `_triton.py` launches it."""

import triton
import triton.language as tl

from fastpop.kernels import triton_tiles
from fastpop.kernels.triton_tiles import load_rows, product


@triton.jit
def score_tile(
    query_bd,
    item_ptr,
    id_v,
    bias_ptr,
    scale,
    cap,
    stride_ev,
    stride_ed,
    dim,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    CAPPED: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """[BLOCK_B, BLOCK_V] float32 scores of items id_v."""
    item_vd = load_rows(item_ptr, id_v, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D)
    score_bv = scale * product(query_bd, tl.trans(item_vd), PRECISION)
    if bias_ptr is not None:
        score_bv += tl.load(bias_ptr + id_v)[None, :]
    if CAPPED:
        # tanh(x) = 2 sigmoid(2 x) - 1
        score_bv = cap * (2.0 * tl.sigmoid(2.0 * score_bv / cap) - 1.0)
    return score_bv


@triton_tiles.kernel
def sums_kernel(
    query_ptr,
    item_ptr,
    bias_ptr,
    b_ptr,
    shift_ptr,
    sums_ptr,
    num_rows,
    num_items,
    dim,
    split_size,
    scale,
    cap,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    RANGE: tl.constexpr,
    CAPPED: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (block, split) owns BLOCK_B contexts and one range of the catalogue.

    In registers: query tile [BLOCK_B, BLOCK_D], score tile [BLOCK_B, BLOCK_V], three float64 sums
    [BLOCK_B]. To memory, once: sums [split, 3, B].
    Per block of items: s = score - the context's shift; sums of s, s^2 and s * b, a block's in float32,
    merged in float64.
    Each program owns its outputs: no atomics, hence bitwise repeatable. Cost: 2 BLOCK_B V D FLOPs.
    """
    offs_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    row_b = tl.minimum(offs_b, num_rows - 1).to(tl.int64)
    query_bd = load_rows(query_ptr, row_b, stride_qb, stride_qd, dim, DOT, EVEN_D, BLOCK_D)
    shift_b = tl.load(shift_ptr + row_b)
    sum_b = tl.zeros([BLOCK_B], tl.float64)
    square_b = tl.zeros([BLOCK_B], tl.float64)
    along_b = tl.zeros([BLOCK_B], tl.float64)
    first = tl.program_id(1) * split_size
    for first_v in range(first, tl.minimum(first + split_size, num_items), BLOCK_V):
        offs_v = first_v + tl.arange(0, BLOCK_V)
        id_v = tl.minimum(offs_v, num_items - 1).to(tl.int64)
        score_bv = score_tile(
            query_bd,
            item_ptr,
            id_v,
            bias_ptr,
            scale,
            cap,
            stride_ev,
            stride_ed,
            dim,
            DOT,
            PRECISION,
            CAPPED,
            EVEN_D,
            BLOCK_D,
        )
        s_bv = tl.where((offs_v < num_items)[None, :], score_bv - shift_b[:, None], 0.0)
        sum_b += tl.sum(s_bv, 1).to(tl.float64)
        square_b += tl.sum(s_bv * s_bv, 1).to(tl.float64)
        along_b += tl.sum(s_bv * tl.load(b_ptr + id_v)[None, :], 1).to(tl.float64)
    out_ptr = sums_ptr + tl.program_id(1).to(tl.int64) * 3 * num_rows + offs_b
    inside_b = offs_b < num_rows
    tl.store(out_ptr, sum_b, mask=inside_b)
    tl.store(out_ptr + num_rows, square_b, mask=inside_b)
    tl.store(out_ptr + 2 * num_rows, along_b, mask=inside_b)
