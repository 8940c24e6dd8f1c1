"""Nulls and diagnostics as objects: ours pass the public suites, and ones from outside are as good."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

import fastpop
from fastpop import report, testing
from fastpop.diagnostics import Diagnostic, Null, audit, audit_many
from fastpop.diagnostics.null import Label
from fastpop.ops import permutation
from fastpop.report import glossary
from fastpop.testing import registered


@dataclass(frozen=True)
class Turned(Null):
    name = "turned"
    words = "a direction drawn at random in the whole space of items"
    note = "A small p says that log p is no direction like any other."

    def draw(self, label_V, rng, stratum_V):
        drawn_V = rng.standard_normal(len(label_V))
        return drawn_V / np.linalg.norm(drawn_V)


class Shuffled(Label):
    """The label null the slow way: the generic path, and the exact moments of ours."""

    name = "shuffled"
    project = Null.project

    def moments(self, label_V, plus, minus, stratum_V):
        return Label().moments(label_V, plus, minus, stratum_V)


@dataclass(frozen=True)
class Spread(Diagnostic):
    name = "spread"
    label = "Spread"
    definition = "Standard deviation of the mean score over items, times `scale`."
    bounds = (0.0, math.inf)
    scale: float = 1.0

    def measure(self, moments, log_prior_V):
        return self.scale * float(moments.mean_score().std())


class Ends(Diagnostic):
    name = "ends"
    label = "Mean score"
    definition = "The least and the largest mean score of an item."

    def measure(self, moments, log_prior_V):
        score_V = moments.mean_score()
        return {"least": score_V.min(), "largest": score_V.max(), "undefined": math.nan}


def problem(seed=0, num_items=50):
    rng = np.random.default_rng(seed)
    return {
        "query": rng.standard_normal((60, 4)) + 1,
        "items": rng.standard_normal((num_items, 4)),
        "counts": rng.integers(0, 100, num_items),
    }


@pytest.mark.parametrize("name", fastpop.available("nulls"))
def test_our_nulls_pass_the_suite(name):
    testing.check_null(name)


@pytest.mark.parametrize("null", [Turned, Shuffled], ids=str)
def test_toy_nulls_pass_the_suite(null):
    testing.check_null(null)


@pytest.mark.parametrize(
    "diagnostic", [*fastpop.available("diagnostics"), Spread, Spread(scale=2.0), Ends], ids=str
)
def test_diagnostics_pass_the_suite(diagnostic):
    testing.check_diagnostic(diagnostic)


def test_a_null_from_outside_runs_through_an_audit_and_its_page(tmp_path):
    plain = audit(**problem(), permutations=50)
    with registered("null", Turned):
        assert fastpop.available("nulls") == ("label", "stratified", "sign", "turned")
        found = audit(**problem(), permutations=50, null="turned", seed=3)
    assert found.null == "turned"
    assert found.test_shared.kind == "turned"
    assert found.energy_shared == plain.energy_shared
    assert found.test_shared.null_mean is None
    label_V = found.log_prior_V - found.log_prior_V.mean()
    label_V /= np.linalg.norm(label_V)
    score_V = found.mean_score_V
    drawn = []
    for number in range(50):
        rng = np.random.Generator(np.random.Philox(key=np.array([3, number], np.uint64)))
        drawn.append(float(Turned().draw(label_V, rng, None) @ score_V) ** 2)
    np.testing.assert_allclose(found.test_shared.null_P, drawn, rtol=1e-9)
    expected = (1 + sum(value >= found.energy_shared for value in drawn)) / 51
    assert found.p_value_shared == pytest.approx(expected)
    text = " ".join(found.table().split())
    assert "Null: a direction drawn at random in the whole space of items; 50 draws, seed 3." in text
    assert f"mean of the draws {np.mean(drawn):.4g} +- {np.std(drawn):.3g}" in text
    assert Turned.note in text
    assert "beyond relabelling" not in text
    assert max(map(len, found.table().splitlines())) <= 80
    page = report.write_audit_report(tmp_path / "page.html", found.to_dict(samples=True)).read_text()
    assert "turned: a direction drawn at random in the whole space of items, 50 draws, seed 3" in page


def test_the_generic_path_has_the_distribution_of_the_kernel():
    """Not its bits: 20,000 draws of each, whose quantiles agree."""
    rng = np.random.default_rng(0)
    label_V = rng.standard_normal(30)
    label_V = (label_V - label_V.mean()) / np.linalg.norm(label_V - label_V.mean())
    item_VR = rng.standard_normal((30, 1))
    slow = Shuffled().project(label_V, item_VR, 20_000)[:, 0]
    fast = permutation(label_V, item_VR, 20_000)[:, 0]
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(np.quantile(slow, shares), np.quantile(fast, shares), atol=0.05)


def test_paired_tests_share_the_draws_of_a_null_from_outside():
    first, second = (
        fastpop.diagnostics.ScoreMoments.of(*(problem(seed)[key] for key in ("query", "items")))
        for seed in (0, 1)
    )
    log_p = np.log1p(np.arange(50.0))
    found = audit_many({"a": first, "b": second}, log_p, permutations=30, null=Turned())
    pair = found.pairs["a", "b"].shared
    np.testing.assert_allclose(pair.null_P, found.shared["a"].null_P - found.shared["b"].null_P)
    assert pair.null_variance is None


class Short(Turned):
    def draw(self, label_V, rng, stratum_V):
        return label_V / 2


class Lucky(Turned):
    """Directions that are nearly orthogonal to everything: p is always small."""

    def project(self, label_V, item_VR, num_draws, **options):
        return 1e-3 * super().project(label_V, item_VR, num_draws, **options)


class Stuck(Turned):
    def draw(self, label_V, rng, stratum_V):
        return label_V


class Boasting(Shuffled):
    def moments(self, label_V, plus, minus, stratum_V):
        mean, variance = super().moments(label_V, plus, minus, stratum_V)
        return mean, 2 * variance


@pytest.mark.parametrize(
    ("null", "message"),
    [
        (Short, "squares sum to 1"),
        (Lucky, "not of unit length"),
        (Stuck, "the seed has no say"),
        (Boasting, "exact variance"),
    ],
)
def test_the_suite_refuses_nulls_that_break_the_contract(null, message):
    with pytest.raises((AssertionError, ValueError), match=message):
        testing.check_null(null)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"null": Turned}, TypeError, r"null: expected a name or a Null; got the class Turned; make one: T"),
        ({"null": 3}, TypeError, "null: expected a name or a Null; got int"),
        ({"null": "lable"}, ValueError, "did you mean 'label'"),
        ({"null": Turned(), "strata": np.zeros(50, int)}, ValueError, "strata: expected integers"),
        ({"null": "stratified"}, ValueError, "strata: expected integers"),
        ({"null": Short()}, ValueError, r"draw of the null 'turned': expected \[50\] numbers whose squares"),
        (
            {"diagnostics": "spread"},
            TypeError,
            "diagnostics: expected a list of names or diagnostics; got str",
        ),
        ({"diagnostics": ["spread"]}, ValueError, "diagnostics: expected one of 'pc1_scores'"),
        ({"diagnostics": [Spread(), Spread(2.0)]}, ValueError, "diagnostics: expected different names"),
    ],
)
def test_bad_nulls_and_diagnostics_get_one_clear_error(options, error, message):
    with pytest.raises(error, match=message):
        audit(**problem(), **{"permutations": 5} | options)


def test_diagnostics_from_outside_are_rows_of_an_audit(tmp_path):
    with registered("diagnostic", Spread):
        found = audit(**problem(), permutations=0, diagnostics=["spread", Ends(), "pc1_scores"])
        assert glossary.term("spread") == ("Spread", Spread.definition)
        assert glossary.bounds("spread") == (0.0, math.inf)
    assert [one.name for one in found.measured] == ["spread", "ends", "pc1_scores"]
    score_V = found.mean_score_V
    assert found.measured[0].values[""] == pytest.approx(score_V.std())
    rows = {line[:64].strip(): line[64:].strip() for line in found.table().splitlines()}
    assert rows["Spread"] == f"{score_V.std():.4g}"
    assert rows["Mean score, least"] == f"{score_V.min():.4g}"
    assert rows["Mean score, undefined"] == "-"
    assert rows["PC1, scores"]
    kept = json.loads(json.dumps(found.to_dict(samples=True), allow_nan=False))["measured"]
    assert kept[1]["values"]["largest"] == pytest.approx(score_V.max())
    assert kept[1]["values"]["undefined"] is None
    page = report.write_audit_report(tmp_path / "page.html", found.to_dict(samples=True)).read_text()
    assert "Mean score, largest" in page
    assert Ends.definition in page


def test_diagnostics_see_the_items_audited():
    made = problem()
    found = audit(**made, permutations=0, min_count=20, diagnostics=[Spread()])
    assert found.num_items < 50
    assert found.measured[0].values[""] == pytest.approx(found.mean_score_V.std())
    assert audit(**made, permutations=0).measured == ()
    assert "also measured" not in audit(**made, permutations=0).table()


class Ordered(Spread):
    def measure(self, moments, log_prior_V):
        return float(moments.mean_score()[0])


class Negative(Spread):
    def measure(self, moments, log_prior_V):
        return -1.0


class Worded(Spread):
    def measure(self, moments, log_prior_V):
        return "much"


@pytest.mark.parametrize(
    ("diagnostic", "message"),
    [(Ordered, "bounds|order of the items"), (Negative, "outside its bounds"), (Worded, "expected a number")],
)
def test_the_suite_refuses_diagnostics_that_break_the_contract(diagnostic, message):
    with pytest.raises((AssertionError, TypeError), match=message):
        testing.check_diagnostic(diagnostic)
