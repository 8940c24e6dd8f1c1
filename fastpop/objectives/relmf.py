"""Rel-MF: the relevance of items from clicks that need exposure, too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, deprecated, registry
from fastpop.objectives.item_rows import ItemRows, draw_of_rows
from fastpop.objectives.options import MOST_NEGATIVES, LossInputs, Objective
from fastpop.ops import RowShard
from fastpop.ops.draw import Draw
from fastpop.popularity import InBatch, Proposal
from fastpop.propensity import popularity_propensity


@deprecated.options
@dataclass(frozen=True)
class RelMf(Objective):
    """Binary cross-entropy of relevance r, P(click) = r p, p an item's exposure (Saito et al., WSDM 2020).

    An event counts as d1/p + (1 - 1/p) d0, any other pair as d0, d1 = -log sigmoid(score), d0 = d1 + score:
    on average r d1 + (1 - r) d0. All pairs' d0 come from draws of the proposal, over their chance.

    power, clip: p = max(clip, (count / largest count)^power). non_negative: without (1 - 1/p) d0, no longer
    unbiased (Saito, SIGIR 2020); else a click of p < 1 pulls its score up without end. events_per_context:
    a row brings one event and this part of its context's pairs. negatives: draws a row. error: "log", or
    "squared", d1 = (1 - sigmoid(score))^2, d0 = sigmoid(score)^2, as the source's code has it on a real log.
    """

    name: ClassVar[str] = "relmf"
    needs: ClassVar[Literal["catalogue", "negatives"]] = "negatives"
    logits: ClassVar[bool] = False
    takes_shard: ClassVar[bool] = True
    RENAMED: ClassVar[Mapping[str, str]] = {"num_negatives": "negatives"}
    power: float = 0.5
    clip: float = 0.1
    non_negative: bool = False
    events_per_context: float = 10.0
    negatives: int = 64
    error: Literal["log", "squared"] = "log"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.power", self.power, ge=0)
        checks.number("loss.clip", self.clip, gt=0, le=1)
        checks.number("loss.events_per_context", self.events_per_context, gt=0)
        checks.number("loss.negatives", self.negatives, ge=1, le=MOST_NEGATIVES, integer=True)

    def build(self, given: LossInputs) -> "RelMfLoss":
        proposal = given.distribution()
        if isinstance(proposal, InBatch) or np.isneginf(proposal.log_proposal_V).any():
            raise checks.wrong("proposal", "one that draws every item, for 'relmf'", str(given.proposal))
        propensity_V = np.maximum(popularity_propensity(given.event_counts(), self.power), self.clip)
        return RelMfLoss(self, propensity_V, proposal, given.seed)


class RelMfLoss(nn.Module):
    propensity_V: Tensor

    def __init__(self, options: RelMf, propensity_V: np.ndarray, proposal: Proposal, seed: int) -> None:
        super().__init__()
        self.options, self.proposal, self.seed = options, proposal, seed
        self.register_buffer("propensity_V", torch.from_numpy(propensity_V).float(), persistent=False)

    def forward(
        self,
        query: Tensor,
        items: Tensor,
        pos_id: Tensor,
        *,
        row_weight: Tensor | None,
        log_prior: Tensor | None,
        prior_weight: Any,
        scale: Any,
        step: int,
        shard: RowShard | None = None,
    ) -> Tensor:
        drawn = Draw(self.proposal, self.seed, step, self.options.negatives, 1)
        neg_id_RK = draw_of_rows(drawn, len(pos_id), items.device, shard)
        id_RJ = torch.cat([pos_id[:, None], neg_id_RK], 1)
        rows = ItemRows(items, log_prior, id_RJ, shard=shard)
        score_RJ = scale * torch.einsum("rd,rjd->rj", query, rows.vectors(id_RJ)).float()
        if log_prior is not None:
            score_RJ = score_RJ + prior_weight * rows.log_p(id_RJ)
        options = self.options
        loss_R = event_loss(score_RJ[:, 0], self.propensity_V[pos_id], options.non_negative, options.error)
        share_RK = torch.exp(-self.proposal.log_proposal_on(items.device, torch.float32)[neg_id_RK])
        missed_RK = errors(score_RJ[:, 1:], options.error)[1]
        loss_R = loss_R + (share_RK * missed_RK).mean(1) / options.events_per_context
        return (loss_R if row_weight is None else loss_R * row_weight).sum()


def errors(score: Tensor, error: str = "log") -> tuple[Tensor, Tensor]:
    """(d1, d0): what a score is off by where a pair is relevant, and where it is not."""
    if error == "squared":
        return torch.sigmoid(-score).square(), torch.sigmoid(score).square()
    return F.softplus(-score), F.softplus(score)


def event_loss(score: Tensor, propensity: Tensor, non_negative: bool = False, error: str = "log") -> Tensor:
    """What an event adds to the sum of d0 over all pairs: (d1 - d0)/p; non_negative: d1/p - d0."""
    d1, d0 = errors(score, error)
    if non_negative:
        return d1 / propensity - d0
    return (-score if error == "log" else d1 - d0) / propensity  # of a log the difference, without rounding


registry.ours("loss", RelMf)
