"""Marginals by time: counts by brute force, alpha by the definition, decay by its formula."""

import math

import numpy as np
import pytest
from scipy import optimize

from fastpop.data import Interactions
from fastpop.popularity import PopularityPrior, TemporalPrior, decayed_counts

DAY = 86_400
V = 30


def events(drift, count=4000, days=8, seed=0):
    """Items of a Zipf distribution whose ranks turn by `drift` places a day."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, days * DAY, count)) + 1000 * DAY
    rank = rng.choice(V, count, p=(p := 1 / np.arange(1.0, V + 1)) / p.sum())
    return (rank + drift * (time // DAY)) % V, time


def test_counts_and_rows_are_their_formulas():
    item, time = events(drift=4)
    prior = TemporalPrior.from_events(item, time, V, bucket="day", smoothing=0.5, alpha=7.0)
    assert prior.num_buckets == 8
    np.testing.assert_array_equal(prior.start_T, (1000 + np.arange(8)) * DAY)
    pooled = (np.bincount(item, minlength=V) + 0.5) / (4000 + 0.5 * V)
    np.testing.assert_allclose(prior.pooled_V, pooled)
    for t in range(8):
        inside = item[(time >= prior.start_T[t]) & (time < prior.start_T[t] + DAY)]
        n = np.bincount(inside, minlength=V)
        np.testing.assert_array_equal(prior.counts_TV[t], n)
        expected = (n + 7 * pooled) / (n.sum() + 7)
        np.testing.assert_allclose(np.exp(prior.log_prior_TV[t]), expected)
    np.testing.assert_allclose(np.exp(prior.log_prior_TV).sum(axis=1), 1)


def loo_likelihood(count_TV, pooled_alpha, alpha):
    """Event by event: the bucket's and the pooled counts both without the event."""
    total_V = count_TV.sum(axis=0)
    total = total_V.sum()
    terms = []
    for row in count_TV:
        for i, n in enumerate(row):
            if n:
                pooled = (total_V[i] - 1 + pooled_alpha) / (total - 1 + pooled_alpha * len(row))
                terms.append(n * math.log((n - 1 + alpha * pooled) / (row.sum() - 1 + alpha)))
    return math.fsum(terms)


