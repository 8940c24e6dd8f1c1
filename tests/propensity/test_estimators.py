"""Risks of what was seen against the risk of everything, on ratings whose propensities are known."""

import itertools

import numpy as np
import pytest

from fastpop.propensity import (
    NaiveBayesPropensity,
    doubly_robust_risk,
    implicit_risk,
    ips_risk,
    naive_risk,
    snips_risk,
)
from fastpop.synthetic import exposed_ratings


@pytest.fixture(scope="module")
def world():
    return exposed_ratings(by_value=0.8, by_item=0.7, seed=1)


def losses(world):
    """Squared errors of a model that says 3.4 of everything."""
    return (world.rating_UV - 3.4) ** 2


def test_with_true_propensities_the_full_risk_is_found_where_the_naive_one_is_far_off(world):
    loss_UV, p_UV = losses(world), world.propensity_UV
    full = loss_UV.mean()
    for seed in range(5):
        seen = world.draw(seed)
        naive = naive_risk(loss_UV[seen])
        assert abs(naive.value - full) > 5 * naive.standard_error
        for found in (
            ips_risk(loss_UV[seen], p_UV[seen], loss_UV.size),
            snips_risk(loss_UV[seen], p_UV[seen]),
        ):
            assert abs(found.value - full) < 3 * found.standard_error, found
            low, high = found.interval(0.997)
            assert low < full < high


def test_every_way_of_seeing_weighed_by_its_chance_gives_the_full_risk_and_the_variance():
    """All 2^8 outcomes of eight pairs: unbiased to rounding, and so is the estimate of the variance."""
    rng = np.random.default_rng(0)
    loss, imputed, p = rng.random(8), rng.random(8), rng.uniform(0.2, 0.9, 8)
    chance, ips, robust, ips_variance, robust_variance = [], [], [], [], []
    for outcome in itertools.product([False, True], repeat=8):
        seen = np.array(outcome)
        chance.append(np.prod(np.where(seen, p, 1 - p)))
        if not seen.any():  # nothing to sum: an error in the library, 0 and the imputed mean by hand
            ips.append(0.0), robust.append(imputed.mean())
            ips_variance.append(0.0), robust_variance.append(0.0)
            continue
        one = ips_risk(loss[seen], p[seen], 8)
        two = doubly_robust_risk(loss[seen], imputed[seen], p[seen], imputed.mean(), 8)
        ips.append(one.value), robust.append(two.value)
        ips_variance.append(one.variance), robust_variance.append(two.variance)
    chance, ips, robust = np.array(chance), np.array(ips), np.array(robust)
    for value, variance in ((ips, ips_variance), (robust, robust_variance)):
        assert chance @ value == pytest.approx(loss.mean(), rel=1e-12)
        assert chance @ (value - loss.mean()) ** 2 == pytest.approx(chance @ variance, rel=1e-12)


def test_the_doubly_robust_risk_is_right_where_either_model_is(world):
    """Exact expectations: mean(imputed) + mean(p (loss - imputed) / said), whatever is drawn."""
    loss_UV, p_UV = losses(world), world.propensity_UV
    wrong_p, wrong_imputed = np.full_like(p_UV, 0.08), np.full_like(loss_UV, 3.0)

    def expected(said, imputed):
        return imputed.mean() + (p_UV * (loss_UV - imputed) / said).mean()

    full = loss_UV.mean()
    assert expected(p_UV, wrong_imputed) == pytest.approx(full, rel=1e-12)
    assert expected(wrong_p, loss_UV) == pytest.approx(full, rel=1e-12)
    assert abs(expected(wrong_p, wrong_imputed) - full) > 0.2
    for said, imputed in ((p_UV, wrong_imputed), (wrong_p, loss_UV), (wrong_p, wrong_imputed)):
        values = []
        for seed in range(60):
            seen = world.draw(seed)
            found = doubly_robust_risk(loss_UV[seen], imputed[seen], said[seen], imputed.mean(), loss_UV.size)
            values.append(found.value)
        error = max(np.std(values, ddof=1) / np.sqrt(60), 1e-12)
        assert abs(np.mean(values) - expected(said, imputed)) < 4 * error


def test_the_variance_is_that_of_what_happens_to_be_seen(world):
    loss_UV, p_UV = losses(world), world.propensity_UV
    found = {"ips": [], "snips": []}
    for seed in range(400):
        seen = world.draw(seed)
        found["ips"].append(ips_risk(loss_UV[seen], p_UV[seen], loss_UV.size))
        found["snips"].append(snips_risk(loss_UV[seen], p_UV[seen]))
    for estimates in found.values():
        spread = np.var([one.value for one in estimates], ddof=1)
        said = np.mean([one.variance for one in estimates])
        assert spread == pytest.approx(said, rel=0.3)  # a variance of 400 draws is known to 7 % (1 SE)
        within = np.mean([one.interval(0.9)[0] < loss_UV.mean() < one.interval(0.9)[1] for one in estimates])
        assert 0.85 < within < 0.95


