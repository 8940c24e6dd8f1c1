"""Ranks of targets in Triton: one pass over the catalogue on tensor cores, no score written down.

1. `pairs_kernel`: the scores of the targets, and of what is excluded.
2. `ranks_kernel`, one launch for all rows: of every target how many scores stand above and below it, and each
   row's log-sum-exp, over ranges of the catalogue.
3. `finish_kernel`: the counts of the ranges added, what is excluded taken off again.

A score has the bits that it has in `top_items`, so lists and positions agree: kernels/top_items/_triton.py
says why. A row is walked once for each of its targets. The host waits for nothing.

Cost: 2 M V D FLOPs and M V exponentials for M targets, and 2 BLOCK_B D for each and each excluded item.
Memory: 4 bytes an item, 8 a target and split, 4 a row and split, 24 an excluded item.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from fastpop.kernels import triton_tiles
from fastpop.kernels.target_ranks import _triton_kernels as kernels
from fastpop.kernels.target_ranks.reference import Inputs
from fastpop.kernels.triton_tiles import MAXIMA, Tile


def unsupported(inputs: Inputs) -> str | None:
    reason = triton_tiles.unsupported(inputs.query_BD, inputs.item_VD)
    if reason is None and inputs.own_M is not None:
        return "targets whose scores are given: these kernels make them"
    slots = inputs.query_BD.shape[0] + inputs.target_item.shape[0]
    if reason is None and slots > triton_tiles.MAX_ROWS:
        return f"{slots} rows and targets, these kernels count up to {triton_tiles.MAX_ROWS}"
    return reason


def forward(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Equals `reference.forward` within rounding of the scores."""
    num_rows, num_items = inputs.query_BD.shape[0], inputs.item_VD.shape[0]
    num_targets, device = inputs.target_item.shape[0], inputs.query_BD.device
    score_M = torch.empty(num_targets, dtype=torch.float32, device=device)
    if num_rows == 0 or num_items == 0:  # and so no target
        greater_M, equal_M = (torch.empty_like(inputs.target_item) for _ in range(2))
        return greater_M, equal_M, score_M, score_M.new_full((num_rows,), -torch.inf)
    tile = triton_tiles.choose(
        MAXIMA, device, inputs.query_BD.shape[1], triton_tiles.dot_dtype(inputs.query_BD, inputs.item_VD)
    )
    inputs = inputs._replace(bias_V=triton_tiles.padded_bias(inputs.bias_V, num_items, tile, device))
    num_tiles = triton.cdiv(num_items, tile.candidates)
    splits, steps = triton_tiles.split(triton.cdiv(max(num_targets, num_rows), tile.rows), num_tiles, device)
    lse_SB = score_M.new_empty(splits, num_rows)
    targets = {
        "target_ptr": _pairs(inputs.target_offsets, inputs.target_item, num_items),
        "own_ptr": score_M,
        "count_ptr": torch.empty(2, splits, num_targets, dtype=torch.int32, device=device),
        "num_targets": num_targets,
    }
    with triton_tiles.on_device(inputs.query_BD):
        _score_pairs(inputs, tile, targets["target_ptr"], score_M)
        triton_tiles.launch(
            kernels.ranks_kernel,
            (triton.cdiv(num_targets + num_rows, tile.rows), splits),
            **targets,
            **_scored(inputs, tile),
            target_offsets_ptr=inputs.target_offsets.contiguous(),
            num_rows=num_rows,
            num_tiles=num_tiles,
            split_tiles=steps,
            lse_ptr=lse_SB,
        )
        greater_M, equal_M = _finished(inputs, tile, targets, splits)
    return greater_M, equal_M, score_M, lse_SB[0] if splits == 1 else torch.logsumexp(lse_SB, 0)


def _finished(inputs: Inputs, tile: Tile, targets: dict[str, Any], num_splits: int) -> tuple[Tensor, Tensor]:
    """(greater, equal) [M] int64 of the splits' counts."""
    greater_M, equal_M = (torch.empty_like(inputs.target_item) for _ in range(2))
    num_items, offsets, item_N = inputs.item_VD.shape[0], inputs.exclude_offsets, inputs.exclude_item
    pair_N = score_N = None
    if offsets is not None and item_N is not None:
        # Sorted, so that repeats stand side by side.
        pair_N = _pairs(offsets, item_N, num_items).sort().values
        score_N = torch.empty_like(pair_N, dtype=torch.float32)
        _score_pairs(inputs, tile, pair_N, score_N)
        offsets = offsets.contiguous()
    targets_a_program = 16
    _launch_for(
        greater_M,
        targets_a_program,
        kernels.finish_kernel,
        **targets,
        exclude_offsets_ptr=offsets,
        excluded_ptr=pair_N,
        score_ptr=score_N,
        greater_ptr=greater_M,
        equal_ptr=equal_M,
        num_items=num_items,
        num_splits=num_splits,
        num_columns=triton.cdiv(num_items, tile.candidates) * tile.candidates,
        BLOCK_M=targets_a_program,
        BLOCK_N=64,
    )
    return greater_M, equal_M


def _score_pairs(inputs: Inputs, tile: Tile, pair_N: Tensor, score_N: Tensor) -> None:
    _launch_for(
        pair_N,
        min(tile.rows, tile.candidates),
        kernels.pairs_kernel,
        place_ptr=pair_N,
        score_ptr=score_N,
        num_pairs=len(pair_N),
        **_scored(inputs, tile),
    )


def _launch_for(owned_N: Tensor, a_program: int, kernel: Any, **arguments: Any) -> None:
    if len(owned_N):
        triton_tiles.launch(kernel, (triton.cdiv(len(owned_N), a_program),), **arguments)


def _scored(inputs: Inputs, tile: Tile) -> dict[str, Any]:
    """What the kernels take that make scores."""
    return {
        "query_ptr": inputs.query_BD,
        "item_ptr": inputs.item_VD,
        "bias_ptr": inputs.bias_V,
        "num_items": inputs.item_VD.shape[0],
        "dim": inputs.query_BD.shape[1],
        "scale": inputs.scale,
        **triton_tiles.strides(inputs.query_BD, inputs.item_VD),
        "BLOCK_V": tile.candidates,
        **triton_tiles.constants(inputs.query_BD, inputs.item_VD, tile),
    }


def _pairs(offsets: Tensor, item_N: Tensor, num_items: int) -> Tensor:
    """row * num_items + item [N] of what rows list, int64."""
    row_B = torch.arange(len(offsets) - 1, device=offsets.device) * num_items
    return torch.repeat_interleave(row_B, offsets.diff(), output_size=len(item_N)) + item_N
