"""Row gradients by id in Triton: duplicates summed into the first occurrence, in a fixed order.

No count leaves the device, so nothing waits for it: as many rows come out as went in, and an id that
comes again carries zeros. After a stable sort by id each run of equal ids is a segment, and its first
position owns the sum. A long segment (a popular item is the positive of many rows) would keep one
program busy, so CHUNK sorted positions that are all of one id are summed beforehand, by a program
each: a segment of length L takes at most 2 CHUNK + L / CHUNK steps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastpop.kernels import triton_tiles
from fastpop.kernels.sampled_softmax.reference import Inputs

CHUNK = 64
CHUNK_WARPS = 8
OWNERS = 128 if triton_tiles.INTERPRETED else 16  # positions a program; interpreted ones cost the same each


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
    chunk_row_ptr,
    chunk_bias_ptr,
    num_rows,
    num_sources,
    dim,
    stride_qb,
    stride_qd,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns CHUNK sorted positions; it writes their sum if they are all of one id, else zeros.

    In registers: [CHUNK, BLOCK_D] gradient rows.
    """
    offs_n = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    id_n = tl.load(id_ptr + offs_n, mask=offs_n < num_sources, other=-1)
    # Masked, not branched: most chunks are of several ids, and load nothing more.
    wanted_n = (id_n == tl.min(id_n, 0)) & (id_n == tl.max(id_n, 0))
    source_n = tl.load(source_ptr + offs_n, mask=wanted_n, other=0)
    if row_ptr is not None:
        row_nd = load_sources(
            source_n,
            wanted_n,
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
        offs_d = tl.arange(0, BLOCK_D)
        tl.store(
            chunk_row_ptr + tl.program_id(0).to(tl.int64) * dim + offs_d, tl.sum(row_nd, 0), mask=offs_d < dim
        )
    if bias_ptr is not None:
        bias_n = load_biases(source_n, wanted_n, own_ptr, bias_ptr, num_rows)
        tl.store(chunk_bias_ptr + tl.program_id(0), tl.sum(bias_n, 0))


@triton_tiles.kernel
def segment_kernel(
    id_ptr,
    source_ptr,
    query_ptr,
    own_ptr,
    row_ptr,
    bias_ptr,
    scale_ptr,
    chunk_row_ptr,
    chunk_bias_ptr,
    out_row_ptr,
    out_bias_ptr,
    num_rows,
    num_sources,
    dim,
    stride_qb,
    stride_qd,
    CHUNK: tl.constexpr,
    OWNERS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program owns OWNERS sorted positions, and writes each: a segment's sum, or zeros.

    In registers: sums [OWNERS, BLOCK_D]. All owners walk their segments side by side: a step adds one
    row, or one whole chunk where the walk stands at the start of a chunk that its segment fills.
    """
    offs_n = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)
    inside_n = offs_n < num_sources
    id_n = tl.load(id_ptr + offs_n, mask=inside_n, other=-1)
    before_n = tl.load(id_ptr + offs_n - 1, mask=inside_n & (offs_n > 0), other=-1)
    active_n = inside_n & (id_n != before_n)
    at_n = offs_n
    offs_d = tl.arange(0, BLOCK_D)
    inside_d = offs_d[None, :] < dim
    scale = tl.load(scale_ptr)
    sum_nd = tl.zeros([OWNERS, BLOCK_D], tl.float32)
    bias_n = tl.zeros([OWNERS], tl.float64)
    while tl.max(active_n.to(tl.int32), 0) > 0:
        fills_n = active_n & (at_n % CHUNK == 0) & (at_n + CHUNK <= num_sources)
        end_id_n = tl.load(id_ptr + at_n + CHUNK - 1, mask=fills_n, other=-1)
        fills_n = fills_n & (end_id_n == id_n)
        single_n = active_n & (end_id_n != id_n)
        source_n = tl.load(source_ptr + at_n, mask=single_n, other=0)
        chunk_n = at_n // CHUNK
        if row_ptr is not None:
            sum_nd += load_sources(
                source_n,
                single_n,
                query_ptr,
                own_ptr,
                row_ptr,
                scale,
                num_rows,
                dim,
                stride_qb,
                stride_qd,
                BLOCK_D,
            )
            sum_nd += tl.load(
                chunk_row_ptr + chunk_n[:, None] * dim + offs_d[None, :],
                mask=fills_n[:, None] & inside_d,
                other=0.0,
            )
        if bias_ptr is not None:
            bias_n += load_biases(source_n, single_n, own_ptr, bias_ptr, num_rows)
            bias_n += tl.load(chunk_bias_ptr + chunk_n, mask=fills_n, other=0.0)
        at_n += tl.where(fills_n, CHUNK, 1)
        here_n = tl.load(id_ptr + at_n, mask=active_n & (at_n < num_sources), other=-1)
        active_n = active_n & (here_n == id_n)
    if row_ptr is not None:
        tl.store(
            out_row_ptr + offs_n[:, None] * dim + offs_d[None, :], sum_nd, mask=inside_n[:, None] & inside_d
        )
    if bias_ptr is not None:
        tl.store(out_bias_ptr + offs_n, bias_n, mask=inside_n)


def sum_by_id(
    inputs: Inputs, neg_id_N: Tensor, own_B: Tensor, row_ND: Tensor | None, bias_N: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(sorted ids, rows, biases) [B + N]: gradients of the positives' items (own * scale * query) and of the
    candidates' (row_ND, bias_N), summed by id; a repeated id carries zeros. An id out of range, whose
    gradient is 0, becomes the nearest in it, and a candidate's -1 item 0."""
    query_BD, item_VD = inputs.query_BD, inputs.item_VD
    num_rows, dim = query_BD.shape
    id_n = torch.cat([inputs.pos_id_B, neg_id_N.long()]).clamp_(0, item_VD.shape[0] - 1)
    id_n, source_n = torch.sort(id_n, stable=True)
    num_sources = id_n.shape[0]
    num_chunks = max(num_sources // CHUNK, 1)
    out_nD = out_n = chunk_row = chunk_bias = None
    if row_ND is not None:
        out_nD = torch.empty(num_sources, dim, dtype=item_VD.dtype, device=id_n.device)
        chunk_row = torch.empty(num_chunks, dim, device=id_n.device)
    if bias_N is not None:
        out_n = torch.empty(num_sources, dtype=torch.float64, device=id_n.device)
        chunk_bias = torch.empty(num_chunks, dtype=torch.float64, device=id_n.device)
    shared = {
        "id_ptr": id_n,
        "source_ptr": source_n,
        "query_ptr": query_BD,
        "own_ptr": own_B,
        "row_ptr": row_ND,
        "bias_ptr": bias_N,
        "scale_ptr": inputs.scale,
        "chunk_row_ptr": chunk_row,
        "chunk_bias_ptr": chunk_bias,
        "num_rows": num_rows,
        "num_sources": num_sources,
        "dim": dim,
        "stride_qb": query_BD.stride(0),
        "stride_qd": query_BD.stride(1),
        "CHUNK": CHUNK,
        "BLOCK_D": triton_tiles.block_of(dim),
    }
    triton_tiles.launch(chunk_kernel, (num_chunks,), **shared, num_warps=CHUNK_WARPS)
    triton_tiles.launch(
        segment_kernel,
        (triton.cdiv(num_sources, OWNERS),),
        **shared,
        out_row_ptr=out_nD,
        out_bias_ptr=out_n,
        OWNERS=OWNERS,
    )
    return id_n, out_nD, out_n
