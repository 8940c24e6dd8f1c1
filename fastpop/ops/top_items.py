"""Exact top-k items of a factorised score, streaming over the catalogue."""

from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels.top_items import reference
from fastpop.ops import _dispatch, _shared_ranking, catalogue, row_shard, validation
from fastpop.ops.row_shard import RowShard
from fastpop.types import Impl


def top_items(
    query: Tensor,
    items: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    exclude_offsets: Any = None,
    exclude_item: Any = None,
    padding_idx: int | None = None,
    shard: RowShard | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """torch.topk(scale * query @ items.T + bias, k), without the B x V scores.

    Exact: every item is scored. Equal scores go to the smaller id. An item whose score is -inf
    is never returned. A row with fewer than k items left (catalogue too small, or all excluded)
    ends in id -1 and score -inf.

    Args:
        query: [B, D] float16, bfloat16, float32 or float64; or [..., D], whose lists are [..., k].
        items: [V, D] floating point on the device of `query`. Half inputs are scored in float32.
        k: items a row, >= 1.
        bias: [V] nats, added as given (popularity_weight * log p, say). -inf removes an item.
        scale: multiplies the dot product only; finite.
        exclude_offsets: [B+1] int64; row b must not get exclude_item[offsets[b]:offsets[b+1]].
        exclude_item: [M] int64 in [0, V); repeats are allowed. Rows of a [..., D] query are in order.
        padding_idx: a row of items that is no item, and is never returned.
        shard: items are this process's rows of a catalogue that several share; bias is of these rows, or of
            all, and all processes ask with the same queries and exclusions. A DTensor with Shard(0) says so
            itself. The lists are those of the whole, to the bit.
        impl: "auto", "reference", "cpu" or "triton". A named one runs or raises.
    Returns:
        item_id [B, k] int64 and score [B, k] (float32; float64 for a float64 query), best first.
    Raises:
        ValueError: wrong shape, id out of range, k < 1, or a NaN score (names the row).
        TypeError: wrong dtype.
        NotImplementedError: a named implementation does not take these; lists each reason.
    Not for torch.compile(fullgraph=True): how many exclusions there are is read.
    Cost: 2*B*V*D FLOPs plus a selection pass. Memory, whatever B and V are: 16 MiB of score tile
    (reference), 2 MiB of candidates a thread (cpu), some 128 MiB of maxima and candidates (triton). Over N
    processes 2*B*V*D/N FLOPs each, and 12 B k bytes that each sends to every other.
    """
    items, shard = row_shard.part_of(items, shard, "same")
    if shard is not None:
        asked = {"bias": bias, "scale": scale, "padding_idx": padding_idx, "impl": impl}
        lists = {"exclude_offsets": exclude_offsets, "exclude_item": exclude_item}
        return _shared_ranking.top_items(top_items, query, items, k, shard, lists, asked)
    query, lead, bias = catalogue.check_scored(query, items, bias, scale, padding_idx)
    checks.number("k", k, ge=1, integer=True)
    exclude_offsets, exclude_item = catalogue.check_exclusions(
        exclude_offsets, exclude_item, query, items.shape[0]
    )
    inputs = reference.Inputs(query, items, int(k), bias, float(scale), exclude_offsets, exclude_item)
    module = _dispatch.choose("top_items", impl, query.device.type, inputs)
    with torch.no_grad(), validation.without_autocast(query):
        item_id, score = module.forward(inputs)
    # topk ranks NaN above all numbers, so a NaN anywhere in a row reaches its best k.
    bad = score.isnan().any(1).nonzero()
    if bad.shape[0]:
        raise checks.wrong(
            "query, items, bias", "scores that are numbers", text=f"NaN in row {int(bad[0, 0])}"
        )
    return item_id.view(*lead, int(k)), score.view(*lead, int(k))


def best_columns(score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk(score, k) with equal scores in order of column: (column [B, k], score [B, k]).

    For scores that exist already, [B, V], free of NaN, k <= V. Which -inf columns fill a row that
    has fewer than k others is left open.
    """
    checks.number("k", k, ge=1, le=score.shape[1], integer=True)
    return reference.select(score, k)
