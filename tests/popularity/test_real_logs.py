"""Priors and proposals on real logs: what smoothing, decay and draws must achieve there."""

import gzip

import numpy as np
import pytest
from scipy import stats

from fastpop.popularity import PopularityPrior, decayed_counts, loo_alpha, power, smooth_counts

pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")

WEEK = 7 * 86_400


def items_of_sequences(path):
    with gzip.open(path, "rt") as lines:
        raw = [word for line in lines for word in line.split()[1:]]
    return np.unique(np.array(raw, dtype=np.int64), return_inverse=True)[1]


@pytest.fixture(scope="module")
def beauty(shared_data):
    return items_of_sequences(shared_data / "amazon-beauty-5core.seq.txt.gz")


@pytest.fixture(scope="module")
def movietweetings(shared_data):
    with gzip.open(shared_data / "movietweetings-100k.ratings.dat.gz", "rt") as lines:
        rows = np.array([line.split("::") for line in lines], dtype=np.int64)
    order = np.argsort(rows[:, 3], kind="stable")
    item = np.unique(rows[:, 1], return_inverse=True)[1]
    return item[order], rows[order, 3]


def test_loo_alpha_is_near_the_best_held_out_alpha(beauty, movietweetings):
    """Half the events choose alpha, the other half judge it against every alpha of a grid."""
    rng = np.random.default_rng(0)
    for item in (beauty, movietweetings[0]):
        num_items = item.max() + 1
        half = rng.random(item.size) < 0.5
        counts = np.bincount(item[half], minlength=num_items)
        assert (counts == 0).any()

        def held_out(alpha, counts=counts, rest=item[~half]):
            return np.log(smooth_counts(counts, alpha)[0])[rest].mean()

        best = max(held_out(a) for a in np.geomspace(0.01, 100, 60))
        assert held_out(loo_alpha(counts)) > best - 0.005
        turing = np.log(PopularityPrior.from_counts(counts, "good-turing").prior_V)[item[~half]]
        assert turing.mean() > best - 0.02


def test_the_direction_depends_on_alpha_where_many_items_are_unseen(movietweetings):
    item, _ = movietweetings
    half = np.random.default_rng(1).random(item.size) < 0.5
    counts = np.bincount(item[half], minlength=item.max() + 1)
    prior = PopularityPrior.from_counts(counts)
    small, chosen, large = prior.sensitivity([0.01, prior.alpha, 10.0]).cosines
    assert chosen == pytest.approx(1)
    assert small < 0.97
    assert large < 0.97


def test_a_decayed_marginal_predicts_the_next_week_better(movietweetings):
    """The all-time marginal loses about .2 nats an event on this drifting log."""
    item, time = movietweetings
    num_items = item.max() + 1
    gain = []
    for start in range(int(time[0]) + 8 * WEEK, int(time[-1]) - WEEK, 4 * WEEK):
        past = time < start
        coming = (time >= start) & (time < start + WEEK)
        all_time = np.bincount(item[past], minlength=num_items).astype(float)
        recent = decayed_counts(item[past], time[past], num_items, half_life=2 * WEEK, at=start)
        before, after = (np.log(smooth_counts(c, 0.1)[0])[item[coming]] for c in (all_time, recent))
        gain.append(after - before)
    assert 0.1 < np.concatenate(gain).mean() < 0.5


def test_draws_from_a_real_catalogue_follow_their_distribution(beauty):
    proposal = power(np.bincount(beauty), 0.75)
    drawn = proposal.sample(0, 0, 3_000_000)
    expected = np.exp(proposal.log_proposal_V) * drawn.size
    observed = np.bincount(drawn, minlength=proposal.num_items)
    assert expected.min() > 20
    assert stats.chisquare(observed, expected).pvalue > 1e-4
