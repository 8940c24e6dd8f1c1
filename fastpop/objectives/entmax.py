"""Entmax-1.5 over the whole catalogue: probabilities that are exactly zero below a threshold."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastpop import registry
from fastpop.objectives.candidates import wide
from fastpop.objectives.options import LossInputs, Objective


def entmax15(score_RV: Tensor) -> Tensor:
    """p_i = max(score_i / 2 - threshold, 0)^2 with the threshold at which they sum to one, [R, V].

    Exact, by sorting (Peters et al. 2019, algorithm 2): with the rho largest in the support, the threshold
    is mean - sqrt((1 - sum of squared deviations) / rho). Scores are taken relative to the row's largest,
    and the support lies within 2 of it. Sums are of float64. O(R V log V).
    """
    half_RV = (score_RV - score_RV.max(1, keepdim=True).values) / 2
    sorted_RV = half_RV.clamp(min=-1).sort(1, descending=True).values.double()
    rho_V = torch.arange(1, score_RV.shape[1] + 1, device=score_RV.device)
    mean_RV = sorted_RV.cumsum(1) / rho_V
    scatter_RV = sorted_RV.square().cumsum(1) - rho_V * mean_RV.square()
    threshold_RV = mean_RV - ((1 - scatter_RV) / rho_V).clamp(min=0).sqrt()
    # What was clamped lies outside, whatever the rounding of so many equal terms says.
    support_R1 = ((threshold_RV <= sorted_RV) & (sorted_RV > -1)).sum(1, keepdim=True)
    threshold_R1 = threshold_RV.gather(1, support_R1 - 1).to(half_RV.dtype)
    return (half_RV - threshold_R1).clamp(min=0).square()


class _Entmax15Loss(torch.autograd.Function):
    """[R] Fenchel-Young losses, whose gradient is p - onehot: p is kept, the sort is not."""

    @staticmethod
    def forward(ctx: Any, score_RV: Tensor, pos_id_R: Tensor) -> Tensor:
        p_RV = entmax15(score_RV)
        ctx.save_for_backward(p_RV, pos_id_R)
        pos_R1 = pos_id_R[:, None]
        # Relative to the positive, which changes nothing: both sides sum to one.
        gain_R = (p_RV * (score_RV - score_RV.gather(1, pos_R1))).nan_to_num().sum(1)
        return gain_R + 4 / 3 * (1 - p_RV.pow(1.5).sum(1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        p_RV, pos_id_R = ctx.saved_tensors
        slope_RV = p_RV.scatter_add(1, pos_id_R[:, None], -torch.ones_like(p_RV[:, :1]))
        return grads[0][:, None] * slope_RV, None


def entmax15_loss(score_RV: Tensor, pos_id_R: Tensor) -> Tensor:
    """[R]: max over p of <p, score> + H(p), less the positive's score; H(p) = 4/3 sum(p - p^1.5).

    The Fenchel-Young loss of entmax-1.5 (Peters et al. 2019, eq. 11): >= 0, convex, 0 where the positive
    leads by 2 or more, with gradient entmax15(score) - onehot.
    """
    return _Entmax15Loss.apply(score_RV, pos_id_R)


@dataclass(frozen=True)
class Entmax(Objective):
    """The entmax-1.5 loss over the whole catalogue (Peters et al. 2019, alpha = 1.5).

    With a frozen prior, tau log p stands among the scores, so that counts help to decide which items keep a
    probability: the idea of PR-Entmax, in this package's one form of a prior. At its optimum entmax15(s) is
    p(i|c): s = 2 sqrt(p(i|c)) + a constant of the context where p > 0, and anything below it elsewhere.

    Cost: the scores [R, V] are made, and sorted.
    """

    name: ClassVar[str] = "entmax"
    logits: ClassVar[bool] = False

    def build(self, given: LossInputs) -> nn.Module:
        return _EntmaxLoss()


class _EntmaxLoss(nn.Module):
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
        score_RV = wide(query @ items.T) * scale
        if log_prior is not None:
            score_RV = score_RV + prior_weight * log_prior
        loss_R = entmax15_loss(score_RV, pos_id)
        return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()


registry.ours("loss", Entmax)
