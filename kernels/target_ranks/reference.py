"""Where targets stand among all items, in plain torch, the catalogue walked tile by tile.

    score(b, i) = scale * <query[b], items[i]> + bias[i]

A score is counted against another of the same product: every tile, the targets' and the excluded items'
scores come from one function. Matrix products of other shapes may round otherwise, so what is level in
exact arithmetic may differ by a rounding here; where the numbers make products exact it does not.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Elements of one score tile: 16 MiB of float32.
_TILE_ELEMENTS = 1 << 22
_BLOCK_ROWS = 1024


class Inputs(NamedTuple):
    query_BD: Tensor
    item_VD: Tensor
    target_offsets: Tensor  # int64 [B + 1]
    target_item: Tensor  # int64 [M]
    bias_V: Tensor | None
    scale: float
    exclude_offsets: Tensor | None
    exclude_item: Tensor | None
    own_M: Tensor | None = None  # the targets' scores, where they are known; item -1: of another catalogue


def unsupported(inputs: Inputs) -> str | None:
    """The reference takes whatever passed the public checks."""
    return None


def forward(inputs: Inputs, *, tile_items: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(greater [M] int64, equal [M] int64, score [M], lse [B]), the last two float32 (float64 for
    float64 queries). Cost: 4 B V D FLOPs (every tile is made twice) and two comparisons a target and item."""
    num_rows, num_items = inputs.query_BD.shape[0], inputs.item_VD.shape[0]
    dtype = torch.float64 if inputs.query_BD.dtype == torch.float64 else torch.float32
    device = inputs.query_BD.device
    lse_B = torch.full((num_rows,), -torch.inf, dtype=dtype, device=device)
    greater_M, equal_M = (torch.zeros_like(inputs.target_item) for _ in range(2))
    score_M = torch.empty(len(inputs.target_item), dtype=dtype, device=device)
    for start in range(0, num_rows, _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, num_rows))
        query = inputs.query_BD[rows].to(dtype) * inputs.scale
        row_m, target_m, places = _listed(inputs.target_offsets, inputs.target_item, rows)
        left_out = None
        if inputs.exclude_offsets is not None and inputs.exclude_item is not None:
            row, item, _ = _listed(inputs.exclude_offsets, inputs.exclude_item, rows)
            left_out = row * num_items + item
        own_m = torch.empty(len(row_m), dtype=dtype, device=device)
        if inputs.own_M is not None:
            own_m = inputs.own_M[places].to(dtype)
        tile = tile_items or max(1, _TILE_ELEMENTS // (rows.stop - start))
        # Twice over the tiles: a target's own score comes from the tile that its rivals are in.
        for first in range(0, num_items, tile):
            score = _scores(inputs, query, first, min(first + tile, num_items), dtype)
            if inputs.own_M is None:
                here = (target_m >= first) & (target_m < first + score.shape[1])
                own_m[here] = score[row_m[here], target_m[here] - first]
            lse_B[rows] = torch.logaddexp(lse_B[rows], score.logsumexp(1))
        for first in range(0, num_items, tile):
            score = _scores(inputs, query, first, min(first + tile, num_items), dtype)
            counts = torch.ones_like(score, dtype=torch.bool)
            if left_out is not None:
                row, item = left_out // num_items, left_out % num_items
                here = (item >= first) & (item < first + score.shape[1])
                counts[row[here], item[here] - first] = False
            greater, equal = _compare(score, counts, row_m, target_m - first, own_m)
            greater_M[places] += greater
            equal_M[places] += equal
        score_M[places] = own_m
    return greater_M, equal_M, score_M, lse_B


def _scores(inputs: Inputs, query_bD: Tensor, first: int, last: int, dtype: torch.dtype) -> Tensor:
    score = query_bD @ inputs.item_VD[first:last].to(dtype).T
    if inputs.bias_V is not None:
        bias = inputs.bias_V[first:last].to(dtype)
        score += bias
        score.masked_fill_(bias == -torch.inf, -torch.inf)  # whatever its row holds
    return score


def _compare(
    score_bv: Tensor, counts_bv: Tensor, row_m: Tensor, place_m: Tensor, own_m: Tensor
) -> tuple[Tensor, Tensor]:
    """(greater, equal) [m] among the columns that count, the target's own left out; as many targets at
    a time as fill a tile."""
    greater, equal = (torch.empty_like(row_m) for _ in range(2))
    width = score_bv.shape[1]
    step = max(1, _TILE_ELEMENTS // width)
    for m in range(0, len(row_m), step):
        some = slice(m, m + step)
        score, counts, own = score_bv[row_m[some]], counts_bv[row_m[some]].clone(), own_m[some, None]
        is_here = (place_m[some] >= 0) & (place_m[some] < width)
        counts[is_here.nonzero()[:, 0], place_m[some][is_here]] = False
        greater[some] = ((score > own) & counts).sum(1)
        equal[some] = ((score == own) & counts).sum(1)
    return greater, equal


def _listed(offsets: Tensor, item: Tensor, rows: slice) -> tuple[Tensor, Tensor, slice]:
    """(row within the block, item, places in the flat list) of what rows list."""
    offsets = offsets[rows.start : rows.stop + 1]
    places = slice(int(offsets[0]), int(offsets[-1]))
    row = torch.repeat_interleave(torch.arange(len(offsets) - 1, device=item.device), offsets.diff())
    return row, item[places], places
