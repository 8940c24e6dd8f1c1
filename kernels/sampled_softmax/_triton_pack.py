"""Candidates of the sampled softmax as its three passes read them: drawn, looked up and checked once.

What a logit needs of its candidate beside the row is one number, the bias: prior, correction, and -inf for
what is not there. It is made here, by one program for each candidate, instead of by every thread of every
tile that meets it. Candidates that all rows share also get their rows side by side, in the type of the
products, dimensions padded with zeros to whole tiles, and zeros where a prior removes an item, whatever its
row holds: tiles are then plain blocks of memory, and no logit is looked at again. Where each group has a set
of its own, G K rows would be copied for a program or a few to read each: they stay in the table.

Of shared draws that repeat each other (merge_repeats) ids are sorted first, and each is one candidate, with
the log of how often it was drawn in its bias. How many there are is known on the device alone: there is room
for K, and the passes read tiles up to that count. Three launches more, for fewer candidates.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastpop.kernels import triton_tiles
from fastpop.kernels.alias_draw._triton import alias_ids, draw_kernel
from fastpop.kernels.sampled_softmax.reference import Inputs
from fastpop.kernels.triton_softmax import prior_term
from fastpop.kernels.triton_tiles import known_ids, load_rows_there

BLOCK = 32  # candidates a program
MERGED, SCANNED = 256, 1024  # draws in order that a program has, and that it reads at once of those before it
MOST_MERGED = 65_536  # of which each program reads all that are before its own


class Packed(NamedTuple):
    """P candidates a group, whole tiles: past the last, id -1, bias -inf, and a row of zeros."""

    row_GPD: Tensor | None  # None: in the table, by id
    bias_GP: Tensor  # float32
    id_GP: Tensor  # int32, -1 where it is out of range
    known_GP: Tensor | None = None  # bias, -inf where the id is out of range
    num_different: Tensor | None = None  # int32 [1]: so many are candidates, the first ones; None: all


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
def merge_kernel(sorted_ptr, first_ptr, count_ptr, num_negatives, BLOCK_K: tl.constexpr, SCAN: tl.constexpr):
    """One program owns BLOCK_K places of ids in order: to first [K + 1] the place where each different id
    begins, in order, and behind them K; to count how many differ.

    What begins before it a program counts itself, which takes no second launch: K^2 / (2 BLOCK_K) ids read in
    all, through the L2 cache.
    """
    at = tl.program_id(0) * BLOCK_K
    before = 0
    for start in range(0, at, SCAN):
        offs_n = start + tl.arange(0, SCAN)
        id_n = tl.load(sorted_ptr + offs_n, mask=offs_n < at, other=-1)
        last_n = tl.load(sorted_ptr + offs_n - 1, mask=(offs_n < at) & (offs_n > 0), other=-1)
        before += tl.sum((id_n != last_n).to(tl.int32), 0)
    offs_k = at + tl.arange(0, BLOCK_K)
    inside_k = offs_k < num_negatives
    id_k = tl.load(sorted_ptr + offs_k, mask=inside_k, other=-1)
    last_k = tl.load(sorted_ptr + offs_k - 1, mask=inside_k & (offs_k > 0), other=-1)
    begins_k = (inside_k & (id_k != last_k)).to(tl.int32)
    tl.store(first_ptr + before + tl.cumsum(begins_k, 0) - begins_k, offs_k, mask=begins_k == 1)
    if at + BLOCK_K >= num_negatives:
        count = before + tl.sum(begins_k, 0)
        tl.store(count_ptr, count)
        tl.store(first_ptr + count, num_negatives)


@triton_tiles.kernel
def pack_kernel(
    item_ptr,
    neg_id_ptr,
    table_ptr,
    counter_ptr,
    log_prior_ptr,
    prior_weight_ptr,
    log_proposal_ptr,
    sorted_ptr,
    first_ptr,
    count_ptr,
    row_ptr,
    bias_ptr,
    known_ptr,
    id_ptr,
    entry_ptr,
    num_rows,
    num_items,
    num_negatives,
    num_tiles,
    dim,
    log_count,
    unknown,
    stride_ev,
    stride_ed,
    DOT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (group, tile) owns BLOCK_K candidates; to memory, once: their ids and biases, and each where
    its pointer is given, rows, biases that leave out ids out of range, and behind num_rows others ids without
    gaps, 0 for those. With a count the candidates are the different ones of sorted ids; past them the ids
    without gaps repeat the last, whose gradient zeros are added to."""
    group = tl.program_id(0) // num_tiles
    offs_k = (tl.program_id(0) % num_tiles) * BLOCK_K + tl.arange(0, BLOCK_K)
    is_entry_k = offs_k < num_negatives
    inside_k = is_entry_k
    if count_ptr is not None:
        count = tl.load(count_ptr)
        inside_k = offs_k < count
        safe_k = tl.minimum(offs_k, count - 1)
        first_k = tl.load(first_ptr + safe_k)
        times_k = tl.load(first_ptr + safe_k + 1) - first_k
        id_k = tl.load(sorted_ptr + first_k)
    else:
        id_k = candidate_ids(neg_id_ptr, table_ptr, counter_ptr, num_items, num_negatives, group, offs_k)
    bias_k = candidate_bias(
        id_k, inside_k, unknown, log_prior_ptr, prior_weight_ptr, log_proposal_ptr, log_count
    )
    if count_ptr is not None:
        bias_k += tl.log(times_k.to(tl.float32))
    if entry_ptr is not None:  # before ids past the count go, so that these are not held beside the rows
        entry_k = num_rows + group.to(tl.int64) * num_negatives + offs_k
        tl.store(entry_ptr + entry_k, tl.maximum(id_k, 0), mask=is_entry_k)
    id_k = tl.where(inside_k, id_k, -1)
    out_k = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    tl.store(bias_ptr + out_k, bias_k)
    tl.store(id_ptr + out_k, id_k)
    if known_ptr is not None:
        tl.store(known_ptr + out_k, tl.where(id_k < 0, float("-inf"), bias_k))
    if row_ptr is not None:
        there_k = (id_k >= 0) & (bias_k != float("-inf"))
        row_k = tl.maximum(id_k, 0).to(tl.int64)
        row_kd = load_rows_there(item_ptr, row_k, there_k, stride_ev, stride_ed, dim, DOT, BLOCK_D)
        tl.store(row_ptr + out_k[:, None] * BLOCK_D + tl.arange(0, BLOCK_D)[None, :], row_kd)


