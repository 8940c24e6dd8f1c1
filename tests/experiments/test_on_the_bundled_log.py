"""What a comparison has to find on a real log: the rows that need no model, and the rival of separation."""

import numpy as np
import pytest

import fastpop
from fastpop import evaluation
from fastpop.data.split import event_halves, split
from fastpop.popularity.temporal import DAY


@pytest.fixture(scope="module")
def found():
    return fastpop.compare(
        fastpop.data.bundled_log(),
        encoder="factor",
        seeds=1,
        epochs=3,
        max_epochs=3,
        learning_rate=3e-3,
        arms=["frozen", "learned-from-log-p"],
        permutations=19,
        popularity_weights=(),
        progress=False,
    )


def test_counting_alone_gets_what_it_is_known_to_get(found):
    """On the 6,912 cases of the factor model: counts of half A, and what was popular of late."""
    assert found.comparison["data"]["num_cases"] == 6912
    assert found.value("popularity", "ndcg@10", 1.0) == pytest.approx(0.0733, abs=0.001)
    assert found.value("recency", "ndcg@10", 1.0) > 0.13
    # As many days as are best on the validation part, by what it is judged by: two, not fourteen.
    assert found.value("recency-window", "ndcg@10", 1.0) == pytest.approx(0.165, abs=0.003)
    rules = found.comparison["rules"]["references"]
    assert "chosen by the likelihood of half A's later events" in rules
    assert "recency-window: days 2, chosen by NDCG@10 on the validation part" in rules
    assert found.headline.startswith(
        "These models are not shown to beat counts: NDCG@10 of recency-window 0.16"
    )
    assert "the median user has 1 event to learn from" in found.headline


def test_counts_of_the_last_two_weeks_and_steps():
    parts = split(fastpop.data.bundled_log(), "leave-last-out")
    half, _ = event_halves(parts.train, 0)
    cases = parts.test.take(np.diff(half.offsets)[parts.test.user] > 0)
    for score, known in (
        (evaluation.recency_scorer(parts.known, cases, window=14 * DAY), 0.147),
        (evaluation.markov_scorer(parts.known, cases), 0.0978),
    ):
        got = evaluation.evaluate(score, cases, ks=(10,), logits=False)
        assert got.metrics["ndcg@10"] == pytest.approx(known, abs=0.003)


def test_a_bias_that_starts_at_log_p_separates_as_a_frozen_one_does(found):
    frozen, rival, standard = (
        found.value(arm, "energy_shared") for arm in ("frozen", "learned-from-log-p", "standard")
    )
    assert rival < 2 * frozen
    assert 50 * frozen < standard
    assert abs(found.value("learned-from-log-p", "nll", 1.0) - found.value("frozen", "nll", 1.0)) < 0.01
