"""DirectAU: alignment of queries with their positives, and uniformity of both on the sphere."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, registry
from fastpop.objectives.candidates import in_float32
from fastpop.objectives.options import LossInputs, Objective, need_others
from fastpop.popularity import ProposalOptions


@in_float32
def alignment(one_RD: Tensor, two_RD: Tensor) -> Tensor:
    """[R] squared distances between unit vectors (Wang & Isola 2020, alpha = 2)."""
    return (F.normalize(one_RD, dim=1) - F.normalize(two_RD, dim=1)).square().sum(1)


@in_float32
def uniformity(row_RD: Tensor) -> Tensor:
    """log of the mean over pairs of exp(-2 squared distance) between unit vectors: 0 where all are one,
    falling as they spread (Wang & Isola 2020, t = 2). A scalar; 0 for fewer than two rows. O(R^2 D)."""
    num_rows = len(row_RD)
    if num_rows < 2:
        return 0 * row_RD.sum()
    unit_RD = F.normalize(row_RD, dim=1)
    at = torch.triu_indices(num_rows, num_rows, 1, device=row_RD.device)
    distance_P = 2 - 2 * (unit_RD @ unit_RD.T)[at[0], at[1]]
    return torch.logsumexp(-2 * distance_P, 0) - math.log(at.shape[1])


@dataclass(frozen=True)
class DirectAU(Objective):
    """Alignment + gamma times the mean uniformity of queries and of positives (Wang et al. 2022, DirectAU).

    No negatives are drawn: the rows of a batch spread. Vectors count by direction alone, and there is no
    score for log p to stand in, so it trains with prior="none".

    gamma: of uniformity; the original tunes it between .2 and 10.
    """

    name: ClassVar[str] = "directau"
    logits: ClassVar[bool] = False
    row_gradients: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    reads_rows: ClassVar[bool] = True
    takes_prior: ClassVar[bool] = False
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.gamma", self.gamma, ge=0)

    def check(self, dim: int, rows: int, proposal: ProposalOptions) -> None:
        if self.gamma:
            need_others(self, rows)

    def build(self, given: LossInputs) -> nn.Module:
        return _DirectAULoss(self.gamma, given.sparse)


class _DirectAULoss(nn.Module):
    def __init__(self, gamma: float, sparse: bool) -> None:
        super().__init__()
        self.gamma, self.sparse = gamma, sparse

    def forward(
        self, query: Tensor, items: Tensor, pos_id: Tensor, *, row_weight: Tensor | None, **terms: object
    ) -> Tensor:
        row = F.embedding(pos_id, items, sparse=self.sparse and items.is_leaf)
        spread = self.gamma * (uniformity(query) + uniformity(row)) / 2
        loss_R = alignment(query, row) + spread
        return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()


registry.ours("loss", DirectAU)