def operands(inputs: Inputs) -> torch.dtype:
    """Of the matrix products."""
    if inputs.round_items:
        return inputs.query_BD.dtype
    return triton_tiles.dot_dtype(inputs.query_BD, inputs.item_VD)


def merges(inputs: Inputs) -> bool:
    """Whether repeated draws become one candidate."""
    is_drawn = inputs.table_V2 is not None and inputs.num_groups == 1 and not inputs.exclude_diagonal
    return inputs.merge_repeats and is_drawn and inputs.num_negatives <= MOST_MERGED


def merged(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """int32 (drawn ids in order [K], where each different one begins [K + 1], how many differ [1])."""
    num_negatives = inputs.num_negatives
    id_K, first_K, count = (
        inputs.query_BD.new_empty(size, dtype=torch.int32) for size in (num_negatives, num_negatives + 1, 1)
    )
    given = triton_tiles.tensors(inputs)
    triton_tiles.launch(
        draw_kernel,
        (triton.cdiv(num_negatives, 256),),
        table_ptr=given["table_ptr"],
        counter_ptr=given["counter_ptr"],
        id_ptr=id_K,
        num_items=inputs.item_VD.shape[0],
        first_group=0,
        num_groups=1,
        num_draws=num_negatives,
        BLOCK_K=256,
    )
    id_K = torch.sort(id_K).values
    triton_tiles.launch(
        merge_kernel,
        (triton.cdiv(num_negatives, MERGED),),
        sorted_ptr=id_K,
        first_ptr=first_K,
        count_ptr=count,
        num_negatives=num_negatives,
        BLOCK_K=MERGED,
        SCAN=SCANNED,
    )
    return id_K, first_K, count


def pack(
    inputs: Inputs,
    tile: int,
    unknown: float,
    log_count: float,
    entry_N: Tensor | None = None,
    *,
    both: bool = False,
) -> Packed:
    """tile: what P divides by, a power of 2. unknown: the bias of an id out of range. entry: int32 [B + G K],
    to be filled with ids behind those of the rows. both: known_GP, too."""
    tile = max(tile, BLOCK)
    num_groups, num_tiles = inputs.num_groups, triton.cdiv(inputs.num_negatives, tile) * (tile // BLOCK)
    dim, new = inputs.query_BD.shape[1], inputs.query_BD.new_empty
    dtype, block_d = operands(inputs), triton_tiles.block_of(dim)
    sizes = num_groups, num_tiles * BLOCK
    sorted_K, first_K, count = merged(inputs) if merges(inputs) else (None, None, None)
    packed = Packed(
        new(*sizes, block_d, dtype=dtype) if num_groups == 1 else None,
        new(sizes, dtype=torch.float32),
        new(sizes, dtype=torch.int32),
        new(sizes, dtype=torch.float32) if both else None,
        count,
    )
    shared = {
        **triton_tiles.tensors(inputs),
        **triton_tiles.strides(inputs.query_BD, inputs.item_VD),
        "num_rows": inputs.query_BD.shape[0],
        "num_items": inputs.item_VD.shape[0],
        "num_negatives": inputs.num_negatives,
        "dim": dim,
    }
    triton_tiles.launch(
        pack_kernel,
        (num_groups * num_tiles,),
        **{name: one for name, one in shared.items() if name in pack_kernel.arg_names},
        sorted_ptr=sorted_K,
        first_ptr=first_K,
        count_ptr=count,
        row_ptr=packed.row_GPD,
        bias_ptr=packed.bias_GP,
        known_ptr=packed.known_GP,
        id_ptr=packed.id_GP,
        entry_ptr=entry_N,
        num_tiles=num_tiles,
        log_count=log_count,
        unknown=unknown,
        DOT=triton_tiles.TL_DTYPES[dtype],
        BLOCK_K=BLOCK,
        BLOCK_D=block_d,
    )
    return packed


@triton.jit
def candidate_tile(
    row_ptr,
    item_ptr,
    id_ptr,
    bias_k,
    first,
    stride_ev,
    stride_ed,
    dim,
    DOT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """[BLOCK_K, BLOCK_D] rows of the candidates from place `first` (int64), zeros for what is not there."""
    offs_k = tl.arange(0, BLOCK_K)
    if row_ptr is not None:
        offs_kd = offs_k[:, None] * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
        return tl.load(row_ptr + first * BLOCK_D + offs_kd)
    else:
        row_k = tl.maximum(tl.load(id_ptr + first + offs_k), 0).to(tl.int64)
        there_k = bias_k != float("-inf")
        return load_rows_there(item_ptr, row_k, there_k, stride_ev, stride_ed, dim, DOT, BLOCK_D)
