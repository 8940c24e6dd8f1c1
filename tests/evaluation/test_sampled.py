"""Estimates from some cases, asked for by name, and how long all of them take."""

import re
import time

import numpy as np
import pytest

from fastpop import evaluation
from fastpop.data import Cases
from fastpop.evaluation import DotScores, evaluate, predicted_seconds


def problem(num_cases=400, num_items=40, seed=0):
    rng = np.random.default_rng(seed)
    query, items = rng.standard_normal((num_cases, 4)), rng.standard_normal((num_items, 4))
    targets = [rng.choice(num_items, rng.integers(1, 4), replace=False).tolist() for _ in range(num_cases)]
    histories = [rng.integers(0, num_items, 3).tolist() for _ in range(num_cases)]
    cases = Cases.of(histories, targets, num_items, user=np.arange(num_cases))
    return query, items, cases, np.arange(num_items)[::-1] + 1


class Model:
    def __init__(self, query, items):
        self.query, self.table = query, items

    def queries(self, cases):
        return self.query[cases.user]

    def items(self):
        return self.table


def forms(query, items):
    return {
        "tables": DotScores(query, items),
        "model": Model(query, items),
        "matrix": query @ items.T,
        "function": lambda rows: query[rows] @ items.T,
    }


@pytest.mark.parametrize("form", ["tables", "model", "matrix", "function"])
def test_an_estimate_is_of_the_cases_that_were_drawn(form):
    query, items, cases, counts = problem()
    score = forms(query, items)[form]
    weight = np.random.default_rng(1).random(400)
    found = evaluate(score, cases, counts=counts, weight=weight, sample_cases=70, sample_seed=3)
    chosen = np.sort(np.random.default_rng(3).permutation(400)[:70])
    part = evaluate(DotScores(query[chosen], items), cases.take(chosen), counts=counts, weight=weight[chosen])
    assert dict(found.metrics) == pytest.approx(
        {name: part.metrics[name] for name in found.metrics}, rel=1e-6
    )
    assert found.cases_key == part.cases_key
    assert set(found.metrics) == set(part.per_case)
    assert {"nll", "ndcg@10", "arp@10"} <= set(found.intervals)
    assert not {"coverage@10", "gini@10", "perplexity"} & set(found.metrics)
    assert "estimates from 70 of 400 cases drawn at random (seed 3), 95 % intervals" in found.rule
    low, high = found.intervals["nll"]
    assert low < found.metrics["nll"] < high
    assert "  nll ±" in found.table()
    assert found.to_dict()["intervals"]["nll"] == [low, high]


def test_intervals_hold_what_all_cases_give():
    query, items, cases, counts = problem()
    score = DotScores(query, items)
    whole = evaluate(score, cases, counts=counts)
    assert whole.intervals == {}
    assert "estimate" not in whole.rule
    names = ("nll", "ndcg@10", "hr@10", "rank", "arp@10")
    held = np.zeros(len(names))
    repeats = 150
    for seed in range(repeats):
        found = evaluate(score, cases, counts=counts, sample_cases=100, sample_seed=seed)
        held += [found.intervals[n][0] <= whole.metrics[n] <= found.intervals[n][1] for n in names]
    assert (np.abs(held / repeats - 0.95) < 0.06).all(), held / repeats


def test_values_that_are_all_equal_have_no_interval_of_zero_width():
    query, items, cases, counts = problem()
    found = evaluate(DotScores(query, items), cases, counts=counts, sample_cases=2, sample_seed=3)
    alike = [
        name
        for name, value_C in found.per_case.items()
        if (~np.isnan(value_C)).sum() == 2 and len(np.unique(value_C)) == 1
    ]
    assert "hr@20" in alike
    assert not set(alike) & set(found.intervals)
    assert all(low < high for low, high in found.intervals.values())
    assert "nll" in found.intervals
    said = re.search(r"no interval where a value is equal in all of these cases, [^:]*: ([^;]*)", found.rule)
    assert said.group(1).split(", ") == alike
    seen = found.table()
    assert "  hr@20" not in found.intervals
    assert "too few to see a spread" in " ".join(seen.split())


def test_as_many_as_there_are_is_exact():
    query, items, cases, _ = problem(num_cases=30)
    score = DotScores(query, items)
    whole, asked = evaluate(score, cases), evaluate(score, cases, sample_cases=30)
    assert asked.metrics == whole.metrics
    assert asked.rule == whole.rule
    almost = evaluate(score, cases, sample_cases=29).intervals["nll"]
    half = evaluate(score, cases, sample_cases=15).intervals["nll"]
    assert almost[1] - almost[0] < 0.3 * (half[1] - half[0])


def test_candidates_go_with_their_cases():
    query, items, cases, _ = problem(num_cases=50)
    rng = np.random.default_rng(2)
    candidates = [rng.choice(40, 9, replace=False).tolist() for _ in range(50)]
    found = evaluate(DotScores(query, items), cases, candidates=candidates, sample_cases=20)
    chosen = np.sort(np.random.default_rng(0).permutation(50)[:20])
    listed = [candidates[case] for case in chosen]
    part = evaluate(DotScores(query[chosen], items), cases.take(chosen), candidates=listed)
    assert found.metrics["ndcg@10"] == pytest.approx(part.metrics["ndcg@10"])


def test_the_time_that_all_take_is_told_before():
    query, items, cases, _ = problem(num_cases=3000)

    def slow(rows):
        time.sleep(0.002 * (rows.stop - rows.start))
        return query[rows] @ items.T

    assert 5.5 < predicted_seconds(slow, cases, chunk_size=64) < 12
    few = cases.take(slice(0, 20))
    assert 0.04 < predicted_seconds(lambda rows: slow(rows), few) < 1


@pytest.mark.parametrize("options", [{"sample_cases": 1}, {"sample_cases": 2.5}, {"sample_seed": -1}])
def test_bad_sizes_are_named(options):
    query, items, cases, _ = problem(num_cases=30)
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        evaluation.evaluate(DotScores(query, items), cases, **{"sample_cases": 10, **options})
