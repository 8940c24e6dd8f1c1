"""Metrics and diagnostics of anybody's in a comparison: in rows, over seeds, in tables, kept, refused."""

import json
import math
from typing import ClassVar

import numpy as np
import pytest
import toy_judges
from helpers_logs import small_log

import fastpop
from fastpop.diagnostics import Diagnostic
from fastpop.evaluation import Metric
from fastpop.experiments import twice, unfinished
from fastpop.report import comparison_text
from fastpop.testing import registered

QUICK = {
    "epochs": 2,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 32,
    "learning_rate": 0.03,
    "permutations": 9,
    "progress": False,
    "popularity_weights": (),
    "arms": ["standard", "frozen"],
    "references": ["popularity", "markov"],
    "seeds": 2,
}


class Hit(Metric):
    """The hit rate under another name."""

    name = "toy-hit"
    label = "Toy hits"
    definition = "Share of cases with a target in the list."

    def value(self, known, k):
        return known.targets[""].hits(k) > 0


class Loss(Metric):
    """The NLL under another name."""

    name = "toy-loss"
    at_k = False
    per_case = False
    direction = "smaller"
    bounds = (0.0, math.inf)
    needs = ("logits",)

    def value(self, known, k):
        return known.event_nll.mean()


class Ends(Diagnostic):
    """Two numbers."""

    name = "toy-ends"
    label = "Toy ends of the mean score over items"
    bounds: ClassVar = (-math.inf, math.inf)

    def measure(self, moments, log_prior_V):
        return {"least": moments.mean_score().min(), "most": moments.mean_score().max()}


ASKED = {"metrics": ["toy-within", Hit(), Loss()], "diagnostics": ["toy-spread", Ends(), "isotropy"]}


@pytest.fixture(scope="module", autouse=True)
def toys():
    with registered("metric", toy_judges.Within), registered("diagnostic", toy_judges.Spread):
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("further") / "report"


@pytest.fixture(scope="module")
def stopped(out):
    """A comparison that died in its second seed, and went on."""
    real, runs = twice.fit, []

    def dies(*given, **options):
        runs.append(1)
        if len(runs) == 3:
            raise OSError(28, "No space left on device")
        return real(*given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twice, "fit", dies)
        with pytest.raises(OSError, match="No space left"):
            fastpop.compare(small_log(), out=out, **QUICK, **ASKED)
    return fastpop.compare(small_log(), out=out, **QUICK, **ASKED)


@pytest.fixture(scope="module")
def whole():
    return fastpop.compare(small_log(), **QUICK, **ASKED)


def test_metrics_stand_in_every_row_that_was_evaluated(whole):
    served = [row for row in whole.rows if row["popularity_weight"] is not None]
    assert {row["arm"] for row in served} >= {"standard", "frozen", "projected", "popularity", "markov"}
    for row in served:
        values = row["values"]
        assert values["toy-hit@10"] == values["hr@10"]
        assert 0 <= values["toy-within"] <= values["hr@10"]
        assert values.get("toy-loss") == values.get("nll")  # at beta 1, and where scores are logits
    assert 0 < sum("toy-loss" in row["values"] for row in served) < len(served)


def test_diagnostics_stand_in_every_row_of_a_learned_part(whole):
    learned = [row for row in whole.rows if row["popularity_weight"] is None]
    for row in learned:
        values = row["values"]
        assert {"toy-spread", "toy-ends, least", "isotropy, raw", "isotropy, centred"} <= values.keys()
        assert values["toy-ends, least"] < 0 < values["toy-ends, most"]
    first = whole.comparison["readings"][0]
    drawn = {one["arm"]: np.asarray(one["mean_score"]) for one in whole.comparison["scatter"]}
    for arm, mean_score_V in drawn.items():
        [values] = [
            row["values"]
            for row in learned
            if (row["arm"], row["seed"], row["epochs"]) == (arm, 0, first) and row["arm"] in drawn
        ]
        assert values["toy-spread"] == pytest.approx(mean_score_V.std())
    assert {"standard", "frozen"} <= drawn.keys()


