"""The experiment on periods: logs whose directions are known, its rules, and how it goes on."""

import json

import numpy as np
import pytest

import fastpop
from fastpop import testing
from fastpop.data import Interactions
from fastpop.popularity import TemporalPrior
from fastpop.studies import periods as study
from fastpop.studies.periods import Periods, again, contexts, low_rank, residual, together
from fastpop.studies.study import Setting, of_seeds
from fastpop.synthetic import TwinBlock
from fastpop.testing.training import QUICK
from fastpop.training import build


def setting(folder=None, seeds=3):
    return Setting(testing.small_log(), "a log", True, seeds, folder)


def counts(drifts, num_periods=8, events=20_000):
    """[T, V] of levels that move along these directions of their own."""
    rng = np.random.default_rng(0)
    level = 1.0 + TwinBlock(6, 12, 1.0, 0.5).level_V
    log_p = np.tile(-np.log(level), (num_periods, 1))
    for drift in drifts:
        log_p = log_p + 0.4 * rng.standard_normal((num_periods, 1)) * drift(level)
    p = np.exp(log_p)
    return rng.multinomial(events, p / p.sum(axis=1, keepdims=True)).astype(float)


@pytest.mark.parametrize(
    ("drifts", "rank", "rule"),
    [([], 1, "one"), ([lambda level: (-1.0) ** level, lambda level: level % 3], 3, "few")],
)
def test_directions_that_were_put_in_are_counted_and_found_again(drifts, rank, rule, one_thread):
    count_TV = counts(drifts)
    values = study._ranks(setting(), "rank", count_TV) | {"periods": 8.0}
    assert (values["rank"], values["rank.low"], values["rank.high"]) == (rank, rank, rank)
    assert values["rank.over.r1"] == 0
    assert low_rank(values) == rule
    if rank > 1:
        assert values["rank.over.r3.high"] < values["rank.over.r2.low"] < 0
        values |= study._angles(setting(), count_TV, rank - 1) | {"directions": rank - 1.0}
        assert again(values) == rank - 1
        assert values["cosine.2"] > 0.9
    else:  # a direction that is not there is another in each half
        values = study._angles(setting(), count_TV, 1) | {"directions": 1.0}
        assert again(values) == 0


def test_rare_items_are_one_item_together():
    count_TV = np.array([[4.0, 1, 0, 9], [3, 1, 2, 0]])
    np.testing.assert_array_equal(together(count_TV, 2), [[4, 9, 1], [3, 0, 3]])
    np.testing.assert_array_equal(together(count_TV, 1), [[4, 1, 0, 9, 0], [3, 1, 2, 0, 0]])


def test_rules_on_intervals():
    def found(each, number=12.0):
        return low_rank({"periods": number} | of_seeds("rank", each))

    assert found([3.0, 3.0, 4.0]) == "few"
    assert found([1.0, 1.0, 1.0]) == "one"
    assert found([6.0, 6.0, 6.0]) == "many"
    assert found([5.0, 6.0, 5.0]) == "open"
    assert found([1.0, 1.0, 2.0]) == "open"
    assert found([3.0, 3.0]) == "too few runs"
    same = {"directions": 2.0} | of_seeds("cosine.1", [0.9, 0.92, 0.91])
    assert again(same | of_seeds("cosine.2", [0.3, 0.6, 0.5])) == 1
    assert again(same | of_seeds("cosine.2", [0.7, 0.71, 0.72])) == 2
    assert again({"directions": 1.0} | of_seeds("cosine.1", [0.9, 0.8])) is None


def test_what_one_log_p_leaves_is_its_definition():
    log = testing.small_log()
    temporal = TemporalPrior.from_interactions(log, num_buckets=4)
    weight = temporal.counts_TV.sum(axis=1) / log.num_events
    pooled = np.log(weight @ np.exp(temporal.log_prior_TV))
    left, whole = (
        sum(w * np.sum((row - row.mean()) ** 2) for w, row in zip(weight, rows))
        for rows in (temporal.log_prior_TV - pooled, temporal.log_prior_TV)
    )
    found = residual(temporal)
    assert found["pooled_residual"] == pytest.approx(left, rel=1e-12)
    assert found["pooled_residual.share"] == pytest.approx(left / whole, rel=1e-12)


@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_contexts_are_the_events_that_are_predicted(encoder):
    log = testing.small_log()
    result = fastpop.train(log, encoder=encoder, prior="none", **QUICK)
    config = result.config.replace(prior=fastpop.priors.ByPeriod(periods=4))
    temporal = build.temporal_prior(config, result.split.train)
    query, period, weight = contexts(result, temporal)
    assert query.shape == (len(period), 8)
    assert weight is None
    np.testing.assert_array_equal(np.bincount(period), temporal.counts_TV.sum(axis=1))


def test_a_stopped_experiment_goes_on_with_what_it_has(tmp_path, monkeypatch):
    first = fastpop.experiment("periods", quick=True, out=tmp_path)
    (tmp_path / "answer.json").unlink()
    monkeypatch.setattr("fastpop.diagnostics.time_rank", None)
    monkeypatch.setattr("fastpop.diagnostics.principal_angles", None)
    monkeypatch.setattr("fastpop.train", None)
    assert fastpop.experiment("periods", quick=True, out=tmp_path).values == first.values
    kept = json.loads((tmp_path / "answer.json").read_text())
    assert kept["values"] == first.answer["values"]


def test_bad_options_and_too_few_periods_are_refused():
    for options, name in (({"periods": 2}, "periods"), ({"least": 0}, "least")):
        with pytest.raises(ValueError, match=rf"^periods\.{name}: expected"):
            Periods(**options)
    log = testing.small_log()
    at_once = Interactions.from_arrays(log.user, log.item, np.zeros(log.num_events))
    with pytest.raises(ValueError, match=r"^log: expected events at times that make three periods or more"):
        fastpop.experiment("periods", at_once, quick=True)
