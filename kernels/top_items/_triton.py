"""Exact top-k items in Triton: every score once on tensor cores, of which a maximum a tile is kept.

The catalogue is cut into tiles of W items, W = the kernels' BLOCK_V. Of a block of rows:

1. `best_kernel` makes every score, and keeps the largest of each row in each tile.
2. `pairs_kernel` makes those of the (row, tile) that hold excluded items again, without them.
3. k tiles per row are chosen, by (larger maximum, smaller number).
4. `pairs_kernel` makes the scores of the k B chosen (row, tile) again; the k best of the k W are the
   answer, by (larger score, smaller id).

Why k tiles are enough, ties included. Order items by (larger score, smaller id). Let item x lie in
tile X, not chosen. Each of the k chosen tiles T then has a larger maximum than X, or an equal one and
a smaller number. In the first case T's best item scores above X's maximum, so above x; in the second
it scores as much as X's maximum, so as much as x at least, and has a smaller id, as all of T stands
before all of X. Either way k items come before x, and x is not among the first k.

This needs one score for a (row, item), the same bits in 1, 2 and 4. All three make it by one function:
a product of the same shape, hence by the same instructions in the same order over D, then one
multiply-add; an element of a matrix product depends on its own row and column alone. (On a device
where it did not, scores would still be right within rounding; only items nearer to the k-th than
that could change places with it.) Pass 2 and 4 gather rows for this: pairs are sorted by tile, and up
to BLOCK_B rows that want a tile share a program, whichever rows they are.

Cost of a row at D = 64, k = 100, V = 200,000, W = 64: 2 V D = 26 MFLOP in pass 1 and 2 k W D = 0.8 in
pass 4, with partly filled programs 3.4 at most; pass 2 is like pass 4 with as many pairs as the row has
excluded items. To memory V / W + k W = 3,125 + 6,400 numbers, written once and read some ten times to
find the k largest, in place of 200,000; W = sqrt(V / k) = 45 gives the fewest. The table is read
B / BLOCK_B times in pass 1, from the L2 cache while it fits.
Memory above the results, whatever B and V are: four arrays of 32 MiB at most, and some int64 for each
excluded item of a block of rows. For it rows go in blocks and the catalogue in sections, whose best are
merged as in the reference. The host waits for the device once, to learn how many exclusions each block
has, and never where there are none.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fastpop.kernels import triton_tiles
from fastpop.kernels.top_items import _triton_kernels as kernels
from fastpop.kernels.top_items.reference import Inputs
from fastpop.kernels.triton_tiles import MAXIMA, Tile

_ELEMENTS = 1 << 23  # of one array: maxima of rows in tiles, or scores of the chosen
_BLOCK_ROWS = 2048
_MINUS_INF = -0x7F800001  # as a key


class Section(NamedTuple):
    """A block of B rows against a range of V items, cut into T tiles."""

    query_BD: Tensor
    item_VD: Tensor
    bias_V: Tensor  # of whole tiles
    scale: float
    tile: Tile

    @property
    def num_tiles(self) -> int:
        return triton.cdiv(self.item_VD.shape[0], self.tile.candidates)


class Banned(NamedTuple):
    """Excluded items: the pairs (tile * B + row) that hold some, ascending, and W bits that say which.

    As many as there are exclusions, since the host does not know how many pairs differ; the surplus,
    and what lies in other sections, is the pair T * B.
    """

    pair_M: Tensor
    bits_M: Tensor


def unsupported(inputs: Inputs) -> str | None:
    return triton_tiles.unsupported(inputs.query_BD, inputs.item_VD)


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Equals `reference.forward` within rounding of the scores."""
    query_BD, item_VD, k, bias_V, scale, exclude_offsets, exclude_item = inputs
    (num_rows, dim), num_items, device = query_BD.shape, item_VD.shape[0], query_BD.device
    tile = triton_tiles.choose(MAXIMA, device, dim, triton_tiles.dot_dtype(query_BD, item_VD))
    bias_V = triton_tiles.padded_bias(bias_V, num_items, tile, device)
    block, range_items = _blocks(num_rows, num_items, k, tile)
    starts = range(0, num_rows, block)
    id_BK = torch.full((num_rows, k), -1, dtype=torch.int64, device=device)
    key_BK = torch.full((num_rows, k), _MINUS_INF, dtype=torch.int32, device=device)
    for start, excluded in zip(starts, _by_block(exclude_offsets, exclude_item, starts, num_rows)):
        rows = slice(start, start + block)
        for first in range(0, num_items, range_items):
            items = slice(first, first + range_items)  # whole tiles
            section = Section(query_BD[rows], item_VD[items], bias_V[items], scale, tile)
            banned = None if excluded is None else _banned(section, excluded[0], excluded[1] - first)
            with triton_tiles.on_device(query_BD):
                item_id, key = _best_items(section, k, banned)
            # The best so far have smaller ids: a stable sort keeps equal scores in order of id.
            key, order = torch.sort(torch.cat([key_BK[rows], key], 1), dim=1, descending=True, stable=True)
            item_id = torch.cat([id_BK[rows], item_id + first], 1)
            key_BK[rows], id_BK[rows] = key[:, :k], item_id.gather(1, order[:, :k])
    score_BK = (key_BK ^ ((key_BK >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return id_BK.masked_fill(score_BK == -torch.inf, -1), score_BK


def select(key_BN: Tensor, k: int) -> Tensor:
    """[B, k] columns of each row's k largest keys, in ascending order; of equal keys the leftmost.

    torch.topk leaves open which of equal keys it takes, but not what the k-th key is. Numbers that
    are all different then say the order: above it, at it from the left, the rest.
    """
    width = key_BN.shape[1]
    last_B1 = torch.topk(key_BN, k, dim=1, sorted=False).values.amin(1, keepdim=True)
    from_right_N = torch.arange(width, 0, -1, dtype=torch.int32, device=key_BN.device)
    order_BN = torch.where(key_BN == last_B1, from_right_N, 0)
    order_BN = torch.where(key_BN > last_B1, from_right_N + width, order_BN)
    return torch.topk(order_BN, k, dim=1, sorted=False).indices.sort(1).values


def _blocks(num_rows: int, num_items: int, k: int, tile: Tile) -> tuple[int, int]:
    """Rows of a block and items of a section, so that no array passes _ELEMENTS."""
    candidates = min(k, triton.cdiv(num_items, tile.candidates)) * tile.candidates
    block = max(1, min(num_rows, _BLOCK_ROWS, _ELEMENTS // max(candidates, 1)))
    if block > tile.rows:
        block -= block % tile.rows
    return block, _ELEMENTS // max(block, tile.rows) * tile.candidates


def _by_block(
    offsets: Tensor | None, item: Tensor | None, starts: range, num_rows: int
) -> list[tuple[Tensor, Tensor] | None]:
    """Of each block of rows, what is excluded: (offsets, wherever they begin, and items), or None."""
    if offsets is None or item is None:
        return [None] * len(starts)
    ends = [*starts[1:], num_rows]
    cuts = offsets[[0, *ends]].tolist()
    return [
        (offsets[start : end + 1], item[cut:next_cut]) if next_cut > cut else None
        for start, end, cut, next_cut in zip(starts, ends, cuts, cuts[1:])
    ]


def _banned(section: Section, offsets: Tensor, item_M: Tensor) -> Banned:
    (num_rows, _), (num_items, _) = section.query_BD.shape, section.item_VD.shape
    width, nowhere = section.tile.candidates, section.num_tiles * num_rows
    row_M = torch.repeat_interleave(
        torch.arange(num_rows, device=item_M.device), offsets.diff(), output_size=item_M.shape[0]
    )
    place_M = (item_M // width * num_rows + row_M) * width + item_M % width
    place_M = torch.where((item_M >= 0) & (item_M < num_items), place_M, nowhere * width)
    place_M = place_M.int().sort().values
    pair_M, bit_M = place_M // width, 1 << (place_M % width).long()
    none = place_M.new_full((1,), -1)
    bit_M.masked_fill_(place_M.diff(prepend=none) == 0, 0)  # repeats
    at_M = (pair_M.diff(prepend=none) != 0).cumsum(0) - 1
    return Banned(
        torch.full_like(pair_M, nowhere).scatter_(0, at_M, pair_M),
        torch.zeros_like(bit_M).scatter_add_(0, at_M, bit_M),
    )


def _best_items(section: Section, k: int, banned: Banned | None) -> tuple[Tensor, Tensor]:
    """(id within the section, key) [B, <= k] of each row's best, in order of id."""
    num_rows, num_tiles, width = section.query_BD.shape[0], section.num_tiles, section.tile.candidates
    device = section.query_BD.device
    programs = triton.cdiv(num_rows, section.tile.rows)
    splits, steps = triton_tiles.split(programs, num_tiles, device)
    best_BT = torch.empty(num_rows, num_tiles, dtype=torch.int32, device=device)
    triton_tiles.launch(
        kernels.best_kernel, (programs, splits), **_arguments(section), best_ptr=best_BT, split_tiles=steps
    )
    if banned is not None:
        _pairs(section, banned.pair_M, banned.bits_M, best_BT=best_BT)
    tile_BC = select(best_BT, min(k, num_tiles))
    chosen = tile_BC.shape[1]
    row_B1 = torch.arange(num_rows, dtype=torch.int32, device=device)[:, None]
    pair_P, slot_P = torch.sort((tile_BC.int() * num_rows + row_B1).flatten())
    bits_P = None
    if banned is not None:
        at_P = torch.searchsorted(banned.pair_M, pair_P).clamp(max=banned.pair_M.shape[0] - 1)
        bits_P = torch.where(banned.pair_M[at_P] == pair_P, banned.bits_M[at_P], 0)
    key_BN = torch.empty(num_rows, chosen * width, dtype=torch.int32, device=device)
    _pairs(section, pair_P, bits_P, slot_P=slot_P, key_BN=key_BN)
    column_BK = select(key_BN, min(k, chosen * width))
    item_id = tile_BC.gather(1, column_BK // width) * width + column_BK % width
    return item_id, key_BN.gather(1, column_BK)


def _pairs(
    section: Section,
    pair_P: Tensor,
    bits_P: Tensor | None,
    *,
    slot_P: Tensor | None = None,
    best_BT: Tensor | None = None,
    key_BN: Tensor | None = None,
) -> None:
    """`pairs_kernel` on sorted pairs: each tile's are cut into blocks, the last of them ragged.

    How many blocks that makes is known to the device alone. The grid is the most that it can be, and
    what is left over has the tile T.
    """
    num_rows, num_tiles, block = section.query_BD.shape[0], section.num_tiles, section.tile.rows
    device = pair_P.device
    edge_T = torch.searchsorted(
        pair_P, torch.arange(num_tiles + 1, dtype=torch.int32, device=device) * num_rows
    )
    blocks_T = (edge_T.diff() + block - 1) // block
    end_T = blocks_T.cumsum(0)
    programs = pair_P.shape[0] // block + min(num_tiles, pair_P.shape[0])
    program_N = torch.arange(programs, device=device)
    tile_N = torch.searchsorted(end_T, program_N, right=True)
    at_N = tile_N.clamp(max=num_tiles - 1)
    first_N = edge_T[at_N] + (program_N - (end_T - blocks_T)[at_N]) * block
    triton_tiles.launch(
        kernels.pairs_kernel,
        (programs,),
        **_arguments(section),
        pair_ptr=pair_P,
        slot_ptr=slot_P,
        banned_ptr=bits_P,
        tile_ptr=tile_N,
        first_ptr=first_N,
        end_ptr=edge_T[at_N + 1],
        best_ptr=best_BT,
        key_ptr=key_BN,
    )


def _arguments(section: Section) -> dict[str, Any]:
    """What both kernels take of a section."""
    num_items, dim = section.item_VD.shape
    return {
        "query_ptr": section.query_BD,
        "item_ptr": section.item_VD,
        "bias_ptr": section.bias_V,
        "num_rows": section.query_BD.shape[0],
        "num_items": num_items,
        "dim": dim,
        "num_tiles": section.num_tiles,
        "scale": section.scale,
        **triton_tiles.strides(section.query_BD, section.item_VD),
        "BLOCK_V": section.tile.candidates,
        **triton_tiles.constants(section.query_BD, section.item_VD, section.tile),
    }
