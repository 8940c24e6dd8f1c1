"""The exact half of the experiments, against numbers that were computed on their own."""

import math

import numpy as np
import pytest

from fastpop.data.demo_log import bundled_log
from fastpop.diagnostics import ScoreMoments
from fastpop.studies.convergence import first_below, some_users
from fastpop.studies.decomposition import TILTS, exact_spectrum, tilt
from fastpop.studies.index import Lists
from fastpop.studies.study import excludes, of_seeds, told
from fastpop.studies.transfer import evened
from fastpop.synthetic import TwinBlock, low_rank_fit, paper_headline


@pytest.fixture(scope="module")
def demo_log():
    return bundled_log()


@pytest.mark.parametrize(
    ("generator", "dim", "standard", "outside"),
    [
        (TwinBlock(10, 12, 1, 1), 2, 0.1035, 0.0),
        (TwinBlock(10, 12, 1, 1), 1, 0.2105, 0.1066),
        (TwinBlock(10, 12, 1, 0.5), 2, 0.0297, 0.0),
        (paper_headline(), 2, 0.0923, 0.0064),
    ],
    ids=["kappa 1, d 2", "kappa 1, d 1", "kappa .5, d 2", "headline, d 2"],
)
def test_the_best_scores_of_few_dimensions(generator, dim, standard, outside):
    assert low_rank_fit(generator, dim, starts=1).kl == pytest.approx(standard, abs=6e-5)
    beside = low_rank_fit(generator, dim, 1.0, starts=1).kl
    assert beside == pytest.approx(outside, abs=6e-5)
    assert outside > 0 or beside < 1e-9


def test_enough_dimensions_leave_nothing():
    generator = TwinBlock(6, 4, 1, 1)
    assert low_rank_fit(generator, 3, starts=1).kl < 1e-9  # two of the association, one of popularity
    fit = low_rank_fit(generator, 2, 1.0, starts=1)
    score = fit.query @ fit.items.T + generator.log_prior_V
    chance = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    np.testing.assert_allclose(chance, np.exp(generator.scores()), atol=1e-5)


def test_scores_that_were_fitted_have_the_headline_reduction():
    """Not put in by the formula: learned from the distribution, log p outside or not, to KL < 1e-8."""
    generator, shared = paper_headline(), {}
    for weight in (0.0, 1.0):
        fit = low_rank_fit(generator, 4, weight, starts=1)
        assert fit.kl < 1e-8
        shared[weight] = ScoreMoments.of(fit.query, fit.items).energy(generator.log_prior_V).shared
    assert 1 - shared[1.0] / shared[0.0] == pytest.approx(0.986, abs=1e-4)


def test_the_spectrum_obeys_its_bounds():
    for generator in (paper_headline(), TwinBlock(5, 40, 1.2, 0.1)):
        values, table = exact_spectrum(generator)
        assert values["identity_error"] < 1e-12
        assert values["sigma_1"] >= values["sigma_1_bound"]
        assert values["sigma_2"] <= values["sigma_2_bound"] * (1 + 1e-12)
        assert values["sine"] <= values["sine_bound"] < 1
        assert len(table.rows) == 3
    assert exact_spectrum(paper_headline())[0]["reduction"] == pytest.approx(0.986, abs=1e-4)


def test_a_tilt_moves_the_first_direction_from_the_association_to_popularity():
    found = {power: tilt(paper_headline(), power) for power in TILTS}
    assert found[0.5]["corr_log_pi"] < 1e-6
    assert found[1.0]["corr_log_pi"] == pytest.approx(1, abs=1e-9)
    # What a count finds is not what was put in: the association favours the tail there.
    assert 1e-5 < 1 - found[1.0]["corr_log_marginal"] < 1e-3
    even = tilt(TwinBlock(12, 30, 1.1, 0.5), 1.0)  # kappa constant: it favours nobody
    assert even["corr_log_marginal"] == pytest.approx(1, abs=1e-9)
    share = [found[power]["r1"] for power in (1.0, 1.25, 1.5)]
    assert share == sorted(share)


def test_evened_logs_differ_in_popularity_alone(demo_log):
    drawn, flat = evened(demo_log, seed=0)
    assert drawn.num_events == flat.num_events > 15_000
    assert drawn.num_items == flat.num_items
    assert np.ptp(flat.item_counts()) == 0
    assert drawn.item_counts().std() > 5
    least = flat.item_counts()[0]
    assert drawn.num_items == np.count_nonzero(demo_log.item_counts() >= least)
    kept = np.flatnonzero(demo_log.item_counts() >= least)
    pairs = set(zip(*_pairs(demo_log)))
    for log in (drawn, flat):
        user, item = _pairs(log)
        assert set(zip(user, kept[item].tolist())) <= pairs


def _pairs(log):
    return np.repeat(np.arange(log.num_users), np.diff(log.offsets)).tolist(), np.asarray(log.item).tolist()


def test_a_share_of_the_users_is_spread_and_keeps_the_catalogue(demo_log):
    part = some_users(demo_log, 30)
    users = np.flatnonzero(np.diff(part.offsets))
    assert len(users) == math.floor(0.3 * demo_log.num_users)
    assert part.num_items == demo_log.num_items
    assert users.mean() == pytest.approx(demo_log.num_users / 2, rel=0.05)
    assert some_users(demo_log, 100) is demo_log


def test_where_a_curve_first_reaches_its_goal():
    assert first_below([1, 2, 3], [8.0, 6.0, 5.0], 7.0) == 1.5
    assert first_below([1, 2, 3], [8.0, 6.0, 5.0], 8.5) == 1.0
    assert first_below([1, 2], [8.0, 6.0], 5.0) == math.inf


def test_lists_find_everything_where_all_are_probed(monkeypatch):
    rng = np.random.default_rng(0)
    items, query = rng.normal(size=(500, 6)) * rng.random((500, 1)), rng.normal(size=(20, 6))
    exact = np.argsort(-(query @ items.T), 1)[:, :10]
    lists = Lists(items)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, lists.search(query))])
    assert 0.3 < recall < 1
    monkeypatch.setattr("fastpop.studies.index.PROBED", 1.0)
    np.testing.assert_array_equal(np.sort(exact, 1), np.sort(lists.search(query), 1))


def test_intervals_in_words():
    few, some = of_seeds("x", [1.0, 2.0]), of_seeds("x", [1.0, 1.1, 0.9, 1.05])
    assert excludes(few, "x") is None
    assert told(few, "x", 1) == "1.5"
    assert excludes(some, "x") == 1
    assert excludes(some, "x", 1.0) == 0
    assert excludes(some, "x", 2.0) == -1
    assert told(some, "x", 2).startswith("1.01 [0.")
