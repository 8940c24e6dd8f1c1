"""Binary cross-entropy of positives against drawn negatives: of SASRec, of word2vec, and of gSASRec."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, registry
from fastpop.objectives.candidates import CandidateLoss
from fastpop.objectives.options import MOST_NEGATIVES, LossInputs, Objective, need_others
from fastpop.popularity import ProposalOptions


def bce(pos_R: Tensor, neg_RK: Tensor) -> Tensor:
    """-log sigmoid(pos) - sum over k of log(1 - sigmoid(neg_k)), [R] nats."""
    return gbce(pos_R, neg_RK, 1.0)


def gbce(pos_R: Tensor, neg_RK: Tensor, beta: float) -> Tensor:
    """-beta log sigmoid(pos) - sum over k of log(1 - sigmoid(neg_k)), [R] nats."""
    return -beta * F.logsigmoid(pos_R) - F.logsigmoid(-neg_RK).sum(1)


@dataclass(frozen=True)
class BCE(Objective):
    """Binary cross-entropy of the positive and k drawn negatives, each row its own.

    SASRec's as published (Kang & McAuley 2018, eq. 6: one uniform negative a position), and with more
    negatives skip-gram with negative sampling (Mikolov et al. 2013). Its optimum is log p(i|c) - log q(i) -
    log k (Levy & Goldberg 2014). Negatives equal to the positive stay; SASRec leaves out a user's items.

    negatives: k.
    """

    name: ClassVar[str] = "bce"
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
        return _GBCELoss(given, self.negatives, beta=1.0, share=1.0)


@dataclass(frozen=True)
class GBCE(BCE):
    """Generalised binary cross-entropy of gSASRec (Petrov & Macdonald 2023, RecSys): sigmoid(pos) to the
    power beta = alpha (t (1 - 1/alpha) + 1/alpha), alpha = k / (V - 1), and the mean over k + 1 terms.

    Its optimum is log p(i|c) - log q(i) - log(k / beta): that of `bce` but for a constant.

    negatives: k. calibration: t, 0 (plain) to 1 (sigmoids that are probabilities under uniform negatives).
    """

    name: ClassVar[str] = "gbce"
    negatives: int = 256
    calibration: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.calibration", self.calibration, ge=0, le=1)

    def beta(self, num_items: int) -> float:
        """The power of the positive's sigmoid on a catalogue of V items."""
        alpha = self.negatives / max(num_items - 1, 1)
        return alpha * (self.calibration * (1 - 1 / alpha) + 1 / alpha)

    def build(self, given: LossInputs) -> nn.Module:
        share = 1 / (self.negatives + 1)
        return _GBCELoss(given, self.negatives, beta=self.beta(given.num_items), share=share)


class _GBCELoss(CandidateLoss):
    def __init__(self, given: LossInputs, num_negatives: int, *, beta: float, share: float) -> None:
        super().__init__(given, num_negatives)
        self.beta, self.share = beta, share

    def compare(self, pos_R: Tensor, neg_RK: Tensor) -> Tensor:
        return self.share * gbce(pos_R, neg_RK, self.beta)


registry.ours("loss", BCE, GBCE)
