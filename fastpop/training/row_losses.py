"""The sum of the rows' losses: in one call, or in one for each period that they are of."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from fastpop import checks
from fastpop.data.batches import PAD, Batch
from fastpop.objectives import ItemRows
from fastpop.ops import all_rows
from fastpop.training.build import Assembly
from fastpop.training.resident import ResidentBatch


def summed_loss(
    parts: Assembly,
    batch: Batch | ResidentBatch,
    query_RD: Tensor,
    item_VD: Tensor,
    pos_id_R: Tensor,
    weight_R: Tensor | None,
    terms: dict[str, Any],
    whole: Batch | ResidentBatch | None = None,
) -> Tensor:
    """What the loss of an assembly gives for the rows of a batch, which may be a part of one.

    terms: log_prior, prior_weight and scale, and step for a loss that draws. With a prior by period, rows of
    period t are beside log p_t, and all see the draws of the same step. whole: of which these are a
    process's rows, which is in every call that the others make, with no rows of its own, too.
    """
    loss = parts.loss
    if terms.get("shard") is not None and parts.config.loss_part.reads_rows:
        return _of_all_rows(parts, query_RD, item_VD, pos_id_R, weight_R, terms)
    if parts.period_log_prior_TV is None:
        return scalar_of(loss, loss(query_RD, item_VD, pos_id_R, row_weight=weight_R, **terms))
    period_R = _periods(parts, batch)
    total: Tensor | None = None
    for period in np.unique(period_R if whole is None else _periods(parts, whole)):
        beside = terms | {"log_prior": parts.period_log_prior_TV[period]}
        rows = (query_RD, pos_id_R, weight_R)
        if (period_R != period).any():
            at_R = parts.model.upload(np.flatnonzero(period_R == period))
            rows = (query_RD[at_R], pos_id_R[at_R], None if weight_R is None else weight_R[at_R])
        found = scalar_of(loss, loss(rows[0], item_VD, rows[1], row_weight=rows[2], **beside))
        total = found if total is None else total + found
    if total is None:  # a part of a batch without a target
        total = scalar_of(loss, loss(query_RD, item_VD, pos_id_R, row_weight=weight_R, **terms))
    return total


def _of_all_rows(
    parts: Assembly,
    query_RD: Tensor,
    item_nD: Tensor,
    pos_id_R: Tensor,
    weight_R: Tensor | None,
    terms: dict[str, Any],
) -> Tensor:
    """A loss that compares rows, made by each of several processes of the rows of all: its share of it."""
    loss, shard = parts.loss, terms["shard"]
    query_ND, pos_id_N = all_rows(query_RD, shard=shard), all_rows(pos_id_R, shard=shard)
    weight_N = None if weight_R is None else all_rows(weight_R, shard=shard)
    rows = ItemRows(item_nD, terms["log_prior"], pos_id_N, sparse=parts.config.sparse, shard=shard)
    given = {name: value for name, value in terms.items() if name != "shard"} | {"log_prior": rows.log_prior}
    found = loss(query_ND, rows.items, rows.places(pos_id_N), row_weight=weight_N, **given)
    return scalar_of(loss, found) / shard.size


def _periods(parts: Assembly, batch: Any) -> np.ndarray:
    """[R] of the rows that `Recommender.rows` gives."""
    if batch.period is None:
        raise checks.wrong(
            f"rows {parts.model.train_rows}",
            "batches that say the periods of their targets, as dated rows do",
            text="none",
        )
    checks.shape("period", batch.period, batch.target.shape)
    return batch.period if batch.history is None else batch.period[batch.target != PAD]


def scalar_of(module: nn.Module, value: Any) -> Tensor:
    """What a loss or a regulariser gave, which somebody else may have written."""
    name = f"{type(module).__name__}.forward"
    if not isinstance(value, Tensor):
        raise checks.wrong_type(name, "a scalar tensor, the sum over rows", value)
    if value.ndim or not value.requires_grad:
        text = None if value.ndim else "one without a gradient"
        raise checks.wrong(name, "a scalar tensor with a gradient, the sum over rows", value, text=text)
    return value
