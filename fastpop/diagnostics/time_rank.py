"""How many directions the popularity of periods needs: a rank chosen by counts that it was not fitted to."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze

STEPS = 300  # of L-BFGS, a rank
PENALTY = 1e-3  # events: of the squares of the factors, so that items without events stay finite


@dataclass(frozen=True, eq=False)
class TimeRank:
    """rank: of centred log p_t, [T, V], that predicts the held-out half best. held_out_R: nats an event, for
    ranks 0 (uniform), 1, 2, ... log_prior_TV: what that rank says, nats."""

    rank: int
    held_out_R: np.ndarray
    log_prior_TV: np.ndarray

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "held_out_R", "log_prior_TV")


def time_rank(counts: Any, *, most: int = 6, seed: int = 0) -> TimeRank:
    """Split every count into two halves at random, fit log p_t = A Bᵀ + const of each rank to the one by
    maximum likelihood, and keep the rank under which the other is likeliest.

    Halves of a Poisson count are independent, so nothing that a rank fits by chance is rewarded; the singular
    values of log counts, which are noisiest for the rarest items, choose too many.

    counts: [T, V] whole numbers >= 0, a row a period, none empty. most: ranks up to this one, at most T and
    V - 1. seed: of the split.
    Raises: ValueError, TypeError.
    Cost: O(T V rank) a step, some hundred steps a rank; [T, V] float64 a few times.
    """
    count_TV = checks.float_array("counts", counts, 2)
    if 0 in count_TV.shape or count_TV.min() < 0 or (count_TV != np.rint(count_TV)).any():
        raise checks.wrong("counts", "whole numbers >= 0", count_TV)
    checks.number("most", most, ge=1, integer=True)
    checks.number("seed", seed, ge=0, integer=True)
    rng = np.random.Generator(np.random.PCG64(seed))
    first_TV = rng.binomial(count_TV.astype(np.int64), 0.5).astype(float)
    second_TV = count_TV - first_TV
    for half_TV in (first_TV, second_TV):
        if (half_TV.sum(axis=1) == 0).any():
            raise checks.wrong(
                "counts", "events for both halves of every period", text="a period with too few"
            )
    fitted = [
        log_bilinear(first_TV, rank)
        for rank in range(1 + min(int(most), count_TV.shape[0], count_TV.shape[1] - 1))
    ]
    held_out_R = np.array([-(second_TV * log_p_TV).sum() / second_TV.sum() for log_p_TV in fitted])
    rank = int(held_out_R.argmin())
    return TimeRank(rank, held_out_R, fitted[rank])


def log_bilinear(count_TV: np.ndarray, rank: int) -> np.ndarray:
    """[T, V] log p of the likeliest log-bilinear distribution of this rank, nats; begun at an SVD."""
    import torch

    if rank == 0:
        return np.full(count_TV.shape, -np.log(count_TV.shape[1]))
    start_TV = np.log(count_TV + 0.5)
    start_TV -= start_TV.mean(axis=1, keepdims=True)
    left, sigma, right = np.linalg.svd(start_TV, full_matrices=False)
    root_R = np.sqrt(sigma[:rank])
    left_TR = torch.tensor(np.ascontiguousarray(left[:, :rank] * root_R), requires_grad=True)
    right_VR = torch.tensor(np.ascontiguousarray(right[:rank].T * root_R), requires_grad=True)
    counts = torch.from_numpy(count_TV)
    optimizer = torch.optim.LBFGS(
        [left_TR, right_VR],
        max_iter=STEPS,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        log_p_TV = torch.log_softmax(left_TR @ right_VR.T, dim=1)
        penalty = PENALTY * (left_TR.square().sum() + right_VR.square().sum())
        value = (penalty - (counts * log_p_TV).sum()) / counts.sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return torch.log_softmax(left_TR.detach() @ right_VR.detach().T, dim=1).numpy()
