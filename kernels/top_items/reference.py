"""Exact top-k of scale * q.e + bias in plain torch, the catalogue walked tile by tile."""

from typing import NamedTuple

import torch
from torch import Tensor

# Elements of one score tile: 16 MiB of float32, in cache reach and far below B x V.
_TILE_ELEMENTS = 1 << 22
_BLOCK_ROWS = 1024


class Inputs(NamedTuple):
    """What every implementation of the op takes, already checked."""

    query_BD: Tensor
    item_VD: Tensor
    k: int
    bias_V: Tensor | None = None
    scale: float = 1.0
    exclude_offsets: Tensor | None = None  # int64 [B + 1]
    exclude_item: Tensor | None = None  # int64


def unsupported(inputs: Inputs) -> str | None:
    """The reference takes whatever passed the public checks."""
    return None


def select(score_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row, best first; equal scores by smaller column.

    torch.topk leaves the order among ties open, and which of the tied columns it returns: both
    are put right here. [B, k] columns and scores, k <= V.
    """
    width = score_BV.shape[1]
    # One more than asked for: where it equals the last, topk chose among equals by itself.
    best_BK, id_BK = torch.topk(score_BV, min(k + 1, width), dim=1)
    if k < width:
        last_B, next_B = best_BK[:, k - 1], best_BK[:, k]
        best_BK, id_BK = best_BK[:, :k], id_BK[:, :k]
        # -inf means "not there": which of those columns were returned is of no interest.
        for row in ((last_B == next_B) & (last_B > -torch.inf)).nonzero()[:, 0].tolist():
            room = int((best_BK[row] == last_B[row]).sum())
            id_BK[row, k - room :] = (score_BV[row] == last_B[row]).nonzero()[:room, 0]
    id_BK, order_BK = torch.sort(id_BK, dim=1)
    best_BK, by_score_BK = torch.sort(best_BK.gather(1, order_BK), dim=1, descending=True, stable=True)
    return id_BK.gather(1, by_score_BK), best_BK


def forward(inputs: Inputs, *, tile_items: int | None = None) -> tuple[Tensor, Tensor]:
    """[B, k] ids and float32 scores (float64 for float64 inputs); -1 and -inf where none is left.

    Rows go in blocks; each block walks the catalogue in tiles, keeps its k best so far and
    merges. The best so far have smaller ids than the next tile, so a stable sort of
    [best, tile best] by score keeps ties in order of id.
    """
    query_BD, item_VD, k, bias_V, scale, exclude_offsets, exclude_item = inputs
    num_rows, num_items = query_BD.shape[0], item_VD.shape[0]
    dtype = torch.float64 if query_BD.dtype == torch.float64 else torch.float32
    device = query_BD.device
    id_out = torch.full((num_rows, k), -1, dtype=torch.int64, device=device)
    score_out = torch.full((num_rows, k), -torch.inf, dtype=dtype, device=device)
    for start in range(0, num_rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, num_rows)
        rows = slice(start, stop)
        query = query_BD[rows].to(dtype) * scale
        banned_row, banned_item = _banned(exclude_offsets, exclude_item, start, stop, device)
        tile = tile_items or max(k, _TILE_ELEMENTS // (stop - start))
        edges = [*range(0, num_items, tile), num_items]
        cuts = torch.searchsorted(banned_item, torch.tensor(edges, device=device)).tolist()
        for first, last, cut, next_cut in zip(edges, edges[1:], cuts, cuts[1:]):
            score = query @ item_VD[first:last].to(dtype).T
            if bias_V is not None:
                bias = bias_V[first:last].to(dtype)
                score += bias
                score.masked_fill_(bias == -torch.inf, -torch.inf)  # whatever its row holds
            score[banned_row[cut:next_cut], banned_item[cut:next_cut] - first] = -torch.inf
            item_id, best = select(score, min(k, last - first))
            best = torch.cat([score_out[rows], best], dim=1)
            item_id = torch.cat([id_out[rows], item_id + first], dim=1)
            best, order = torch.sort(best, dim=1, descending=True, stable=True)
            score_out[rows] = best[:, :k]
            id_out[rows] = item_id.gather(1, order)[:, :k]
    id_out[score_out == -torch.inf] = -1
    return id_out, score_out


def _banned(
    offsets: Tensor | None, item: Tensor | None, start: int, stop: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(row within the block, item) of what is excluded, sorted by item so that tiles are slices."""
    if offsets is None or item is None:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return none, none
    offsets = offsets[start : stop + 1]
    item = item[offsets[0] : offsets[-1]]
    row = torch.repeat_interleave(torch.arange(stop - start, device=item.device), offsets.diff())
    item, order = torch.sort(item)
    return row[order], item
