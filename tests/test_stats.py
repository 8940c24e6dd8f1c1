"""Each statistic against scipy's, or the formula; t and beta quantiles stand with what uses them."""

import numpy as np
import pytest
from scipy import stats as scipys

from fastpop import stats
from fastpop.evaluation import mean_interval
from fastpop.popularity import unit_direction


def test_the_direction_is_centred_and_of_unit_length():
    rng = np.random.default_rng(0)
    f_V, p_V = rng.standard_normal(40), rng.dirichlet(np.ones(40))
    b_V, norm = stats.popularity_direction(f_V)
    np.testing.assert_allclose(b_V * norm, f_V - f_V.mean(), atol=1e-14)
    assert b_V @ b_V == pytest.approx(1)
    np.testing.assert_array_equal(unit_direction(f_V), b_V)
    under_V, size = stats.popularity_direction(f_V, p_V)
    np.testing.assert_allclose(under_V * size, f_V - p_V @ f_V, atol=1e-14)
    assert p_V @ under_V == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="whose direction is not defined"):
        stats.popularity_direction(np.full(40, -3.0))


def test_correlation_is_numpys_and_none_of_a_constant():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 30))
    assert stats.correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-14)
    assert stats.correlation(x, -3 * x + 2) == -1.0
    assert np.isnan(stats.correlation(x, np.full(30, 0.1)))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_mean_intervals_are_scipys(confidence):
    value = np.random.default_rng(2).standard_normal(17) + 1
    mean, low, high = mean_interval(value, confidence)
    want = scipys.ttest_1samp(value, 0).confidence_interval(confidence)
    assert (low, high) == pytest.approx((want.low, want.high), rel=1e-7)
    even = stats.weighted_interval(value, np.full(17, 3.0), confidence)
    assert even == pytest.approx((mean, low, high), rel=1e-12)


def test_a_weighted_interval_covers_and_weighs():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        weight = rng.uniform(0.5, 2, 60)
        _, low, high = stats.weighted_interval(2 + rng.standard_normal(60), weight)
        hits += low < 2 < high
    assert 0.92 < hits / 400 < 0.98
    value, weight = np.array([1.0, 5.0, 2.0]), np.array([1.0, 0.0, 1.0])
    assert stats.weighted_interval(value, weight)[0] == 1.5


def test_a_bootstrap_interval_is_of_its_seed_and_near_scipys():
    value = np.random.default_rng(4).exponential(size=80)
    found = stats.bootstrap_interval(value, np.ones(80), 0.95, 4000, seed=5)
    assert found == stats.bootstrap_interval(value, np.ones(80), 0.95, 4000, seed=5)
    assert found != stats.bootstrap_interval(value, np.ones(80), 0.95, 4000, seed=6)
    want = scipys.bootstrap(
        (value,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert found[1:] == pytest.approx((want.low, want.high), abs=0.03)
    assert np.isnan(stats.bootstrap_interval(value[:1], np.ones(1), 0.95, 100, seed=0)[1])
