"""Entmax-1.5 over the whole catalogue: probabilities that are exactly zero below a threshold."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastpop import registry
from fastpop.objectives.candidates import wide
from fastpop.objectives.options import LossInputs, Objective
from fastpop.ops import RowShard, collectives, row_shard
from fastpop.ops.shared_sums import RowsOfAll, largest_of_rows

ENOUGH = 1e-12  # of half a score: a step of the threshold that changes nothing
MOST_ROUNDS = 64


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


class _Entmax15LossOfParts(torch.autograd.Function):
    """`entmax15_loss` of rows of which each process has the scores [R, n] of its own items.

    place_R: where the positive stands among them; own_R: whether it does. The losses are those of all items,
    alike on every process, and so is what comes back to them.
    """

    @staticmethod
    def forward(ctx: Any, score_Rn: Tensor, place_R: Tensor, own_R: Tensor, shard: RowShard) -> Tensor:
        largest_R = largest_of_rows(score_Rn, shard)
        half_Rn = (score_Rn - largest_R[:, None]) / 2
        own_at = own_R.nonzero()[:, 0]
        pos_R = torch.zeros_like(largest_R)
        pos_R[own_at] = half_Rn[own_at, place_R[own_at]]
        threshold_R, pos_R = shared_threshold(half_Rn, pos_R, shard.group)
        p_Rn = (half_Rn - threshold_R[:, None].to(half_Rn.dtype)).clamp(min=0).square()
        ctx.save_for_backward(p_Rn, place_R, own_at)
        gain_R = (p_Rn * 2 * (half_Rn - pos_R[:, None].to(half_Rn.dtype))).nan_to_num().sum(1)
        return 4 / 3 + collectives.total(gain_R - 4 / 3 * p_Rn.pow(1.5).sum(1), shard.group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        p_Rn, place_R, own_at = ctx.saved_tensors
        slope_Rn = p_Rn.clone()
        slope_Rn[own_at, place_R[own_at]] -= 1
        return grads[0][:, None] * slope_Rn, None, None, None


def shared_threshold(half_Rn: Tensor, pos_R: Tensor, group: Any) -> tuple[Tensor, Tensor]:
    """([R] the threshold of `entmax15`, [R] the sum of pos_R), float64, of rows whose columns are shared by
    processes. half_Rn: half of the scores, less the row's largest.

    The norm of max(half - threshold, 0), which has to be one, is convex in the threshold and one or more at
    -1: Newton's steps from there never pass it, and reach it in 4 to 9 rounds (rows of normal scores, of
    1e3 and 1e5 items, standard deviations of 0.01 to 10). A round sums [2, R] numbers, the first [3, R].
    """
    wide_Rn = half_Rn.double()
    threshold_R = wide_Rn.new_full((len(wide_Rn),), -1.0)
    more = [pos_R.double()]
    for _ in range(MOST_ROUNDS):
        above_Rn = (wide_Rn - threshold_R[:, None]).clamp(min=0)
        sums = collectives.total(torch.stack([above_Rn.sum(1), above_Rn.square().sum(1), *more]), group)
        pos_R, more = (sums[2], []) if more else (pos_R, more)
        norm_R = sums[1].sqrt()
        step_R = (norm_R * (norm_R - 1) / sums[0]).clamp(min=0)
        if not bool((step_R > ENOUGH).any()):
            break
        threshold_R = threshold_R + step_R
    return threshold_R, pos_R


@dataclass(frozen=True)
class Entmax(Objective):
    """The entmax-1.5 loss over the whole catalogue (Peters et al. 2019, alpha = 1.5).

    With a frozen prior, tau log p stands among the scores, so that counts help to decide which items keep a
    probability: the idea of PR-Entmax, in this package's one form of a prior. At its optimum entmax15(s) is
    p(i|c): s = 2 sqrt(p(i|c)) + a constant of the context where p > 0, and anything below it elsewhere.

    Cost: the scores [R, V] are made, and sorted; of a part of the items, on one of several processes, each
    round of `shared_threshold` reads them.
    """

    name: ClassVar[str] = "entmax"
    logits: ClassVar[bool] = False
    takes_shard: ClassVar[bool] = True

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
        shard: RowShard | None = None,
    ) -> Tensor:
        def scores(query: Tensor, items: Tensor, log_prior: Tensor | None) -> Tensor:
            score_RV = wide(query @ items.T) * scale
            return score_RV if log_prior is None else score_RV + prior_weight * log_prior

        if shard is None:
            loss_R = entmax15_loss(scores(query, items, log_prior), pos_id)
        else:
            items, _ = row_shard.part_of(items, shard, "each")
            log_prior = row_shard.vector_of("log_prior", log_prior, shard, len(items))
            rows = RowsOfAll(query, pos_id, shard)
            own_N = shard.holds(rows.pos_id, len(items))
            score_Nn = scores(rows.query, items, log_prior)
            loss_R = rows.own(_Entmax15LossOfParts.apply(score_Nn, rows.pos_id - shard.first, own_N, shard))
        return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()


registry.ours("loss", Entmax)
