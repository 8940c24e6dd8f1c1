"""Decayed counts whose half-life and smoothing are chosen by what came next."""

import math

import numpy as np
import pytest

from fastpop.data import Interactions, bundled_log
from fastpop.popularity import PopularityPrior, TemporalPrior, decayed_counts, recency_counts

DAY = 86_400
WEEK = 7 * DAY
V = 30


def drifting(drift, count=3000, days=40, seed=0, weighted=False):
    """Items of a Zipf distribution whose ranks turn by `drift` places a day."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, days * DAY, count)) + 1000 * DAY
    rank = rng.choice(V, count, p=(p := 1 / np.arange(1.0, V + 1)) / p.sum())
    item = (rank + (drift * (time - 1000 * DAY) / DAY).astype(int)) % V
    weight = rng.choice([0.5, 1.0, 3.0], count) if weighted else None
    return Interactions.from_arrays(rng.integers(0, 300, count), item, time, weight, item_ids=np.arange(V))


def judged_one_by_one(log, half_life, alpha, horizon, num_judged, kept=None):
    """The definition: nats an event, each predicted by decayed counts at its period's start."""
    kept = np.ones(log.num_events, bool) if kept is None else kept
    weight = np.ones(log.num_events) if log.weight is None else log.weight
    item, time, weight = log.item[kept], log.time[kept], weight[kept]
    order = np.argsort(time, kind="stable")
    item, time, weight = item[order], time[order], weight[order]
    at, total, size = time[-1], 0.0, 0.0
    for i, t, w in list(zip(item, time, weight))[-num_judged:]:
        start = at - (math.floor((at - t) / horizon) + 1) * horizon
        past = time <= start
        aged = weight[past] * 2.0 ** -((start - time[past]) / half_life)
        count = np.bincount(item[past], aged, V)
        total -= w * math.log((count[i] + alpha) / (count.sum() + alpha * V))
        size += w
    return total / size


@pytest.mark.parametrize(
    ("weighted", "first_events", "horizon"),
    [(False, True, None), (True, True, 1.7 * DAY), (True, False, WEEK)],
)
def test_the_likelihood_is_its_definition(weighted, first_events, horizon):
    log = drifting(1, count=600, weighted=weighted)
    found = recency_counts(log, horizon=horizon, first_events=first_events)
    kept = np.ones(log.num_events, bool)
    if not first_events:
        kept[log.offsets[:-1][np.diff(log.offsets) > 0]] = False
    assert 0.25 * kept.sum() <= found.num_judged <= 0.6 * kept.sum()
    for half_life, alpha, nll in found.tried[::4]:

        def of(x, half_life=half_life):
            return judged_one_by_one(log, half_life, x, found.horizon, found.num_judged, kept)

        assert nll == pytest.approx(of(alpha), rel=1e-9)
        assert of(alpha) <= min(of(alpha * 1.03), of(alpha / 1.03)) + 1e-7  # flat where nothing helps
    assert found.nll == min(nll for _, _, nll in found.tried)
    assert (found.half_life, found.alpha, found.nll) in found.tried
    for alpha, nll in found.alphas:
        assert nll == pytest.approx(
            judged_one_by_one(log, found.half_life, alpha, found.horizon, found.num_judged, kept), rel=1e-9
        )
    weight = None if log.weight is None else log.weight[kept]
    np.testing.assert_allclose(
        found.counts_V,
        decayed_counts(log.item[kept], log.time[kept], V, half_life=found.half_life, weight=weight),
    )
    prior = found.prior()
    assert prior.alpha == found.alpha
    np.testing.assert_array_equal(prior.counts_V, found.counts_V)


def test_the_half_life_follows_the_drift():
    still, slow, fast = (recency_counts(drifting(drift)) for drift in (0, 0.2, 3))
    assert still.half_life > 20 * DAY
    assert fast.half_life < slow.half_life < still.half_life
    assert still.nll < slow.nll < fast.nll


def test_a_half_life_that_is_given_is_taken():
    log = drifting(1)
    chosen = recency_counts(log)
    again = recency_counts(log, half_life=chosen.half_life)
    assert (again.alpha, again.nll, len(again.tried)) == (chosen.alpha, chosen.nll, 1)
    whole = recency_counts(log, half_life=math.inf)
    np.testing.assert_array_equal(whole.counts_V, log.item_counts())
    assert "infinite" in whole.table()


def test_later_events_are_left_out():
    log = drifting(2)
    at = int(np.sort(log.time)[2000])
    early = recency_counts(log.take(log.time <= at), at=at)
    same = recency_counts(log, at=at)
    assert (same.half_life, same.alpha, same.nll, same.at) == (early.half_life, early.alpha, early.nll, at)
    np.testing.assert_array_equal(same.counts_V, early.counts_V)


