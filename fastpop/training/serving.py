"""The two weights that a model is served with, fitted to what came after training."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import checks
from fastpop.data.cases import Cases
from fastpop.decoder import Decoder
from fastpop.model import Recommender
from fastpop.text import Tabled

CHUNK_BYTES = 128 << 20  # of the float64 scores made at once
MOST = 200.0  # a weight beyond it is on its way to infinity
STEPS = 60
SURELY = 1.96  # standard errors that a weight lies above 0 by
LEAST_CASES = 3  # two weights go through two cases with nothing left over to tell an error by


@dataclass(frozen=True)
class Serving(Tabled):
    """score = personal_weight * s + the popularity term at popularity_weight (see `Decoder`).

    popularity_weight, personal_weight: β and λ of least NLL. popularity_error, personal_error: their
    standard errors, n / (n - 2) H^-1 (sum over the n cases of g g') H^-1 with second derivatives H and
    gradients g: where the weights are right and each case has one target, those of H alone; correlation:
    of the two.
    nll: nats a target at the fitted weights; nll_as_trained: at the trained ones, beside the same
    log p; nll_popularity: at the best β without the personal part (λ = 0). num_cases, num_targets: of
    the fit. fitted_on: words. logits: whether the scores were trained as logits of a softmax; where not, they
    have no unit before the fit, and the weights are what makes logits of them.
    """

    popularity_weight: float
    personal_weight: float
    popularity_error: float
    personal_error: float
    correlation: float
    nll: float
    nll_as_trained: float
    nll_popularity: float
    num_cases: int
    num_targets: int
    fitted_on: str
    logits: bool = True

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def undecided(self) -> str:
        """What the cases leave open, in words; "" where the personal part surely helps."""
        if self.personal_weight > SURELY * self.personal_error:
            return ""
        return (
            f"the weight of the personal part is {self.personal_weight:.3g} +- {self.personal_error:.2g} (1 "
            f"standard error): these {self.num_cases:,} cases do not show that it helps beside popularity"
        )

    def table(self) -> str:
        """Plain text, at most 80 columns."""
        as_trained = (
            f"{self.nll_as_trained:.4f} with the weights as trained,"
            if self.logits
            else "none as trained (no logits),"
        )
        return "\n".join(
            [
                f"served with personal weight {self.personal_weight:.3f} +- {self.personal_error:.3f}, "
                f"popularity weight {self.popularity_weight:.3f} +- {self.popularity_error:.3f}",
                f"  (standard errors; {self.num_targets:,} targets of {self.num_cases:,} cases: "
                f"{self.fitted_on})",
                f"  nats a target: {self.nll:.4f} so, {as_trained}",
                f"                 {self.nll_popularity:.4f} by popularity alone",
            ]
        )


def fit_weights(
    model: Recommender, cases: Cases, *, fitted_on: str, most_cases: int, seed: int, logits: bool = True
) -> Serving:
    """argmin over (λ, β) of the mean over targets of -log softmax(λ s + β f)[target].

    s: the learned part. f: log p, or the learned bias. The catalogue is not masked. Two features of a
    softmax: convex, solved by Newton's method with halved steps, until one gains less than 1e-12.
    cases: readable by the encoder. most_cases: more than these are thinned at random, by seed.
    Raises ValueError for fewer than 3 cases, and where the cases leave a weight undecided.
    Cost: 2 C V D FLOPs and C V exponentials for each of about ten steps.
    """
    if cases.num_cases < LEAST_CASES:
        raise checks.wrong(
            "cases", f"at least {LEAST_CASES}, for two weights and their errors", text=f"{cases.num_cases}"
        )
    if cases.num_cases > most_cases:
        chosen = np.random.default_rng(seed).permutation(cases.num_cases)[:most_cases]
        cases = cases.take(np.sort(chosen))
    problem = WeightProblem.of(model, cases)
    decoder = model.decoder
    at = torch.tensor([1.0, _column_weight(decoder, decoder.trained_weight)], dtype=torch.float64)
    as_trained = problem.value(at).nll
    _, alone = least_nll(
        problem.without_queries(), torch.tensor([0.0, 1.0], dtype=torch.float64), free=[False, True]
    )
    best, found = least_nll(problem, at, free=[True, True], logits=logits)
    inverse = torch.linalg.inv(found.hessian)
    covariance = inverse @ found.spread @ inverse * (cases.num_cases / (cases.num_cases - 2))
    error = covariance.diagonal().sqrt()
    beta = float(best[1]) + decoder.prior.offset
    return Serving(
        popularity_weight=beta,
        personal_weight=float(best[0]),
        popularity_error=float(error[1]),
        personal_error=float(error[0]),
        correlation=float(covariance[0, 1] / (error[0] * error[1])),
        nll=found.nll,
        nll_as_trained=as_trained,
        nll_popularity=alone.nll,
        num_cases=cases.num_cases,
        num_targets=problem.num_targets,
        fitted_on=fitted_on,
        logits=logits,
    )


def _column_weight(decoder: Decoder, popularity_weight: float) -> float:
    """What multiplies f at this popularity_weight."""
    return popularity_weight - decoder.prior.offset


@dataclass(frozen=True)
class WeightProblem:
    """Mean NLL of targets under softmax(λ s + c f) as a function of (λ, c), s = query_C · item_V.

    f_V: float64 with mean 0, which changes no softmax and loses no digits.
    """

    query_CD: Tensor
    item_VD: Tensor
    f_V: Tensor
    target: Tensor  # [T]
    case: Tensor  # [T], rises

    @classmethod
    def of(cls, model: Recommender, cases: Cases) -> "WeightProblem":
        decoder = model.decoder
        f_V = decoder.popularity_term().detach()
        scale = decoder.scale.detach().double()
        case = cases.target_rows.row_of_each()
        device = model.device
        f_V = f_V.double()
        return cls(
            model.encode(cases).detach().double() * scale,
            decoder.item_vectors().detach().double(),
            f_V - f_V.mean(),
            torch.as_tensor(cases.target_item.astype(np.int64), device=device),
            torch.as_tensor(case, device=device),
        )

    @property
    def num_targets(self) -> int:
        return len(self.target)

    def without_queries(self) -> "WeightProblem":
        """The same targets, as of one case with nothing to tell it from others."""
        return WeightProblem(
            torch.zeros_like(self.query_CD[:1]),
            self.item_VD,
            self.f_V,
            self.target,
            torch.zeros_like(self.case),
        )

    def value(self, weights: Tensor) -> "_Found":
        """At (λ, c). Chunk by chunk: the scores of all cases never exist."""
        nll = 0.0
        zero = torch.zeros(2, 2, dtype=torch.float64)
        gradient, hessian, spread = zero[0].clone(), zero.clone(), zero.clone()
        num_cases = len(self.query_CD)
        size = max(1, CHUNK_BYTES // (8 * len(self.f_V)))
        personal, popular = float(weights[0]), float(weights[1])
        edges = torch.arange(0, num_cases + size, size, device=self.case.device)
        cuts = torch.searchsorted(self.case, edges).tolist()
        for k, first in enumerate(range(0, num_cases, size)):
            s_BV = self.query_CD[first : first + size] @ self.item_VD.T
            s_BV -= s_BV.mean(1, keepdim=True)  # moments about 0 then lose nothing
            logit_BV = torch.add(popular * self.f_V, s_BV, alpha=personal)
            lse_B = logit_BV.logsumexp(1)
            row, target = self.case[cuts[k] : cuts[k + 1]] - first, self.target[cuts[k] : cuts[k + 1]]
            nll -= float(logit_BV[row, target].sum())
            p_BV = logit_BV.sub_(lse_B[:, None]).exp_()
            times_B = torch.bincount(row, minlength=len(s_BV)).double()
            nll += float(times_B @ lse_B)
            own_B2 = torch.zeros(len(s_BV), 2, dtype=torch.float64, device=s_BV.device).index_add_(
                0, row, torch.stack([s_BV[row, target], self.f_V[target]], 1)
            )
            mean_f_B, square_f_B = p_BV @ self.f_V, p_BV @ self.f_V.square()
            p_BV *= s_BV
            mean_s_B, mixed_B, square_s_B = p_BV.sum(1), p_BV @ self.f_V, p_BV.mul_(s_BV).sum(1)
            mean_B2 = torch.stack([mean_s_B, mean_f_B], 1)
            gradient_B2 = times_B[:, None] * mean_B2 - own_B2
            second_B22 = (
                torch.stack([square_s_B, mixed_B, mixed_B, square_f_B], 1).view(-1, 2, 2)
                - mean_B2[:, :, None] * mean_B2[:, None, :]
            )
            gradient += gradient_B2.sum(0).cpu()
            hessian += (times_B[:, None, None] * second_B22).sum(0).cpu()
            spread += (gradient_B2.T @ gradient_B2).cpu()
        size = self.num_targets
        return _Found(nll / size, gradient / size, hessian / size, spread / size**2)


@dataclass(frozen=True)
class _Found:
    """nats a target; gradient [2] and second derivatives [2, 2] in (λ, c); spread [2, 2]: the sum over
    cases of the outer products of their shares of the gradient."""

    nll: float
    gradient: Tensor
    hessian: Tensor
    spread: Tensor


def least_nll(
    problem: WeightProblem, start: Tensor, free: list[bool], *, logits: bool = True
) -> tuple[Tensor, _Found]:
    """(weights, what is there) where the mean NLL is least over the free weights. Raises ValueError where the
    cases leave one undecided."""
    at, some = start.clone(), torch.tensor(free)
    now = problem.value(at)
    for _ in range(STEPS):
        inner = now.hessian[some][:, some]
        width = inner.diagonal().clamp(min=0).sqrt()
        if (
            float(width.min()) < 1e-8
            or float(torch.linalg.eigvalsh(inner / width / width[:, None])[0]) < 1e-9
        ):
            raise checks.wrong(
                "cases, prior",
                "scores and log p that differ between items, each in its own way",
                text="others, which leave the weights undecided",
            )
        step = torch.zeros(2, dtype=torch.float64)
        step[some] = torch.linalg.solve(inner, now.gradient[some])
        # What a step still gains is below the rounding of the NLL: a whole one ends at the minimum.
        last = float(now.gradient @ step) <= 1e-12 * max(1.0, now.nll)
        tried = problem.value(at - step)
        while not last and tried.nll > now.nll:
            step = step / 2
            tried = problem.value(at - step)
        at, now = at - step, tried
        if last:
            return at, now
        if float(at.abs().max()) > MOST:
            break
    why = "" if logits else " (the loss trains scores that are no logits: their scale can ask for any weight)"
    raise checks.wrong(
        "cases",
        f"cases that are likeliest at weights below {MOST:g}{why}",
        text=f"weights that still grow at {np.round(at.numpy(), 1).tolist()}",
    )
