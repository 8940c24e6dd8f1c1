"""The best scores that a dot product of few dimensions can give, on a distribution that is known."""

from dataclasses import dataclass

import numpy as np
import torch

from fastpop import checks
from fastpop.frozen import freeze
from fastpop.synthetic.twin_block import TwinBlock


@dataclass(frozen=True, eq=False)
class LowRankFit:
    """query [C, d], items [V, d]; kl: mean over contexts of KL(p(.|c) || softmax(query items^T + w log p)),
    nats, w the prior weight."""

    query: np.ndarray
    items: np.ndarray
    kl: float

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "query", "items")


def low_rank_fit(
    generator: TwinBlock, dim: int, prior_weight: float = 0.0, *, starts: int = 4, seed: int = 0
) -> LowRankFit:
    """The scores of rank `dim` that fit the distribution best, popularity beside them or not.

    Args:
        generator: contexts equally likely. dim: d >= 1, of the dot product; no item bias.
        prior_weight: of log p beside the dot product: 0, it has to be learned; 1, it stands outside.
        starts: random starts, of which the best is kept: the problem is not convex. seed: of them.
    Returns:
        LowRankFit, float64; the value of several starts agrees to some 1e-7 nats on the generator's presets.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came.
    Cost: starts * some hundred evaluations of the C x V scores; for generators, not for logs.
    """
    checks.number("dim", dim, ge=1, integer=True)
    checks.number("prior_weight", prior_weight)
    checks.number("starts", starts, ge=1, integer=True)
    checks.number("seed", seed, ge=0, integer=True)
    log_true = torch.from_numpy(generator.scores())
    prior_V = prior_weight * torch.from_numpy(np.array(generator.log_prior_V))
    found = [_fit(log_true, prior_V, dim, seed + start) for start in range(starts)]
    return min(found, key=lambda fit: fit.kl)


def _fit(log_true_CV: torch.Tensor, prior_V: torch.Tensor, dim: int, seed: int) -> LowRankFit:
    rng = torch.Generator().manual_seed(seed)
    sizes = [(size, dim) for size in log_true_CV.shape]
    tables = [0.5 * torch.randn(size, generator=rng, dtype=torch.float64) for size in sizes]
    query, items = (table.requires_grad_() for table in tables)
    true_CV = log_true_CV.exp()
    negative_entropy = (true_CV * log_true_CV).sum(1).mean()

    def kl() -> torch.Tensor:
        score_CV = query @ items.T + prior_V
        return negative_entropy - (true_CV * score_CV.log_softmax(1)).sum(1).mean()

    optimizer = torch.optim.LBFGS(
        [query, items],
        max_iter=2000,
        history_size=30,
        tolerance_grad=1e-12,
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = kl()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return LowRankFit(query.detach().numpy(), items.detach().numpy(), max(0.0, kl().item()))