def test_self_normalised_moves_with_the_loss_and_forgets_the_scale_of_propensities(world):
    loss_UV, p_UV, seen = losses(world), world.propensity_UV, world.draw(3)
    loss, p = loss_UV[seen], p_UV[seen]
    plain = snips_risk(loss, p)
    moved = snips_risk(loss + 7.0, p)
    assert moved.value == pytest.approx(plain.value + 7.0, rel=1e-12)
    assert moved.variance == pytest.approx(plain.variance, rel=1e-9)
    assert snips_risk(loss, p / 3).value == pytest.approx(plain.value, rel=1e-12)
    assert snips_risk(np.full(len(p), 2.5), p).value == pytest.approx(2.5, rel=1e-12)
    assert snips_risk(loss, np.full(len(p), 0.4)).value == pytest.approx(loss.mean(), rel=1e-12)
    assert abs(ips_risk(loss + 7.0, p, loss_UV.size).value - 7.0 - plain.value) > 1e-3


def test_the_risk_of_clicks_is_that_of_relevance():
    """E over every outcome of six pairs' clicks, P = relevance * exposure: mean(r d1 + (1 - r) d0)."""
    rng = np.random.default_rng(1)
    relevance, exposure, positive, negative = rng.random(6), rng.uniform(0.3, 1, 6), *rng.random((2, 6))
    click = relevance * exposure
    mean = variance = second = 0.0
    for outcome in itertools.product([False, True], repeat=6):
        seen = np.array(outcome)
        chance = np.prod(np.where(seen, click, 1 - click))
        value, said = negative.mean(), 0.0
        if seen.any():
            found = implicit_risk(positive[seen], negative[seen], exposure[seen], negative.mean(), 6)
            value, said = found.value, found.variance
        mean += chance * value
        second += chance * value**2
        variance += chance * said
    ideal = (relevance * positive + (1 - relevance) * negative).mean()
    assert mean == pytest.approx(ideal, rel=1e-12)
    assert variance >= second - mean**2  # an upper bound on average


def test_clipping_bounds_the_weights_and_is_told():
    loss, p = np.array([1.0, 2.0, 3.0]), np.array([0.01, 0.5, 1.0])
    found = ips_risk(loss, p, 10, clip=0.1)
    assert found.value == pytest.approx((1 / 0.1 + 2 / 0.5 + 3) / 10)
    assert found.clipped == pytest.approx(1 / 3)
    assert found.effective_size == pytest.approx(13**2 / (100 + 4 + 1))
    assert ips_risk(loss, p, 10).clipped == 0
    assert ips_risk(loss, np.full(3, 0.5), 10).effective_size == pytest.approx(3)


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"propensity: expected probabilities in \(0, 1\]; got 0"):
        ips_risk([1.0, 2.0], [0.5, 0.0], 5)
    with pytest.raises(ValueError, match=r"propensity: expected shape \[2\]; got float64 \[3\]"):
        snips_risk([1.0, 2.0], [0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="num_pairs: expected an integer >= 2"):
        ips_risk([1.0, 2.0], [0.5, 0.5], 1)
    with pytest.raises(ValueError, match="loss: expected at least 1 of the pairs seen"):
        ips_risk([], [], 5)
    with pytest.raises(ValueError, match="clip: expected a finite number >= 0 <= 1; got 2"):
        snips_risk([1.0], [0.5], clip=2)
    with pytest.raises(ValueError, match=r"confidence: expected a number in \(0, 1\); got 1"):
        naive_risk([1.0, 2.0]).interval(1)


@pytest.mark.slow
def test_on_coat_the_randomised_part_says_what_the_biased_part_hides(shared_data):
    """The risk of always saying 4 stars: from the biased part alone off by many standard errors,
    weighted by naive-Bayes propensities of a tenth of the random part near what the rest of it says."""
    biased, random = (
        np.loadtxt(shared_data / f"coat.{part}.csv.gz", delimiter=",") for part in ("biased", "random")
    )
    rng = np.random.default_rng(0)
    for_fit = rng.random(len(random)) < 0.1
    said = 4.0
    truth = naive_risk((random[~for_fit, 2] - said) ** 2)
    naive = naive_risk((biased[:, 2] - said) ** 2)
    fitted = NaiveBayesPropensity.fit(biased[:, 2], random[for_fit, 2], 290 * 300)
    found = snips_risk((biased[:, 2] - said) ** 2, fitted.of(biased[:, 2]))
    apart = np.hypot(naive.standard_error, truth.standard_error)
    assert abs(naive.value - truth.value) > 5 * apart
    assert abs(found.value - truth.value) < abs(naive.value - truth.value) / 3
