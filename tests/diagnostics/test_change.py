"""How much of a change is popularity, where the answer is known."""

import numpy as np
import pytest

from fastpop.diagnostics import ScoreMoments, change_along
from fastpop.stats import popularity_direction


def model(seed=0, num_items=40, **change):
    rng = np.random.default_rng(seed)
    return ScoreMoments.of(
        rng.standard_normal((30, 4)) + 0.5,
        rng.standard_normal((num_items, 4)),
        scale=1.3,
        context_weight=rng.random(30),
        **change,
    )


def log_prior(num_items=40):
    return np.log(np.random.default_rng(9).dirichlet(np.full(num_items, 0.6)) + 1e-4)


@pytest.mark.parametrize("weight", [-1.0, 1e-6, 0.3, 50.0])
def test_adding_or_subtracting_log_p_is_all_popularity(weight):
    f, before = log_prior(), model()
    assert change_along(before, before.with_popularity(weight, f), f) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("angle", [0.0, 0.2, 1.0, np.pi / 2])
def test_a_change_at_a_known_angle(angle):
    f, before = log_prior(), model()
    b_V, _ = popularity_direction(f)
    other_V = np.random.default_rng(3).standard_normal(40)
    other_V -= other_V.mean()
    other_V -= (other_V @ b_V) * b_V
    other_V /= np.linalg.norm(other_V)
    step_V = np.cos(angle) * b_V + np.sin(angle) * other_V
    # A constant for all items, or another one, changes no score of an item against another's.
    after = before.with_popularity(3.0, step_V + 17.0)
    assert change_along(before, after, f) == pytest.approx(np.cos(angle) ** 2, abs=1e-12)
    assert change_along(after, before, f - 5) == pytest.approx(np.cos(angle) ** 2, abs=1e-12)


def test_it_is_that_of_the_weighted_dense_scores():
    rng = np.random.default_rng(1)
    f, weight = log_prior(), rng.random(30)
    tables = [(rng.standard_normal((30, 3)), rng.standard_normal((40, 3))) for _ in range(2)]
    models = [ScoreMoments.of(q, e, scale=2.0, context_weight=weight) for q, e in tables]
    one_V, two_V = (np.average(2.0 * q @ e.T, axis=0, weights=weight) for q, e in tables)
    assert change_along(*models, f) == pytest.approx(np.corrcoef(two_V - one_V, f)[0, 1] ** 2)


def test_where_nothing_changed_there_is_no_share():
    before, f = model(), log_prior()
    assert np.isnan(change_along(before, before, f))
    assert np.isnan(change_along(before, before.with_popularity(2.0, np.ones(40)), f))
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
    turned = ScoreMoments(
        before.query_mean_D @ turn,
        turn.T @ before.query_cov_DD @ turn,
        before.item_VD @ turn + 5.0,
        None,
        before.scale,
        30,
    )
    assert np.isnan(change_along(before, turned, f))


def test_unrelated_changes_are_at_chance_on_average():
    f = log_prior(30)
    shares = [change_along(model(2 * k, 30), model(2 * k + 1, 30), f) for k in range(400)]
    # Beta(1/2, (V - 2)/2) has mean 1/(V - 1) and this variance.
    error = np.sqrt(2 * 28 / (29**2 * 31) / 400)
    assert np.mean(shares) == pytest.approx(1 / 29, abs=4.5 * error)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"before": 3}, TypeError, "before: expected a ScoreMoments; got int"),
        ({"after": model(num_items=39)}, ValueError, "after: expected 40 items, as log_prior; got 39"),
        ({"log_prior": np.zeros(40)}, ValueError, "log_prior: expected a popularity that varies"),
        ({"log_prior": np.full(40, np.nan)}, ValueError, "log_prior: expected finite numbers"),
    ],
)
def test_each_bad_input_has_one_clear_error(change, error, words):
    with pytest.raises(error, match=words):
        change_along(**{"before": model(), "after": model(1), "log_prior": log_prior(), **change})
