"""Row gradients by id in Triton: duplicates summed into the first occurrence, in a fixed order.

No count leaves the device, so nothing waits for it: as many rows come out as went in, and an id that
comes again carries zeros. After a stable sort by id each run of equal ids is a segment, and its first
position owns the sum. Positions are cut into chunks of equal length, whatever the ids:

1. `chunk_kernel` sums a chunk's rows by id, reads each once, and writes each position. A segment that goes on
   in the next chunk leaves its part behind, as does one that comes from the chunk before.
2. `carry_kernel` adds the parts of a segment of several chunks in order, WALK chunks a step: a popular item,
   the positive of many rows, takes L / (CHUNK WALK) steps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastpop.kernels import triton_tiles
from fastpop.kernels.sampled_softmax.reference import Inputs

CHUNK = 64 if triton_tiles.INTERPRETED else 16  # positions a program; interpreted ones cost the same each
WALK = 32


@triton.jit
def load_sources(
    source_n,
    wanted_n,
    query_ptr,
    own_ptr,
    row_ptr,
    scale,
    num_rows,
    dim,
    stride_qb,
    stride_qd,
    BLOCK_D: tl.constexpr,
):
    """float32 [N, BLOCK_D] gradient rows of sources: own * scale * query of a row b < num_rows (its
    positive), then the rows that item_kernel wrote."""
    offs_d = tl.arange(0, BLOCK_D)
    is_row_n = wanted_n & (source_n < num_rows)
    is_item_n = wanted_n & (source_n >= num_rows)
    inside_d = offs_d[None, :] < dim
    own_n = tl.load(own_ptr + source_n, mask=is_row_n, other=0.0) * scale
    query_ptr_nd = query_ptr + source_n[:, None] * stride_qb + offs_d[None, :].to(tl.int64) * stride_qd
    query_nd = tl.load(query_ptr_nd, mask=is_row_n[:, None] & inside_d, other=0.0)
    item_ptr_nd = row_ptr + (source_n - num_rows)[:, None] * dim + offs_d[None, :]
    item_nd = tl.load(item_ptr_nd, mask=is_item_n[:, None] & inside_d, other=0.0)
    return own_n[:, None] * query_nd.to(tl.float32) + item_nd


@triton.jit
def load_biases(source_n, wanted_n, own_ptr, bias_ptr, num_rows):
    """float64 [N] gradients of the logits' biases, of the same sources: terms that cancel, and one
    number per id."""
    is_row_n = wanted_n & (source_n < num_rows)
    is_item_n = wanted_n & (source_n >= num_rows)
    own_n = tl.load(own_ptr + source_n, mask=is_row_n, other=0.0).to(tl.float64)
    return own_n + tl.load(bias_ptr + (source_n - num_rows), mask=is_item_n, other=0.0)


@triton_tiles.kernel
def chunk_kernel(
    id_ptr,
    source_ptr,
    query_ptr,
    own_ptr,
    row_ptr,
    bias_ptr,
    scale_ptr,
    out_id_ptr,
    out_row_ptr,
    out_bias_ptr,
    carry_row_ptr,
    carry_bias_ptr,
    num_rows,
    num_sources,
    dim,
    stride_qb,
    stride_qd,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns CHUNK sorted positions.

    In registers: their gradient rows and sums [CHUNK, BLOCK_D]. To memory, once: ids in 64 bits; out, at a
    segment's first position the sum of what this chunk has of it, zeros elsewhere; carry [chunks, 2], of the
    first id and of the last. No row is multiplied by 0: what is not a number stays with its id.
    """
    in_n = tl.arange(0, CHUNK)
    offs_n = tl.program_id(0).to(tl.int64) * CHUNK + in_n
    inside_n = offs_n < num_sources
    id_n = tl.load(id_ptr + offs_n, mask=inside_n, other=-1)
    before_n = tl.load(id_ptr + offs_n - 1, mask=inside_n & (offs_n > 0), other=-1)
    starts_n = inside_n & (id_n != before_n)
    source_n = tl.load(source_ptr + offs_n, mask=inside_n, other=0)
    tl.store(out_id_ptr + offs_n, id_n.to(tl.int64), mask=inside_n)
    is_first_n, is_last_n = in_n == 0, inside_n & ((in_n == CHUNK - 1) | (offs_n == num_sources - 1))
    carry = tl.program_id(0).to(tl.int64) * 2
    if row_ptr is not None:
        row_nd = load_sources(
            source_n,
            inside_n,
            query_ptr,
            own_ptr,
            row_ptr,
            tl.load(scale_ptr),
            num_rows,
            dim,
            stride_qb,
            stride_qd,
            BLOCK_D,
        )
        sum_nd = tl.zeros([CHUNK, BLOCK_D], tl.float32)
        for k in tl.static_range(CHUNK):
            one_d = tl.sum(tl.where((in_n == k)[:, None], row_nd, 0.0), 0)
            same_n = id_n == tl.sum(tl.where(in_n == k, id_n, 0), 0)
            sum_nd += tl.where(same_n[:, None], one_d[None, :], 0.0)
        offs_d = tl.arange(0, BLOCK_D)
        inside_d = offs_d[None, :] < dim
        tl.store(
            out_row_ptr + offs_n[:, None] * dim + offs_d[None, :],
            tl.where(starts_n[:, None], sum_nd, 0.0),
            mask=inside_n[:, None] & inside_d,
        )
        # The same address in each row, of which one is written.
        carry_ptr_nd = tl.broadcast_to((carry_row_ptr + carry * dim + offs_d)[None, :], sum_nd.shape)
        tl.store(carry_ptr_nd, sum_nd, mask=is_first_n[:, None] & inside_d)
        tl.store(carry_ptr_nd + dim, sum_nd, mask=is_last_n[:, None] & inside_d)
    if bias_ptr is not None:
        bias_n = load_biases(source_n, inside_n, own_ptr, bias_ptr, num_rows)
        sum_n = tl.sum(tl.where(id_n[:, None] == id_n[None, :], bias_n[None, :], 0.0), 1)
        tl.store(out_bias_ptr + offs_n, tl.where(starts_n, sum_n, 0.0), mask=inside_n)
        tl.store(carry_bias_ptr + carry + tl.zeros_like(in_n), sum_n, mask=is_first_n)
        tl.store(carry_bias_ptr + carry + 1 + tl.zeros_like(in_n), sum_n, mask=is_last_n)