def test_they_are_averaged_compared_and_told(whole):
    for metric, weight in (("toy-hit@10", 1.0), ("toy-spread", None), ("isotropy, raw", None)):
        for arm in ("standard", "frozen"):
            found = [
                row["values"][metric]
                for row in whole.rows
                if (row["arm"], row["epochs"], row["popularity_weight"]) == (arm, "equal", weight)
            ]
            assert len(found) == 2
            assert whole.value(arm, metric, weight, "equal") == pytest.approx(np.mean(found))
        [pair] = [
            one
            for one in whole.comparison["differences"]
            if (one["arm"], one["metric"], one["epochs"]) == ("frozen", metric, "equal")
        ]
        means = [whole.value(arm, metric, weight, "equal") for arm in ("frozen", "standard")]
        assert pair["mean"] == pytest.approx(means[0] - means[1])
    flat = whole.comparison["arms"][0]["readings"][0]
    assert flat["toy-within"] == whole.value("standard", "toy-within", 1.0)
    assert flat["toy-ends, most"] == whole.value("standard", "toy-ends, most")
    assert [one["key"] for one in whole.comparison["further"]] == [
        "toy-within", "toy-hit@10", "toy-loss", "toy-spread", "toy-ends, least", "toy-ends, most",
        "isotropy, raw", "isotropy, centred",
    ]  # fmt: skip


def test_the_table_has_them_where_they_were_asked_for(whole):
    text = whole.table()
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text[text.index("What was asked for besides") :].split())
    for said in ("Toy hits@10: Share of cases", "Within two", "toy-loss", "Toy spread: Standard deviation"):
        assert said in words
    assert "Isotropy of Z, raw; Isotropy of Z, centred: Of the item vectors" in words
    mean = whole.value("frozen", "toy-within", 1.0)
    assert f"{mean:.4f}" in words
    plain = {key: value for key, value in whole.comparison.items() if key != "further"}
    assert "What was asked for" not in comparison_text(plain)


def test_a_stopped_one_goes_on_and_is_another_question_without_them(whole, stopped, out):
    kept = json.loads((out / "comparison.json").read_text())
    del kept["seal"], kept["sha256"]
    fresh = json.loads(json.dumps(fastpop.report.plain(whole.comparison)))
    for made in (kept, fresh):
        made["made_by"].pop("seconds")
    assert kept == fresh
    page = (out / "report.html").read_text()
    assert "What was asked for besides" in page
    assert "Toy ends of the mean score over items, least" in page
    table = (out / "table.txt").read_text()
    assert table == stopped.table()
    assert table.endswith("\n") and not table.endswith("\n\n")  # noqa: PT018
    for change, argument in (({"metrics": ()}, "metrics"), ({"diagnostics": ["isotropy"]}, "diagnostics")):
        with pytest.raises(ValueError, match=f"^{argument}: expected .*as in the comparison in"):
            fastpop.compare(small_log(), out=out, **QUICK, **ASKED | change)


def test_a_comparison_of_before_was_asked_for_none(whole, out):
    asked = whole.comparison["made_by"]["asked"]
    before = {key: value for key, value in asked.items() if key not in ("metrics", "diagnostics")}
    unfinished.refuse_another_question(out, before, asked | {"metrics": [], "diagnostics": []})
    with pytest.raises(ValueError, match=r"^metrics: expected \[\], as in"):
        unfinished.refuse_another_question(out, before, asked)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"metrics": ["ips_dcg"]}, ValueError, "metrics: expected propensity= beside 'ips_dcg'"),
        ({"metrics": ["pooled_auc"]}, ValueError, "metrics: expected candidates= beside 'pooled_auc'"),
        ({"metrics": [Loss()], "loss": "bpr"}, ValueError, "metrics: expected logits=True beside 'toy-loss'"),
        ({"metrics": ["toy-withn"]}, ValueError, "metrics: expected one of .*did you mean 'toy-within'"),
        ({"metrics": "toy-within"}, TypeError, "metrics: expected a list"),
        ({"diagnostics": ["spread"]}, ValueError, "diagnostics: expected one of"),
        ({"diagnostics": toy_judges.Spread()}, TypeError, "diagnostics: expected a list"),
        ({"diagnostics": ["isotropy"] * 2}, ValueError, "diagnostics: expected different names"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(asked, error, words, monkeypatch):
    monkeypatch.setattr(twice, "fit", lambda *given, **options: pytest.fail("it trains"))
    with pytest.raises(error, match=f"^{words}"):
        fastpop.compare(small_log(), **QUICK, **asked)


def test_no_number_has_the_name_of_another():
    slope = type("Slope", (Diagnostic,), {"name": "slope", "measure": lambda *given: 0.0})
    again = type("Again", (Diagnostic,), {"name": "toy-within", "measure": lambda *given: 0.0})
    for asked in ({"diagnostics": [slope()]}, {"metrics": ["toy-within"], "diagnostics": [again()]}):
        with pytest.raises(ValueError, match=r"^diagnostics: expected names that no .*; got '"):
            fastpop.compare(small_log(), **QUICK, **asked)
