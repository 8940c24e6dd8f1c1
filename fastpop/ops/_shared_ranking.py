"""Lists and ranks over a catalogue whose rows processes share: each ranks its own, and what they found is put
together. A score has the same bits wherever its item's row lies, so the whole has those of one process."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels.target_ranks.reference import Inputs
from fastpop.ops import catalogue, collectives, row_shard, validation
from fastpop.ops.row_shard import RowShard


def top_items(
    of_rows: Callable[..., tuple[Tensor, Tensor]],
    query: Any,
    items: Tensor,
    k: Any,
    shard: RowShard,
    lists: dict[str, Any],
    asked: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """The k best of all parts: equal scores by the smaller id, as `of_rows`, the op on rows, orders them."""
    _asked_together(shard)
    num_rows = len(items)
    query, lead = validation.flat_rows("query", query)
    asked["bias"] = row_shard.vector_of("bias", asked["bias"], shard, num_rows)
    asked["padding_idx"] = shard.place_of(asked["padding_idx"], num_rows)
    offsets, item = catalogue.check_exclusions(
        lists["exclude_offsets"], lists["exclude_item"], query, shard.num_items
    )
    if offsets is not None and item is not None:
        offsets, item, _ = _of_part(offsets, item, shard, num_rows)
    checks.number("k", k, ge=1, integer=True)
    if num_rows:
        ids_BK, score_BK = of_rows(query, items, k, exclude_offsets=offsets, exclude_item=item, **asked)
        ids_BK = torch.where(ids_BK >= 0, ids_BK + shard.first, -1)
    else:
        ids_BK = torch.full((len(query), k), -1, dtype=torch.int64, device=query.device)
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        score_BK = torch.full(ids_BK.shape, -torch.inf, dtype=dtype, device=query.device)
    # [processes, B, k] -> [B, processes * k]
    ids_BN, score_BN = (
        collectives.gathered(one[None], None, shard.group).movedim(0, 1).flatten(1)
        for one in (ids_BK, score_BK)
    )
    ids_BN, order = torch.sort(ids_BN, dim=1)
    score_BN, by_score = torch.sort(score_BN.gather(1, order), dim=1, descending=True, stable=True)
    ids_BN = ids_BN.gather(1, by_score)
    ids_BK, score_BK = ids_BN[:, :k].contiguous(), score_BN[:, :k].contiguous()
    return ids_BK.view(*lead, k), score_BK.view(*lead, k)


def target_ranks(
    ranked: Callable[[Inputs], tuple[Tensor, ...]], inputs: Inputs, shard: RowShard
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(greater, equal, score [M], lse [B]) over all parts: the targets' scores, from who has their rows; then
    how many rows of each part are above. inputs: ids of the catalogue, rows of this part."""
    _asked_together(shard)
    num_rows, query = len(inputs.item_VD), inputs.query_BD
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    target_M = inputs.target_item
    here_M = shard.holds(target_M, num_rows)
    own_M = torch.zeros(len(target_M), dtype=dtype, device=query.device)
    offsets, item, places = _of_part(inputs.target_offsets, target_M, shard, num_rows)
    if len(item):
        ids, place = torch.unique(item, return_inverse=True)
        bias = None if inputs.bias_V is None else inputs.bias_V[ids]
        rows = Inputs(query, inputs.item_VD[ids], offsets, place, bias, inputs.scale, None, None)
        own_M[places] = ranked(rows)[2]
    own_M = collectives.total(own_M, shard.group)
    greater_M, equal_M = (torch.zeros_like(target_M) for _ in range(2))
    lse_B = torch.full((len(query),), -torch.inf, dtype=dtype, device=query.device)
    if num_rows:
        inputs = inputs._replace(target_item=torch.where(here_M, target_M - shard.first, -1), own_M=own_M)
        if inputs.exclude_offsets is not None and inputs.exclude_item is not None:
            offsets, item, _ = _of_part(inputs.exclude_offsets, inputs.exclude_item, shard, num_rows)
            inputs = inputs._replace(exclude_offsets=offsets, exclude_item=item)
        greater_M, equal_M, _, lse_B = ranked(inputs)
    greater_M, equal_M = collectives.total(torch.stack([greater_M, equal_M]), shard.group)
    lse_SB = collectives.gathered(lse_B[None], None, shard.group)
    return greater_M, equal_M, own_M, lse_SB.logsumexp(0)


def _asked_together(shard: RowShard) -> None:
    if shard.queries != "same":
        raise checks.wrong(
            "shard", "queries='same' in ranking, where all processes ask together", text=f"{shard.queries!r}"
        )


def _of_part(offsets: Tensor, item: Tensor, shard: RowShard, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of lists of ids, those of this part's rows as places in it: (offsets, places, which they were)."""
    here = shard.holds(item, num_rows)
    before = torch.cat([offsets.new_zeros(1), here.cumsum(0)])
    return before[offsets], item[here] - shard.first, here