@pytest.mark.parametrize("drift", [1, 4])
def test_alpha_maximises_the_leave_one_out_likelihood(drift):
    item, time = events(drift, count=1500)
    prior = TemporalPrior.from_events(item, time, V, smoothing=0.7)
    found = optimize.minimize_scalar(
        lambda x: -loo_likelihood(prior.counts_TV, 0.7, math.exp(x)),
        bounds=(math.log(1e-3), math.log(1e7)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert math.log(prior.alpha) == pytest.approx(found.x, abs=1e-3)


def test_drift_lowers_alpha_and_time_then_predicts():
    """New events of the same buckets: by bucket beats pooled if and only if the distribution drifts."""
    for drift, gains in ((4, True), (0, False)):
        item, time = events(drift, seed=0)
        new_item, new_time = events(drift, seed=1)
        prior = TemporalPrior.from_events(item, time, V)
        by_time = prior.log_prior_TV[prior.bucket_of(new_time), new_item].mean()
        pooled = np.log(prior.pooled_V)[new_item].mean()
        if gains:
            assert prior.alpha < 200
            assert by_time > pooled + 0.2
        else:
            assert prior.alpha > 1000
            assert by_time == pytest.approx(pooled, abs=0.01)


def test_without_drift_every_bucket_is_the_pooled_prior():
    item, time = events(drift=0)
    prior = TemporalPrior.from_events(item, time, V, alpha=1e12)
    whole = PopularityPrior.from_counts(np.bincount(item, minlength=V))
    np.testing.assert_allclose(prior.log_prior_TV, np.tile(whole.log_prior_V, (8, 1)), atol=1e-6)


def test_buckets_of_equal_size_and_of_any_width():
    item, time = events(drift=1)
    equal = TemporalPrior.from_events(item, time, V, num_buckets=5)
    np.testing.assert_allclose(equal.counts_TV.sum(axis=1), 800, atol=3)
    hours = TemporalPrior.from_events(item, time, V, bucket=6 * 3600)
    assert hours.num_buckets == 32
    named = TemporalPrior.from_events(item, time, V, bucket="week")
    assert named.counts_TV.sum() == 4000
    tied = TemporalPrior.from_events([0, 1, 2, 0], [5, 5, 5, 5], 3, num_buckets=3)
    assert tied.num_buckets == 1
    assert tied.facts["bucket"] == "1 of about equal size"


def test_a_bucket_without_events_is_the_pooled_prior():
    prior = TemporalPrior.from_events([0, 1, 1, 2], [0, 1, 3 * DAY, 3 * DAY], 3)
    assert prior.num_buckets == 4
    assert prior.facts["num_empty_buckets"] == 2
    np.testing.assert_allclose(np.exp(prior.log_prior_TV[1]), prior.pooled_V)


def test_times_map_to_buckets():
    item, time = events(drift=1)
    prior = TemporalPrior.from_events(item, time, V)
    np.testing.assert_array_equal(prior.bucket_of(time), time // DAY - 1000)
    assert prior.bucket_of([1000 * DAY, 1001 * DAY - 1, 1001 * DAY]).tolist() == [0, 0, 1]
    assert prior.bucket_of(5000 * DAY) == 7
    with pytest.raises(ValueError, match=f"time: expected seconds >= {1000 * DAY}; got 5"):
        prior.bucket_of([5])
    before_1970 = TemporalPrior.from_events([0, 1], [-DAY - 5, 5], 2)
    assert before_1970.start_T.tolist() == [-2 * DAY, -DAY, 0]


def test_decayed_counts_are_their_formula():
    item, time, weight = [0, 1, 0, 2], [0, 100, 200, 400], [1.0, 2, 1, 5]
    ours = decayed_counts(item, time, 4, half_life=100, at=200, weight=weight)
    np.testing.assert_allclose(ours, [1.25, 1.0, 0, 0])
    np.testing.assert_allclose(decayed_counts(item, time, 4, half_life=1e12), [2, 1, 1, 0], atol=1e-6)


def test_decaying_buckets_equal_decayed_counts_at_their_ends():
    item, time = events(drift=2, count=700)
    prior = TemporalPrior.from_events(item, time, V, half_life=1.5 * DAY)
    for t in range(prior.num_buckets - 1):
        end = int(prior.start_T[t + 1])
        before = time < end
        expected = decayed_counts(item[before], time[before], V, half_life=1.5 * DAY, at=end)
        np.testing.assert_allclose(prior.counts_TV[t], expected, rtol=1e-10)


@pytest.mark.parametrize("pooled_alpha", [0.7, 0.0])
def test_alpha_of_decaying_buckets_predicts_the_next_one(pooled_alpha):
    """Each event from the row before its bucket, and from the pooled marginal of what came before."""
    item, time = events(drift=2, count=700)
    weight = np.random.default_rng(1).choice([0.5, 1.0, 2.0], 700)
    prior = TemporalPrior.from_events(
        item, time, V, weight=weight, half_life=1.5 * DAY, smoothing=pooled_alpha
    )
    bucket = prior.bucket_of(time)

    def likelihood(alpha):
        terms = []
        for s in range(prior.num_buckets - 1):
            row, before = prior.counts_TV[s], bucket <= s
            known = np.bincount(item[before], weight[before], V) + pooled_alpha
            p = known / known.sum()
            coming = bucket == s + 1
            terms += [
                w * math.log((row[i] + alpha * p[i]) / (row.sum() + alpha))
                for i, w in zip(item[coming], weight[coming])
                if p[i] > 0
            ]
        return math.fsum(terms)

    found = optimize.minimize_scalar(
        lambda x: -likelihood(math.exp(x)),
        method="bounded",
        bounds=(math.log(1e-3), math.log(1e7)),
        options={"xatol": 1e-9},
    )
    assert math.log(prior.alpha) == pytest.approx(found.x, abs=1e-3)


def test_alpha_of_weighted_events_leaves_each_out_by_its_weight():
    item, time = events(drift=4, count=500)
    weight = np.random.default_rng(1).choice([0.3, 1.0, 2.0], 500)
    prior = TemporalPrior.from_events(item, time, V, weight=weight, smoothing=0.7)
    bucket = prior.bucket_of(time)
    total = np.bincount(item, weight, V)

    def likelihood(alpha):
        return math.fsum(
            w
            * math.log(
                (prior.counts_TV[t, i] - w + alpha * (total[i] - w + 0.7) / (total.sum() - w + 0.7 * V))
                / (prior.counts_TV[t].sum() - w + alpha)
            )
            for t, i, w in zip(bucket, item, weight)
        )

    found = optimize.minimize_scalar(
        lambda x: -likelihood(math.exp(x)),
        method="bounded",
        bounds=(math.log(1e-3), math.log(1e7)),
        options={"xatol": 1e-9},
    )
    assert math.log(prior.alpha) == pytest.approx(found.x, abs=1e-3)
    tenfold = TemporalPrior.from_events(item, time, V, weight=10 * weight, smoothing=7.0)
    assert tenfold.alpha == pytest.approx(10 * prior.alpha, rel=1e-6)
    np.testing.assert_allclose(tenfold.log_prior_TV, prior.log_prior_TV, rtol=1e-6)
    one = TemporalPrior.from_events(item, time, V, half_life=DAY, num_buckets=1)
    assert 1e-3 < one.alpha < 1e6


def test_weights_count_and_the_log_supplies_them():
    item, time = np.array([0, 1, 1, 2]), np.array([0, 1, DAY, DAY])
    weight = np.array([2.0, 0.5, 1, 1])
    log = Interactions.from_arrays(np.array([0, 1, 0, 1]), item, time=time, weight=weight)
    ours = TemporalPrior.from_interactions(log, alpha=1.0)
    direct = TemporalPrior.from_events(item, time, 3, weight=weight, alpha=1.0)
    np.testing.assert_array_equal(ours.counts_TV, direct.counts_TV)
    np.testing.assert_array_equal(direct.counts_TV[0], [2, 0.5, 0])
    timeless = Interactions.from_arrays(np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="log: expected events with times"):
        TemporalPrior.from_interactions(timeless)


def test_save_and_load_bit_for_bit(tmp_path):
    item, time = events(drift=2, count=700)
    prior = TemporalPrior.from_events(item, time, V)
    prior.save(tmp_path / "t.safetensors")
    again = TemporalPrior.load(tmp_path / "t.safetensors")
    for name in ("start_T", "counts_TV", "log_prior_TV", "pooled_V"):
        np.testing.assert_array_equal(getattr(again, name), getattr(prior, name))
    assert (again.alpha, again.facts) == (prior.alpha, prior.facts)
    with pytest.raises(ValueError, match="read-only"):
        again.counts_TV[0] = 1
    with pytest.raises(ValueError, match="expected a saved popularity-prior"):
        PopularityPrior.load(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"item": [0, 9]}, ValueError, r"item: expected ids in \[0, 3\); got 9 at position 1"),
        ({"item": [0.0, 1.0]}, TypeError, "item: expected a 1-d array of integers"),
        ({"time": [0.5, 1.0]}, TypeError, "time: expected a 1-d array of integers"),
        ({"time": [0]}, ValueError, "time: expected shape"),
        ({"item": np.array([], int), "time": np.array([], int)}, ValueError, "N >= 1"),
        ({"weight": [1.0, -1]}, ValueError, "weight: expected numbers >= 0; got -1.0 at event 1"),
        ({"weight": [1.0]}, ValueError, r"weight: expected shape \[2\]"),
        ({"bucket": "month"}, ValueError, "bucket: expected one of 'hour', 'day', 'week'"),
        ({"bucket": 0}, ValueError, "bucket: expected an integer >= 1; got 0"),
        ({"num_buckets": 3}, ValueError, "num_buckets: expected an integer >= 1 <= 2; got 3"),
        ({"alpha": 0}, ValueError, "alpha: expected a finite number > 0; got 0"),
        ({"alpha": "auto"}, ValueError, "alpha: expected one of 'loo'"),
        ({"half_life": 0}, ValueError, "half_life: expected a finite number > 0; got 0"),
        ({"num_items": 10**9, "bucket": 1}, ValueError, "take wider buckets"),
        ({"time": [0, 10**12], "bucket": 1}, ValueError, r"at most 2\*\*24 buckets"),
    ],
)
def test_bad_input_gets_one_clear_error(change, kind, message):
    arguments = {"item": [0, 1], "time": [0, 1], "num_items": 3, **change}
    with pytest.raises(kind, match=message):
        TemporalPrior.from_events(**arguments)
