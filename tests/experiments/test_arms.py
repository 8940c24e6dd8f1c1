"""Arms in the registry: ours pass the public suite, and ones from outside stand in the table."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from helpers_logs import small_log

import fastpop
from fastpop import testing
from fastpop.data.split import event_halves
from fastpop.experiments import ARMS, Arm
from fastpop.testing import registered
from fastpop.training import build, fit
from fastpop.training.result import moments_of

QUICK = {
    "epochs": 3,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 32,
    "learning_rate": 0.03,
    "permutations": 49,
    "progress": False,
    "popularity_weights": (0.5,),
}


def halved(moments, log_prior_V):
    return moments.with_popularity(-0.5, log_prior_V)


HALVED = Arm("halved", "not trained: standard minus half of log p", "s + (beta - 1/2) log p", make=halved)
LEARNED_B = Arm(
    "learned-from-b",
    "s + a, a learned from log p of the other half",
    "s + beta a",
    "learned",
    "B",
    "log-prior",
)


@pytest.mark.parametrize("name", fastpop.available("arms"))
def test_ours_pass_the_suite(name):
    testing.check_arm(name)


@pytest.mark.parametrize("arm", [HALVED, LEARNED_B], ids=lambda arm: arm.name)
def test_toys_pass_the_suite(arm):
    testing.check_arm(arm)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("arms") / "out"
    with registered("arm", HALVED), registered("arm", LEARNED_B):
        assert fastpop.available("arms")[-2:] == ("halved", "learned-from-b")
        found = fastpop.compare(
            small_log(events=2000), seeds=3, out=out, arms=["halved", "frozen", "learned-from-b"], **QUICK
        )
        with pytest.warns(UserWarning, match="is finished: it is shown, and nothing is trained"):
            again = fastpop.compare(
                small_log(events=2000), seeds=3, out=out, arms=["frozen", "halved", "learned-from-b"], **QUICK
            )
    assert again.comparison["rows"] == found.comparison["rows"]
    return found, out


def test_arms_from_outside_stand_in_the_table_after_ours(compared):
    found, out = compared
    listed = json.loads((out / "comparison.json").read_text())["arms"]
    assert [arm["name"] for arm in listed] == [
        "standard",
        "frozen",
        "learned-from-b",
        "post-hoc",
        "post-hoc-fitted",
        "projected",
        "halved",
        "popularity",
        "recency",
        "recency-window",
        "markov",
    ]
    by_name = {arm["name"]: arm for arm in listed}
    assert by_name["halved"]["kind"] == "afterwards"
    assert by_name["learned-from-b"]["kind"] == "trained"
    assert by_name["halved"]["trained_on"] == HALVED.trained_on
    page, text = (out / "report.html").read_text(), found.table()
    for arm in (HALVED, LEARNED_B):
        assert arm.trained_on in page
        assert arm.served_as in page
        assert arm.name in text


def test_what_is_made_afterwards_is_made_of_the_same_model(compared):
    """Half of log p off, at beta 1/2, is the model as trained; slopes fall by a half."""
    found, _ = compared
    for epochs in ("best", "equal"):
        for metric in ("ndcg@10", "arp@10"):
            assert found.value("halved", metric, 0.5, epochs) == pytest.approx(
                found.value("standard", metric, 1.0, epochs), rel=1e-6
            )
        slope = found.value("standard", "slope", epochs=epochs)
        assert found.value("halved", "slope", epochs=epochs) == pytest.approx(slope - 0.5)
        assert found.value("halved", "energy_off_direction", epochs=epochs) == pytest.approx(
            found.value("standard", "energy_off_direction", epochs=epochs)
        )


def test_an_arm_that_trains_is_trained_as_it_says(compared):
    """Frozen beside log p of the other half is the arm disjoint."""
    found, _ = compared
    with registered("arm", replace(LEARNED_B, name="frozen-b", prior="frozen", bias_start="zero")):
        other = fastpop.compare(small_log(events=2000), seeds=1, arms=["disjoint", "frozen-b"], **QUICK)
    for metric in ("energy_shared", "slope"):
        assert other.value("frozen-b", metric) == other.value("disjoint", metric)
    assert found.value("learned-from-b", "slope") != found.value("frozen", "slope")


def test_its_differences_from_standard_are_said_in_words(compared):
    found, _ = compared
    said = {
        arm: next(text for text in found.sentences if text.startswith(f"{arm} ("))
        for arm in ("halved", "learned-from-b")
    }
    assert said["halved"].startswith(
        "halved (not trained: standard minus half of log p; served: s + (beta - 1/2) log p) at beta 0, "
        "minus standard as trained: NDCG@10 "
    )
    assert "at beta 1, minus standard as trained: NLL " in said["learned-from-b"]
    difference = found.value("halved", "ndcg@10", 0.0) - found.value("standard", "ndcg@10", 1.0)
    assert f"NDCG@10 {difference:+.4f}" in said["halved"]


def test_a_folder_goes_on_with_the_same_definitions_only(compared):
    _, out = compared
    changed = replace(HALVED, served_as="otherwise")
    with registered("arm", changed), registered("arm", LEARNED_B), pytest.raises(ValueError, match="others"):
        fastpop.compare(
            small_log(events=2000), seeds=3, out=out, arms=["frozen", "halved", "learned-from-b"], **QUICK
        )


def test_arms_of_ours_that_are_always_made_may_be_named():
    one, two = (
        fastpop.compare(small_log(), seeds=1, arms=arms, **QUICK | {"epochs": 1})
        for arms in (["standard"], ["standard", "post-hoc"])
    )
    assert one.comparison["rows"] == two.comparison["rows"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"log_prior": "C"}, ValueError, "arm.log_prior: expected one of 'A', 'B', 'permuted'; got 'C'"),
        ({"bias_start": "one"}, ValueError, "arm.bias_start: expected one of"),
        (
            {"prior": "frozen", "make": halved},
            ValueError,
            "arm.make: expected a function, of an arm that does",
        ),
        ({"make": 3}, ValueError, "arm.make: expected a function"),
        ({"served_as": None}, TypeError, "arm.served_as: expected a string; got NoneType"),
    ],
)
def test_what_is_no_arm_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        Arm(**{"name": "x", "trained_on": "s", "served_as": "s"} | options)


def test_log_p_of_each_period_is_an_arm_on_request(tmp_path):
    """Trained as `fastpop.train(prior="by-period")` trains on half A; with one period it would be frozen."""
    log = small_log(events=2000)
    asked = QUICK | {"epochs": 1}
    found = fastpop.compare(log, seeds=1, arms=["frozen", "by-period"], **asked)
    half = event_halves(fastpop.data.split(log).train, 0)[0]
    options = {name: QUICK[name] for name in ("dim", "batch_size", "num_negatives", "learning_rate")}
    config = fastpop.TrainConfig(**options, epochs=1, prior="by-period")
    assembly = build.assemble(config, log, half, np.zeros(log.num_items))
    fit(assembly, show=False)
    log_p_V = build.target_prior(half, "factor").log_prior_V
    energy = moments_of(assembly.model, half).energy(log_p_V)
    assert found.value("by-period", "slope", epochs="equal") == pytest.approx(energy.slope_mean, rel=1e-4)
    assert found.value("by-period", "slope") != found.value("frozen", "slope")
    assert any(text.startswith("by-period (s + tau log p of the row's period; ") for text in found.sentences)
    timeless = fastpop.Interactions.from_arrays(log.user, log.item)
    with pytest.raises(ValueError, match=r"^log: expected events with times, which the arm 'by-period' asks"):
        fastpop.compare(timeless, arms=["by-period"], out=tmp_path / "none", **asked)
    assert not (tmp_path / "none").exists()


def test_names_and_kinds_that_no_comparison_can_have_are_refused():
    named = replace(HALVED, name="popularity")
    with registered("arm", named), pytest.raises(ValueError, match="with names of their own"):
        fastpop.compare(small_log(), arms=["popularity"], **QUICK)
    with registered("arm", Arm("idle", "s", "s")), pytest.raises(ValueError, match="arms that train or are"):
        fastpop.compare(small_log(), arms=["idle"], **QUICK)
    with pytest.raises(ValueError, match="name: expected 'halved', as the object is called; got 'other'"):
        fastpop.register("arm", HALVED, name="other")
    with pytest.raises(ValueError, match="one that no other arm has; got 'frozen'"):
        fastpop.register("arm", replace(HALVED, name="frozen"))
    assert set(ARMS) < set(fastpop.available("arms"))


def test_a_class_that_is_registered_is_made_with_its_name():
    @dataclass(frozen=True)
    class Twice(Arm):
        name: str = "twice"
        trained_on: str = "not trained: standard minus log p, twice"
        served_as: str = "s + (beta - 2) log p"
        make: Callable = doubled

    with registered("arm", Twice, name="two"):
        found = fastpop.compare(small_log(), seeds=1, arms=["two"], **QUICK | {"epochs": 1})
    assert found.value("two", "slope") == pytest.approx(found.value("standard", "slope") - 2)


def doubled(moments, log_prior_V):
    return moments.with_popularity(-2, log_prior_V)


def fewer(moments, log_prior_V):
    return moments.of_items(np.arange(5))


turns = iter(range(100))


def restless(moments, log_prior_V):
    return moments.with_popularity(next(turns), log_prior_V)


def others(moments, log_prior_V):
    return replace(moments, query_mean_D=moments.query_mean_D + 1)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (replace(HALVED, make=fewer), r"make of the arm 'halved': expected an item table \[60, 5\]"),
        (replace(HALVED, make=restless), "not the same twice"),
        (replace(HALVED, make=others), "the standard model's queries"),
        (replace(HALVED, make=lambda moments, log_prior_V: 3), "expected ScoreMoments; got int"),
        (replace(HALVED, trained_on=""), "trained_on in one line"),
        (replace(LEARNED_B, prior="thawed"), "prior: expected one of"),
        (Arm("idle", "s", "s"), "neither trains"),
    ],
)
def test_the_suite_refuses_what_breaks_the_contract(arm, message):
    with pytest.raises((AssertionError, ValueError, TypeError), match=message):
        testing.check_arm(arm)