def test_weights_of_another_unit_give_the_same_prior():
    log = drifting(1, weighted=True)
    heavy = Interactions.from_arrays(log.user, log.item, log.time, 1000 * log.weight, item_ids=np.arange(V))
    one, other = recency_counts(log), recency_counts(heavy)
    assert one.half_life == other.half_life
    assert other.alpha == pytest.approx(1000 * one.alpha, rel=1e-6)
    assert other.nll == pytest.approx(one.nll, rel=1e-9)


def test_half_lives_far_shorter_than_the_log():
    """Weights span more powers of two than a float has: nothing overflows, and the value is right."""
    log = drifting(1, count=500, days=900)
    found = recency_counts(log, half_life=DAY / 2, horizon=float(DAY), judged=0.9)
    assert found.nll == pytest.approx(
        judged_one_by_one(log, DAY / 2, found.alpha, DAY, found.num_judged), rel=1e-9
    )
    assert found.nll == pytest.approx(math.log(V), abs=0.05)  # nothing is known of an event a day


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"half_life": 0}, ValueError, "half_life: expected a finite number > 0; got 0"),
        ({"half_life": math.nan}, ValueError, "half_life: expected a finite number > 0"),
        ({"horizon": -1}, ValueError, "horizon: expected a finite number > 0; got -1"),
        ({"horizon": 1e9}, ValueError, "horizon: expected periods short enough for events in two of them"),
        ({"judged": 1.0}, ValueError, "judged: expected a share below 1; got 1.0"),
        ({"at": 5}, ValueError, "log: expected at least one event to count; got none"),
        ({"at": 1.5}, TypeError, "at: expected an integer"),
    ],
)
def test_bad_input_gets_one_clear_error(change, kind, message):
    with pytest.raises(kind, match=message):
        recency_counts(drifting(1, count=50), **change)


def test_logs_without_times_and_of_one_moment_are_refused():
    with pytest.raises(ValueError, match="log: expected events with times; got a log without times"):
        recency_counts(Interactions.from_arrays([0, 1], [0, 1]))
    with pytest.raises(ValueError, match="horizon: expected periods short enough"):
        recency_counts(Interactions.from_arrays([0, 1], [0, 1], [5, 5]))
    short = recency_counts(Interactions.from_arrays([0, 1, 2], [0, 1, 0], [5, 9, 12]))
    assert short.num_judged == 1
    assert np.isfinite(short.nll)


@pytest.fixture(scope="module")
def cut():
    """(what is known, items of the next week) of the bundled log at 90 % of its events."""
    log = bundled_log()
    start = int(np.sort(log.time)[90_000])
    coming = (log.time >= start) & (log.time < start + WEEK)
    return log.take(log.time < start), log.item[coming], start


def test_smoothing_that_fits_fractional_counts_on_the_bundled_log(cut):
    """Nats an event of the next week: alpha = 1 loses all that decaying gains."""
    past, coming, start = cut
    counts = decayed_counts(past.item, past.time, past.num_items, half_life=WEEK, at=start)

    def nats(prior):
        return float(-prior.log_prior_V[coming].mean())

    assert nats(PopularityPrior.from_interactions(past)) == pytest.approx(7.753, abs=0.002)
    assert nats(PopularityPrior.from_counts(counts, 1.0)) == pytest.approx(7.746, abs=0.002)
    best = min(nats(PopularityPrior.from_counts(counts, a)) for a in np.geomspace(0.01, 1, 60))
    alone, of_a_week, chosen = (
        PopularityPrior.from_counts(counts),
        recency_counts(past, half_life=WEEK).prior(),
        recency_counts(past).prior(),
    )
    assert nats(alone) <= 7.49 < best + 0.01
    assert nats(of_a_week) <= best + 0.002
    assert nats(chosen) <= 7.49
    weekly = recency_counts(past, horizon=WEEK)
    assert nats(weekly.prior()) <= best + 0.002
    assert weekly.half_life == WEEK / 2 * 2  # one half-life of the grid is a week


@pytest.mark.parametrize(
    ("bucket", "half_life", "nll"), [("day", WEEK, 7.53), ("week", WEEK, 7.52), ("week", 3 * DAY, 7.50)]
)
def test_smoothing_that_fits_decaying_buckets_on_the_bundled_log(cut, bucket, half_life, nll):
    """It was 8.4 nats with alpha = 1; no alpha does better than 7.513 for a week."""
    past, coming, _ = cut

    def nats(**options):
        prior = TemporalPrior.from_interactions(past, bucket=bucket, half_life=half_life, **options)
        return float(-prior.log_prior_TV[-1][coming].mean())

    best = min(nats(alpha=a) for a in np.geomspace(1e3, 1e5, 12))
    assert nats() <= min(nll, best + 0.012)
    assert nats(alpha=1.0) > 8.3


def test_the_table_fits_a_screen():
    lines = recency_counts(drifting(1)).table().splitlines()
    assert max(map(len, lines)) <= 80
    assert "half-life" in lines[0]
    assert "nats an event" in lines[0]
