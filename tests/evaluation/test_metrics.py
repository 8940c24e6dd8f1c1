"""Metrics as objects: ours pass the public suite, and one from outside is as good as ours."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastpop
from fastpop import registry, testing
from fastpop.evaluation import Metric, compare_paired, evaluate, find_metric
from fastpop.report import glossary
from fastpop.testing import registered

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@dataclass(frozen=True)
class Within(Metric):
    name = "within"
    label = "Within"
    definition = "Share of cases whose best target stands at `limit` or before."
    at_k = False
    limit: int = 2

    def value(self, known, k):
        best = known.targets[""].best_C
        return np.where(np.isnan(best), np.nan, best <= self.limit)


class LeastShown(Metric):
    name = "least_shown"
    label = "Least shown"
    definition = "Slots of the item that is shown least, over the cases."
    direction = "larger"
    per_case = False

    def value(self, known, k):
        return known.exposure[k].min() / known.num_cases


def cases(seed=0, num_cases=30, num_items=12):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, num_items, num_cases)
    return SimpleNamespace(
        num_cases=num_cases,
        num_items=num_items,
        history_offsets=np.zeros(num_cases + 1, int),
        history_item=np.zeros(0, int),
        target_offsets=np.arange(num_cases + 1),
        target_item=target,
    )


def scores(seed=1, num_cases=30, num_items=12):
    return np.random.default_rng(seed).standard_normal((num_cases, num_items))


@pytest.mark.parametrize("name", fastpop.available("metrics"))
def test_ours_pass_the_suite(name):
    testing.check_metric(name)


@pytest.mark.parametrize("metric", [Within, Within(limit=5), LeastShown], ids=repr)
def test_toys_pass_the_suite(metric):
    testing.check_metric(metric)


def test_one_from_outside_is_evaluated_paired_tabled_and_defined():
    asked, score = cases(), scores()
    position = 1 + (score > score[np.arange(30), asked.target_item][:, None]).sum(1)
    with registered("metric", Within), registered("metric", LeastShown):
        assert fastpop.available("metrics")[-2:] == ("within", "least_shown")
        found = evaluate(score, asked, metrics=["within", "least_shown"], ks=(3, 12))
        assert glossary.term("within") == ("Within", Within.definition)
        assert glossary.term("least_shown@3") == ("Least shown@3", LeastShown.definition)
        assert glossary.bounds("within") == (0.0, 1.0)
        assert find_metric("least_shown@3") == (LeastShown(), 3)
    assert glossary.term("within") == ("", "")
    assert found.metrics["within"] == (position <= 2).mean()
    assert (found.per_case["within"] == (position <= 2)).all()
    listed = np.argsort(-score, 1)[:, :3]
    assert found.metrics["least_shown@3"] == np.bincount(listed.ravel(), minlength=12).min() / 30
    assert found.metrics["least_shown@12"] == 1
    assert "least_shown" not in found.per_case
    lines = {line.split()[0]: line.split()[1:] for line in found.table().splitlines() if line.split()}
    assert lines["within"] == [f"{found.metrics['within']:.4f}"]
    assert lines["least_shown"][1] == "1.0000"
    other = evaluate(scores(7), asked, metrics=[Within()])
    pair = compare_paired(found, other, "within")
    assert pair.difference == pytest.approx(found.metrics["within"] - other.metrics["within"])
    assert pair.num_pairs == 30


def test_options_of_an_object_are_taken():
    asked, score = cases(), scores()
    position = 1 + (score > score[np.arange(30), asked.target_item][:, None]).sum(1)
    assert evaluate(score, asked, metrics=[Within(limit=7)]).metrics["within"] == (position <= 7).mean()


def test_registering_changes_no_evaluation_that_does_not_ask():
    plain = evaluate(scores(), cases())
    with registered("metric", Within):
        again = evaluate(scores(), cases())
    assert list(again.metrics.items()) == list(plain.metrics.items())


def test_cases_may_count_by_a_size_of_their_own():
    """As target events do for NLL: the mean, and the pairing, weigh by it."""

    class Sized(Within):
        name = "sized"

        def size(self, known):
            return np.arange(known.num_cases)

    found = evaluate(scores(), cases(), metrics=[Sized()])
    value = found.per_case["sized"]
    assert found.metrics["sized"] == pytest.approx((value * np.arange(30)).sum() / np.arange(30).sum())
    assert (found.weight_of("sized") == np.arange(30)).all()


class Needy(Within):
    name = "needy"
    needs = ("counts",)


class Wide(Within):
    name = "wide"

    def value(self, known, k):
        return np.zeros((known.num_cases, 2))


class Nothing(Within):
    name = "nothing"
    needs = ("money",)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ("ndcg", TypeError, "metrics: expected a list of names or metrics; got str"),
        (3, TypeError, "metrics: expected a list of names or metrics; got int"),
        (["nope"], ValueError, "metrics: expected one of 'hr', 'recall'"),
        (["recal"], ValueError, "did you mean 'recall'"),
        (
            [Within],
            TypeError,
            "metrics: expected a name or a Metric; got the class Within; make one: Within()",
        ),
        ([Within(), Within(limit=9)], ValueError, "metrics: expected different names; got 'within' twice"),
        ([Needy()], ValueError, "metrics: expected counts= beside 'needy', which needs it; got none"),
        ([Nothing()], ValueError, "needs of the metric 'nothing': expected one of 'counts'"),
        ([Wide()], ValueError, r"value of the metric 'wide': expected \[30\] numbers, a case each"),
        (["arp"], ValueError, "metrics: expected counts= beside 'arp'"),
    ],
)
def test_bad_metrics_get_one_clear_error(metrics, error, message):
    with pytest.raises(error, match=message):
        evaluate(scores(), cases(), metrics=metrics)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ndcg", "metric: expected 'ndcg@k' with k >= 1; got 'ndcg'"),
        ("ndcg@0", "with k >= 1"),
        ("ndcg@x", "with k >= 1"),
        ("nll@10", "metric: expected 'nll'; got 'nll@10'"),
        ("nope@10", "metric: expected one of 'hr'"),
    ],
)
def test_keys_of_no_metric_are_refused(key, message):
    with pytest.raises(ValueError, match=message):
        find_metric(key)


def test_every_key_of_an_evaluation_is_found_with_its_direction():
    counts = np.arange(12)
    found = evaluate(scores(), cases(), counts=counts, mask_seen=False, ks=(3,))
    metrics = {key: find_metric(key) for key in found.metrics}
    assert all(metric.key(k) == key for key, (metric, k) in metrics.items())
    falls = {key for key, (metric, _) in metrics.items() if metric.direction == "smaller"}
    assert falls == {
        "rank",
        "nll",
        "perplexity",
        "nll_repeat",
        "nll_new",
        "arp@3",
        "gini@3",
        "popularity_correlation@3",
    }


def test_the_tables_of_the_docs_are_the_metrics_own():
    text = DOCS.read_text(encoding="utf-8")
    for name, metric in registry.all_of("metric").items():
        if getattr(metric, "part", ""):  # described in prose there
            assert f"`{name.rpartition('_')[0]}_" in text or "`ndcg_…`" in text, name
            continue
        key = f"{name}@k" if metric.at_k else name
        row = f"| `{key}` | {metric.formula or metric.definition} | {metric.direction} | {metric.source} |"
        assert row.replace("  |", " |") in text, row


class Forgetful(Within):
    """Remembers the order of cases."""

    def value(self, known, k):
        return np.linspace(0, 1, known.num_cases)


class Beyond(Within):
    def value(self, known, k):
        return 2.0 * super().value(known, k)


class Scribbler(Within):
    def value(self, known, k):
        known.exposure[10][:] = 0
        return super().value(known, k)


class Nameless(Within):
    definition = ""


class Sideways(Within):
    direction = "up"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Forgetful, "hangs on other cases or on their order"),
        (Beyond, "outside its bounds"),
        (Scribbler, "read-only"),
        (Nameless, "definition in one line"),
        (Sideways, "direction 'up'"),
        (Nothing, "needs"),
    ],
)
def test_the_suite_refuses_what_breaks_the_contract(metric, message):
    with pytest.raises((AssertionError, ValueError), match=message):
        testing.check_metric(metric)
