"""Exact ranks of targets in a factorised score, streaming over the catalogue."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels.target_ranks import reference
from fastpop.ops import _dispatch, _shared_ranking, catalogue, row_shard, validation
from fastpop.ops.row_shard import RowShard
from fastpop.types import Impl


class TargetRanks(NamedTuple):
    """Of each of M targets, and of each of B rows.

    greater, equal: [M] int64, how many other items that are not excluded score above the target, and
    level with it. Its position is 1 + greater + equal / 2, ties by halves.
    score: [M] nats, the target's own. lse: [B] nats, log of the sum over the whole catalogue, excluded
    items too, of exp(score): lse - score is the target's negative log-likelihood.
    """

    greater: Tensor
    equal: Tensor
    score: Tensor
    lse: Tensor


def target_ranks(
    query: Tensor,
    items: Tensor,
    target_offsets: Any,
    target_item: Any,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    exclude_offsets: Any = None,
    exclude_item: Any = None,
    padding_idx: int | None = None,
    shard: RowShard | None = None,
    impl: Impl = "auto",
) -> TargetRanks:
    """Where targets stand in scale * query @ items.T + bias, without the B x V scores.

    Exact: every item is scored and compared. Row b's targets are target_item[offsets[b]:offsets[b+1]];
    each is ranked by itself, among the others too unless these are excluded. A target that is excluded
    is ranked all the same, and an item of score -inf is level with a target of -inf.

    Args:
        query: [B, D] float16, bfloat16, float32 or float64; or [..., D], whose lse is [...].
        items: [V, D] floating point on the device of `query`. Half inputs are scored in float32.
        target_offsets: [B+1] int64. target_item: [M] int64 in [0, V).
        bias: [V] nats, added as given (popularity_weight * log p, say). -inf removes an item.
        scale: multiplies the dot product only; finite.
        exclude_offsets, exclude_item: [B+1] and [N] int64: what row b does not count, repeats allowed.
        padding_idx: a row of items that is no item: its score is -inf, and it is nobody's target.
        shard: items are this process's rows of a catalogue that several share; bias is of these rows, or of
            all, and all processes ask with the same queries, targets and exclusions. A DTensor with Shard(0)
            says so itself. Counts and scores are those of the whole, to the bit. Not for "triton".
        impl: "auto", "reference", "cpu" or "triton". A named one runs or raises.
    Returns:
        TargetRanks: greater, equal [M] int64; score [M] and lse [B] float32 (float64 for a float64
        query). The scores of "cpu" and of "triton" are bit for bit those of `top_items`.
    Raises:
        ValueError: wrong shape, id out of range, or a NaN score (names the row).
        TypeError: wrong dtype.
        NotImplementedError: a named implementation does not take these; lists each reason.
    Not for torch.compile(fullgraph=True): how many targets there are is read.
    Cost: 2*B*V*D FLOPs, B*V exponentials, two comparisons a target and item; some MiB of memory
        whatever V is (twice the products, and 16 MiB of scores, for the reference; a row's products
        once for each of its targets for "triton").
    """
    found = ranks_or_nan(
        query,
        items,
        target_offsets,
        target_item,
        bias=bias,
        scale=scale,
        exclude_offsets=exclude_offsets,
        exclude_item=exclude_item,
        padding_idx=padding_idx,
        shard=shard,
        impl=impl,
    )
    bad = found.lse.reshape(-1).isnan().nonzero()
    if bad.shape[0]:
        raise checks.wrong(
            "query, items, bias", "scores that are numbers", text=f"NaN in row {int(bad[0, 0])}"
        )
    return found


def ranks_or_nan(
    query: Tensor,
    items: Tensor,
    target_offsets: Any,
    target_item: Any,
    *,
    bias: Tensor | None,
    scale: float,
    exclude_offsets: Any,
    exclude_item: Any,
    padding_idx: int | None = None,
    shard: RowShard | None = None,
    impl: Impl = "auto",
) -> TargetRanks:
    """`target_ranks` for callers that name the row themselves: its lse is NaN where a score is."""
    items, shard = row_shard.part_of(items, shard, "same")
    padding_here = padding_idx
    if shard is not None:
        bias = row_shard.vector_of("bias", bias, shard, len(items))
        padding_here = shard.place_of(padding_idx, len(items))
    query, lead, bias = catalogue.check_scored(query, items, bias, scale, padding_here)
    num_items = items.shape[0] if shard is None else shard.num_items
    target_offsets, target_item = catalogue.check_lists(
        ("target_offsets", "target_item"), target_offsets, target_item, query, num_items
    )
    if padding_idx is not None and bool((target_item == padding_idx).any()):
        raise checks.wrong(
            "target_item",
            "no target that is padding_idx",
            text=f"{padding_idx} at position {int((target_item == padding_idx).nonzero()[0, 0])}",
        )
    excluded = catalogue.check_exclusions(exclude_offsets, exclude_item, query, num_items)
    inputs = reference.Inputs(query, items, target_offsets, target_item, bias, float(scale), *excluded)

    def ranked(inputs: reference.Inputs) -> tuple[Tensor, ...]:
        return _dispatch.choose("target_ranks", impl, query.device.type, inputs).forward(inputs)

    with torch.no_grad(), validation.without_autocast(query):
        found = ranked(inputs) if shard is None else _shared_ranking.target_ranks(ranked, inputs, shard)
    greater, equal, score, lse = found
    return TargetRanks(greater, equal, score, lse.view(lead))
