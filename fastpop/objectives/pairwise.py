"""Losses of differences between the positive's score and negatives': BPR, and GRU4Rec's."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, registry
from fastpop.objectives.candidates import CandidateLoss
from fastpop.objectives.options import MOST_NEGATIVES, LossInputs, Objective, need_others
from fastpop.popularity import ProposalOptions


def bpr(pos_R: Tensor, neg_RK: Tensor) -> Tensor:
    """Mean over k of -log sigmoid(pos - neg_k), [R] nats."""
    return -F.logsigmoid(pos_R[:, None] - neg_RK).mean(1)


def bpr_max(pos_R: Tensor, neg_RK: Tensor, score_weight: float = 1.0) -> Tensor:
    """-log sum over k of s_k sigmoid(pos - neg_k), + score_weight * sum of s_k neg_k^2, [R]; s the softmax of
    the negatives' scores."""
    log_s_RK = F.log_softmax(neg_RK, 1)
    loss_R = -torch.logsumexp(log_s_RK + F.logsigmoid(pos_R[:, None] - neg_RK), 1)
    return loss_R + score_weight * (log_s_RK.exp() * neg_RK.square()).sum(1)


def top1(pos_R: Tensor, neg_RK: Tensor) -> Tensor:
    """Mean over k of sigmoid(neg_k - pos) + sigmoid(neg_k^2), [R]."""
    return _top1_terms(pos_R, neg_RK).mean(1)


def top1_max(pos_R: Tensor, neg_RK: Tensor) -> Tensor:
    """Sum over k of s_k (sigmoid(neg_k - pos) + sigmoid(neg_k^2)), [R]; s the softmax of the negatives'."""
    return (F.softmax(neg_RK, 1) * _top1_terms(pos_R, neg_RK)).sum(1)


def _top1_terms(pos_R: Tensor, neg_RK: Tensor) -> Tensor:
    return torch.sigmoid(neg_RK - pos_R[:, None]) + torch.sigmoid(neg_RK.square())


@dataclass(frozen=True)
class BPR(Objective):
    """Bayesian personalised ranking (Rendle et al. 2009): -log sigmoid(pos - neg), negatives of each row.

    Its optimum is log p(i|c) - log q(i), up to a constant a context. The original draws among items that
    the user has not; here a negative equal to the positive stays, and adds log 2.

    negatives: k, whose mean a row's loss is.
    """

    name: ClassVar[str] = "bpr"
    needs: ClassVar[Literal["catalogue", "negatives"]] = "negatives"
    logits: ClassVar[bool] = False
    row_gradients: ClassVar[bool] = True
    takes_shard: ClassVar[bool] = True
    negatives: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.negatives", self.negatives, ge=1, le=MOST_NEGATIVES, integer=True)

    @property
    def uncorrected(self) -> bool:
        return True

    def check(self, dim: int, rows: int, proposal: ProposalOptions) -> None:
        if proposal.in_batch:
            need_others(self, rows)

    def build(self, given: LossInputs) -> nn.Module:
        return _BPRLoss(given, self.negatives)


class _BPRLoss(CandidateLoss):
    def compare(self, pos_R: Tensor, neg_RK: Tensor) -> Tensor:
        return bpr(pos_R, neg_RK)


@dataclass(frozen=True)
class TOP1(Objective):
    """TOP1 of GRU4Rec (Hidasi et al. 2016): how many negatives stand above the positive, softly, and their
    squared scores.

    Negatives are the other rows' positives, and draws that all rows share (Hidasi & Karatzoglou 2018).
    Scores go in as they are: an activation before it, as GRU4Rec can have one, is no part of the loss.

    negatives: draws beside the batch; 0: the batch alone.
    """

    name: ClassVar[str] = "top1"
    needs: ClassVar[Literal["catalogue", "negatives"]] = "negatives"
    logits: ClassVar[bool] = False
    row_gradients: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    takes_shard: ClassVar[bool] = True
    negatives: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.negatives", self.negatives, ge=0, le=MOST_NEGATIVES, integer=True)

    def check(self, dim: int, rows: int, proposal: ProposalOptions) -> None:
        if proposal.in_batch or not self.negatives:
            need_others(self, rows)

    def build(self, given: LossInputs) -> nn.Module:
        return _TOP1Loss(given, self.negatives, in_batch=True)


class _TOP1Loss(CandidateLoss):
    def compare(self, pos_R: Tensor, neg_RK: Tensor) -> Tensor:
        return top1(pos_R, neg_RK)


@dataclass(frozen=True)
class TOP1Max(TOP1):
    """TOP1-max of GRU4Rec (Hidasi & Karatzoglou 2018): `top1` weighted by the softmax of the negatives.

    negatives: draws beside the batch; 0: the batch alone.
    """

    name: ClassVar[str] = "top1_max"

    def build(self, given: LossInputs) -> nn.Module:
        return _TOP1MaxLoss(given, self.negatives, in_batch=True)


class _TOP1MaxLoss(CandidateLoss):
    def compare(self, pos_R: Tensor, neg_RK: Tensor) -> Tensor:
        return top1_max(pos_R, neg_RK)


@dataclass(frozen=True)
class BPRMax(TOP1):
    """BPR-max of GRU4Rec (Hidasi & Karatzoglou 2018): the positive above the largest negative, softly, and
    the squared scores of the negatives, by the softmax of the negatives.

    negatives: draws beside the batch; 0: the batch alone. score_weight: of the squared scores.
    """

    name: ClassVar[str] = "bpr_max"
    score_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.score_weight", self.score_weight, ge=0)

    def build(self, given: LossInputs) -> nn.Module:
        return _BPRMaxLoss(given, self.negatives, self.score_weight)


class _BPRMaxLoss(CandidateLoss):
    def __init__(self, given: LossInputs, num_negatives: int, score_weight: float) -> None:
        super().__init__(given, num_negatives, in_batch=True)
        self.score_weight = score_weight

    def compare(self, pos_R: Tensor, neg_RK: Tensor) -> Tensor:
        return bpr_max(pos_R, neg_RK, self.score_weight)


registry.ours("loss", BPR, BPRMax, TOP1, TOP1Max)