@triton_tiles.kernel
def carry_kernel(
    id_ptr,
    out_row_ptr,
    out_bias_ptr,
    carry_row_ptr,
    carry_bias_ptr,
    num_sources,
    dim,
    CHUNK: tl.constexpr,
    WALK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program c owns the segment that begins in chunk c and goes on in the next, if there is one.

    In registers: WALK carries [WALK, BLOCK_D]. To memory, once: out, at the segment's first position.
    """
    chunk = tl.program_id(0).to(tl.int64)
    begin, end = chunk * CHUNK, (chunk + 1) * CHUNK  # there is a chunk after it
    offs_n = begin + tl.arange(0, CHUNK)
    id_n = tl.load(id_ptr + offs_n)
    here = tl.load(id_ptr + end - 1)
    first = end - tl.sum((id_n == here).to(tl.int64), 0)
    before = tl.load(id_ptr + first - 1, mask=first > 0, other=-1)
    if (tl.load(id_ptr + end) != here) | (before == here):
        return
    offs_d = tl.arange(0, BLOCK_D)
    inside_d = offs_d < dim
    num_chunks = tl.cdiv(num_sources, CHUNK)
    if carry_row_ptr is not None:
        total_d = tl.load(carry_row_ptr + (chunk * 2 + 1) * dim + offs_d, mask=inside_d, other=0.0)
    if carry_bias_ptr is not None:
        total = tl.load(carry_bias_ptr + chunk * 2 + 1)
    at = chunk + 1
    goes_on = at < num_chunks
    while goes_on:
        at_w = at + tl.arange(0, WALK)
        id_w = tl.load(id_ptr + at_w * CHUNK, mask=at_w < num_chunks, other=-1)
        is_same_w = id_w == here
        if carry_row_ptr is not None:
            carry_ptr_wd = carry_row_ptr + at_w[:, None] * 2 * dim + offs_d[None, :]
            total_d += tl.sum(
                tl.load(carry_ptr_wd, mask=is_same_w[:, None] & inside_d[None, :], other=0.0), 0
            )
        if carry_bias_ptr is not None:
            total += tl.sum(tl.load(carry_bias_ptr + at_w * 2, mask=is_same_w, other=0.0), 0)
        at += WALK
        goes_on = tl.min(is_same_w.to(tl.int32), 0) == 1
    if carry_row_ptr is not None:
        tl.store(out_row_ptr + first * dim + offs_d, total_d, mask=inside_d)
    if carry_bias_ptr is not None:
        tl.store(out_bias_ptr + first, total)


def sum_warps(dim: int) -> int:
    """So many that each has 64 dimensions."""
    return max(1, triton_tiles.block_of(dim) // 64)


def sum_by_id(
    inputs: Inputs,
    entry_N: Tensor,
    own_B: Tensor,
    row_ND: Tensor | None,
    bias_N: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(sorted ids, rows, biases) [B + N]: gradients of the positives' items (own * scale * query) and of the
    candidates' (row_ND, bias_N), summed by id; a repeated id carries zeros. entry: int32 ids of both, which
    take half the passes of a sort; what is out of range, whose gradient is 0, is item 0 there. dtype: of the
    rows."""
    query_BD = inputs.query_BD
    num_rows, dim = query_BD.shape
    id_n, source_n = torch.sort(entry_N, stable=True)
    num_sources = id_n.shape[0]
    num_chunks = triton.cdiv(num_sources, CHUNK)
    out_nD = out_n = carry_c2D = carry_c2 = None
    out_id_n = torch.empty_like(id_n, dtype=torch.int64)
    if row_ND is not None:
        out_nD = torch.empty(num_sources, dim, dtype=dtype, device=id_n.device)
        carry_c2D = torch.empty(num_chunks, 2, dim, device=id_n.device)
    if bias_N is not None:
        out_n = torch.empty(num_sources, dtype=torch.float64, device=id_n.device)
        carry_c2 = torch.empty(num_chunks, 2, dtype=torch.float64, device=id_n.device)
    shared = {
        "id_ptr": id_n,
        "out_row_ptr": out_nD,
        "out_bias_ptr": out_n,
        "carry_row_ptr": carry_c2D,
        "carry_bias_ptr": carry_c2,
        "num_sources": num_sources,
        "dim": dim,
        "CHUNK": CHUNK,
        "BLOCK_D": triton_tiles.block_of(dim),
    }
    triton_tiles.launch(
        chunk_kernel,
        (num_chunks,),
        **shared,
        source_ptr=source_n,
        out_id_ptr=out_id_n,
        query_ptr=query_BD,
        own_ptr=own_B,
        row_ptr=row_ND,
        bias_ptr=bias_N,
        scale_ptr=inputs.scale,
        num_rows=num_rows,
        stride_qb=query_BD.stride(0),
        stride_qd=query_BD.stride(1),
        num_warps=sum_warps(dim),
    )
    if num_chunks > 1:
        triton_tiles.launch(carry_kernel, (num_chunks - 1,), **shared, WALK=WALK, num_warps=sum_warps(dim))
    return out_id_n, out_nD, out_n
