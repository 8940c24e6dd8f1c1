"""The rank of periods, from counts of distributions whose rank is known."""

import numpy as np
import pytest

from fastpop import synthetic
from fastpop.diagnostics import time_rank
from fastpop.diagnostics.time_rank import log_bilinear


def periods(terms, seed, zeta=1.1, num_periods=14, events=30_000):
    """Counts of log p_t = -zeta log level + Σ θ_tk h_k - log Z."""
    rng = np.random.default_rng(seed)
    level = 1.0 + synthetic.TwinBlock(6, 12, 1.0, 0.5).level_V
    log_p = np.tile(-zeta * np.log(level), (num_periods, 1))
    for h in terms:
        log_p = log_p + rng.standard_normal((num_periods, 1)) * 0.4 * h(level)
    p = np.exp(log_p)
    p /= p.sum(axis=1, keepdims=True)
    return rng.multinomial(events, p), np.log(p)


@pytest.mark.parametrize(
    ("zeta", "terms", "rank"),
    [
        (0.0, [], 0),
        (1.1, [], 1),
        (1.1, [np.log], 1),
        (1.1, [lambda level: (-1.0) ** level], 2),
        (1.1, [lambda level: (-1.0) ** level, lambda level: level % 3], 3),
    ],
)
def test_the_rank_of_the_distribution_is_found(zeta, terms, rank, one_thread):
    for seed in range(2):
        counts, log_p = periods(terms, seed, zeta)
        found = time_rank(counts, most=5, seed=seed)
        assert found.rank == rank
        assert len(found.held_out_R) == 6
        assert np.abs(np.exp(found.log_prior_TV).sum(axis=1) - 1).max() < 1e-9
        truth, said = np.exp(log_p), found.log_prior_TV
        assert (truth * (log_p - said)).sum(axis=1).mean() < 2e-3  # nats of divergence


def test_the_full_rank_fits_the_counts_themselves(one_thread):
    counts = np.random.default_rng(0).integers(5, 60, (3, 7)).astype(float)
    share = counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_bilinear(counts, 3)), share, atol=2e-4)


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="counts: expected whole numbers >= 0"):
        time_rank([[0.5, 1.0]])
    with pytest.raises(ValueError, match="counts: expected events for both halves of every period"):
        time_rank([[1, 0, 0], [50, 60, 70]])
    with pytest.raises(ValueError, match="most: expected an integer >= 1"):
        time_rank([[50, 60]], most=0)
