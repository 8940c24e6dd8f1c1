"""Popularity-bias deconfounding: BPR in which popularity multiplies what the model says."""

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


@deprecated.options
@dataclass(frozen=True)
class Pda(Objective):
    """-log sigmoid(score of the positive - score of a negative), score = (ELU(f) + 1) m^power: f is what the
    model says, m an item's share of the training events. f alone is then served free of popularity, or
    `evaluation.injected_scorer` multiplies a later or a forecast popularity in.

    power: γ >= 0, of m of all training events (the paper's PDG). negatives: a row, drawn from the
    proposal; their losses are averaged.
    A log p beside the dot product (a prior other than "none") multiplies by p^weight. So the paper's PD and
    PDA, with the popularity of the period of each event, are power=0 beside `ByPeriod(weight=γ)`: m is then
    p_t, shrunk towards all events, and `ByPeriod(drift=α)` keeps the forecast of what comes.
    Source: Zhang et al., SIGIR 2021 (arXiv:2105.06067).
    """

    name: ClassVar[str] = "pda"
    needs: ClassVar[Literal["catalogue", "negatives"]] = "negatives"
    logits: ClassVar[bool] = False
    takes_shard: ClassVar[bool] = True
    RENAMED: ClassVar[Mapping[str, str]] = {"num_negatives": "negatives"}
    power: float = 0.1
    negatives: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.power", self.power, ge=0)
        checks.number("loss.negatives", self.negatives, ge=1, le=MOST_NEGATIVES, integer=True)

    def build(self, given: LossInputs) -> "PdaLoss":
        proposal = given.distribution()
        if isinstance(proposal, InBatch):
            raise checks.wrong("proposal", "one that draws, for 'pda'", str(given.proposal))
        counts_V = given.event_counts()
        return PdaLoss(self, counts_V / counts_V.sum(), proposal, given.seed)


class PdaLoss(nn.Module):
    factor_V: Tensor

    def __init__(self, options: Pda, popularity_V: np.ndarray, proposal: Proposal, seed: int) -> None:
        super().__init__()
        self.options, self.proposal, self.seed = options, proposal, seed
        factor_V = torch.from_numpy(popularity_V**options.power).float()
        self.register_buffer("factor_V", factor_V, persistent=False)

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
        said_RJ = scale * torch.einsum("rd,rjd->rj", query, rows.vectors(id_RJ)).float()
        score_RJ = (F.elu(said_RJ) + 1) * self.factor_V[id_RJ]
        if log_prior is not None:
            score_RJ = score_RJ * torch.exp(prior_weight * rows.log_p(id_RJ))
        loss_R = F.softplus(score_RJ[:, 1:] - score_RJ[:, :1]).mean(1)
        return (loss_R if row_weight is None else loss_R * row_weight).sum()


registry.ours("loss", Pda)
