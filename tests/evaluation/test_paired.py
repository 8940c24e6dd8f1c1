"""Paired intervals against scipy, and what pairing is for."""

import numpy as np
import pytest
from scipy import stats

from fastpop.data.cases import Cases
from fastpop.evaluation import compare_paired, evaluate, mean_interval, paired_over_seeds
from fastpop.stats import t_quantile


def run(score, target=None, weight=None):
    num_cases, num_items = score.shape
    target = np.arange(num_cases) % num_items if target is None else target
    cases = Cases(
        np.arange(num_cases),
        np.zeros(num_cases + 1, np.int64),
        np.zeros(0, np.int64),
        np.arange(num_cases + 1),
        target,
        num_items,
    )
    return evaluate(lambda rows: score[rows], cases, ks=[3], weight=weight)


RNG = np.random.default_rng(1)
FIRST = RNG.normal(size=(300, 20))
SECOND = FIRST + 0.5 * RNG.normal(size=(300, 20))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 101, 200, 201, 50_000])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.995])
def test_t_quantile_is_scipys(freedom, probability):
    want = stats.t.ppf(probability, freedom)
    assert t_quantile(probability, freedom) == pytest.approx(want, rel=1e-7, abs=1e-7)


def test_t_interval_is_the_paired_t_interval():
    a, b = run(FIRST), run(SECOND)
    for metric in ("ndcg@3", "nll", "rank"):
        got = compare_paired(a, b, metric)
        want = stats.ttest_rel(a.per_case[metric], b.per_case[metric]).confidence_interval()
        assert (got.low, got.high) == pytest.approx((want.low, want.high), rel=1e-6)
        assert got.difference == pytest.approx(a.metrics[metric] - b.metrics[metric])
        assert (got.num_pairs, got.unit) == (300, "cases")
    assert "300 cases" in str(got)


def test_bootstrap_repeats_and_agrees_with_t():
    a, b = run(FIRST), run(SECOND)
    boot = compare_paired(a, b, "nll", method="bootstrap", seed=4)
    assert boot == compare_paired(a, b, "nll", method="bootstrap", seed=4)
    assert boot != compare_paired(a, b, "nll", method="bootstrap", seed=5)
    t = compare_paired(a, b, "nll")
    assert (boot.low, boot.high) == pytest.approx((t.low, t.high), abs=0.15 * (t.high - t.low))


def test_integer_weights_shift_the_mean_as_copies_do():
    weight = RNG.integers(0, 4, 300)
    got = compare_paired(run(FIRST, weight=weight), run(SECOND, weight=weight), "nll")
    copies = np.repeat(np.arange(300), weight)
    target = np.arange(300) % 20
    twin = compare_paired(run(FIRST[copies], target[copies]), run(SECOND[copies], target[copies]), "nll")
    assert got.difference == pytest.approx(twin.difference)
    assert got.high - got.low > twin.high - twin.low  # copies are no new evidence


def test_coverage_of_the_interval():
    """95 % intervals of a known difference hold it 95 % of the time (binomial margin 4 sd)."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        got = paired_over_seeds(rng.normal(1.0, 1, 5), rng.normal(0.7, 1, 5))
        inside += got.low <= 0.3 <= got.high
    assert abs(inside / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_over_seeds_takes_numbers_or_evaluations():
    a = [run(FIRST + RNG.normal(size=(300, 20))) for _ in range(3)]
    b = [run(SECOND + RNG.normal(size=(300, 20))) for _ in range(3)]
    got = paired_over_seeds(a, b, "hr@3")
    want = stats.ttest_rel([r.metrics["hr@3"] for r in a], [r.metrics["hr@3"] for r in b])
    interval = want.confidence_interval()
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.unit == "seeds"
    one = paired_over_seeds([0.5], [0.25])
    assert one.difference == 0.25
    assert np.isnan(one.low)
    assert not one.excludes_zero
    assert mean_interval([1.0, 3.0])[0] == 2.0


def test_refusals():
    a = run(FIRST)
    with pytest.raises(ValueError, match="b: expected an evaluation of the same cases as a"):
        compare_paired(a, run(FIRST, np.zeros(300, np.int64)), "nll")
    with pytest.raises(ValueError, match=r"metric: expected one of 'hr@3'.*got 'ndcg'"):
        compare_paired(a, a, "ndcg")
    with pytest.raises(ValueError, match=r"confidence: expected a number in \(0, 1\)"):
        compare_paired(a, a, "nll", confidence=1)
    with pytest.raises(ValueError, match="a, b: expected the same seeds, at least one; got 2 and"):
        paired_over_seeds([1, 2], [1])
