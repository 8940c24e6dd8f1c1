"""Jean et al.'s partitions: a softmax over the items that a part of the training set predicts."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import registry
from fastpop.objectives.candidates import wide
from fastpop.objectives.different import different_ids
from fastpop.objectives.options import LossInputs, Objective, need_others
from fastpop.popularity import ProposalOptions


@dataclass(frozen=True)
class PartitionedSoftmax(Objective):
    """Cross-entropy over the different items that a partition of the training rows predicts (Jean et al.
    2015).

    Each partition i has its own shortlist V'_i and the proposal that is uniform on it; all of it is used, so
    the correction log q is one number and cancels. A batch is a partition here: batch_size says how large
    shortlists become. A row sees each item once, however often it is a target, and rare items seldom: what
    it learns lies between log p(i|c) less the log chance that i is in a shortlist, and log p(i|c) where the
    shortlist is the catalogue.
    """

    name: ClassVar[str] = "partitioned_softmax"
    logits: ClassVar[bool] = True
    row_gradients: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    reads_rows: ClassVar[bool] = True

    def check(self, dim: int, rows: int, proposal: ProposalOptions) -> None:
        need_others(self, rows)

    def build(self, given: LossInputs) -> nn.Module:
        return _PartitionedSoftmaxLoss(given.sparse)


class _PartitionedSoftmaxLoss(nn.Module):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.sparse = sparse

    def forward(
        self,
        query: Tensor,
        items: Tensor,
        pos_id: Tensor,
        *,
        row_weight: Tensor | None,
        log_prior: Tensor | None,
        prior_weight: float | Tensor,
        scale: float | Tensor,
    ) -> Tensor:
        shortlist, place, again = different_ids(pos_id)
        row = F.embedding(shortlist, items, sparse=self.sparse and items.is_leaf)
        score = wide(query @ row.T) * scale
        if log_prior is not None:
            score = score + prior_weight * log_prior[shortlist]
        if again is not None:
            score = score.masked_fill(again, -torch.inf)
        loss_R = F.cross_entropy(score, place, reduction="none")
        return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()


registry.ours("loss", PartitionedSoftmax)
