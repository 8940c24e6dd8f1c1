"""Rows that need no model: ours pass the public suite, one from outside stands in the table and has to be
beaten, and options are chosen on the validation part."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from helpers_logs import small_log

import fastpop
from fastpop import evaluation, testing
from fastpop.data import Interactions
from fastpop.data.split import split
from fastpop.evaluation import Reference
from fastpop.evaluation.reference import Recency, RecencyWindow
from fastpop.experiments.compare import REFERENCES
from fastpop.experiments.one_arm import Judged
from fastpop.experiments.references import asked_for, reference_rows
from fastpop.popularity import recency_counts
from fastpop.popularity.temporal import DAY
from fastpop.testing import registered
from fastpop.training import TrainConfig

QUICK = {
    "epochs": 2,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 32,
    "learning_rate": 0.03,
    "permutations": 9,
    "progress": False,
    "popularity_weights": (),
    "arms": ["standard"],
}


@dataclass(frozen=True)
class Cheat(Reference):
    """Knows the test part of small_log: what follows is that models are beaten by counts."""

    name: ClassVar[str] = "toy-cheat"
    trained_on: ClassVar[str] = "the targets"
    served_as: ClassVar[str] = "a step"
    power: float = 0.0

    def candidates(self, half):
        return tuple(Cheat(power) for power in (0.01, 0.02, 1.0)) if self.power == 0 else (self,)

    def fit(self, log):
        def of_cases(cases):
            score_CV = np.tile(np.arange(cases.num_items) / 1e3, (cases.num_cases, 1))
            if self.power == 1:  # of the three the one that is worth something
                score_CV[np.arange(cases.num_cases), cases.target_item] = 1
            return lambda rows: score_CV[rows]

        return of_cases


@dataclass(frozen=True)
class Level(Reference):
    name: ClassVar[str] = "toy-level"
    trained_on: ClassVar[str] = "nothing"
    served_as: ClassVar[str] = "the number of the item"
    logits: ClassVar[bool] = True

    def shared(self, log):
        return -np.log1p(np.arange(log.num_items))


@pytest.mark.parametrize(
    "reference", [*fastpop.available("references"), Recency(half_life_days=3.0), RecencyWindow(days=7), Level]
)
def test_ours_and_a_toy_pass_the_suite(reference):
    testing.check_reference(reference)


class Forgets(Level):
    name: ClassVar[str] = "toy-forgets"

    def shared(self, log):
        return np.random.default_rng().standard_normal(log.num_items)


class Chunks(Level):
    name: ClassVar[str] = "toy-chunks"

    def shared(self, log):
        return None

    def fit(self, log):
        return lambda cases: lambda rows: np.full((rows.stop - rows.start, log.num_items), rows.start / 1.0)


class Endless(Level):
    name: ClassVar[str] = "toy-endless"

    def candidates(self, half):
        return Level(), Endless()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Forgets, "not the same twice"),
        (Chunks, "hangs on the chunk"),
        (Endless, "candidates of another class"),
    ],
)
def test_the_suite_sees_what_is_wrong(reference, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_reference(reference)


def test_a_class_that_scores_nothing_is_refused():
    @dataclass(frozen=True)
    class Empty(Reference):
        name: ClassVar[str] = "toy-empty"

    with pytest.raises(TypeError, match=r"Empty.fit or shared: expected a method of its own; got none"):
        fastpop.register("reference", Empty)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("references") / "out"
    with registered("reference", Cheat), registered("reference", Level):
        assert fastpop.available("references")[-2:] == ("toy-cheat", "toy-level")
        found = fastpop.compare(
            small_log(events=2000), seeds=3, out=out, references=["markov", "toy-cheat", Level()], **QUICK
        )
    return found, out


def test_one_from_outside_stands_in_the_table_and_in_the_first_sentence(compared):
    found, out = compared
    listed = json.loads((out / "comparison.json").read_text())["arms"]
    assert [(arm["name"], arm["kind"]) for arm in listed[-3:]] == [
        ("markov", "reference"),
        ("toy-cheat", "reference"),
        ("toy-level", "reference"),
    ]
    assert listed[-2]["trained_on"] == "the targets"
    assert found.headline.startswith("These models are beaten by counts: NDCG@10 of toy-cheat 1.0000")
    assert "the targets" in (out / "report.html").read_text()
    assert "toy-level" in found.table()
    assert "popularity" not in {row["arm"] for row in found.rows}


def test_a_row_that_is_the_same_for_every_case_has_energies_and_an_nll(compared):
    found, _ = compared
    assert found.value("toy-level", "energy_total", 1.0) > 0
    assert found.value("toy-level", "nll", 1.0) > 0
    with pytest.raises(ValueError, match="metric: expected one of"):
        found.value("toy-cheat", "nll", 1.0)


def test_the_rules_say_what_was_chosen_and_by_what(compared):
    found, _ = compared
    assert found.comparison["rules"]["references"] == (
        "toy-cheat: power 1, chosen by NDCG@10 on the validation part"
    )


def judged(log, **changes):
    parts = split(log, "leave-last-out")
    given = {
        "train": parts.train,
        "before_valid": parts.train,
        "known": parts.known,
        "valid": parts.valid,
        "test": parts.test,
        "shown": None,
        "counts_V": parts.train.item_counts(),
        "log_prior_V": np.log(parts.train.item_counts() + 1.0),
        "betas": (1.0,),
    }
    return Judged(**given | changes)


def test_the_window_is_the_best_of_the_validation_part():
    """By hand: every window judged on the same cases."""
    rng = np.random.default_rng(0)
    day, users = 400, 300
    time = np.sort(rng.integers(0, day, 6000))
    item = (time // 4 + rng.geometric(0.3, 6000)) % 60  # what is popular moves on
    log = Interactions.from_arrays(rng.integers(0, users, 6000), item, time * DAY)
    ground = judged(log)
    config = TrainConfig()
    rows, chosen = reference_rows([RecencyWindow()], ground, ground.test, None, None, config)

    def ndcg(days, known, cases):
        score = evaluation.recency_scorer(known, cases, window=days * DAY)
        return evaluation.evaluate(score, cases, ks=(10,), logits=False).metrics["ndcg@10"]

    values = {
        one.days: ndcg(one.days, ground.before_valid, ground.valid)
        for one in RecencyWindow().candidates(ground.train)
    }
    best = max(values, key=lambda days: values[days])
    assert best not in (14.0, 224.0)
    assert chosen["recency-window"] == {"options": {"days": best}, "by": "NDCG@10 on the validation part"}
    assert rows["recency-window"]["ndcg@10"] == ndcg(best, ground.known, ground.test)
    _, chosen = reference_rows([RecencyWindow()], judged(log, valid=None), ground.test, None, None, config)
    assert chosen["recency-window"] == {
        "options": {"days": 14.0},
        "by": "nothing: there is no validation part",
    }
    rows, chosen = reference_rows([RecencyWindow(days=3)], ground, ground.test, None, None, config)
    assert chosen == {}


def test_recency_is_tuned_by_likelihood_and_says_so():
    log = small_log(events=2000)
    log = replace(log, time=log.time * 3600)
    ground = judged(log)
    _, chosen = reference_rows([Recency()], ground, ground.test, None, None, TrainConfig())
    found = recency_counts(ground.train)
    days = found.half_life / DAY if np.isfinite(found.half_life) else None
    assert chosen["recency"] == {
        "options": {"half_life_days": days, "alpha": found.alpha},
        "by": "the likelihood of half A's later events",
    }


def test_rows_that_a_log_cannot_have_are_left_out():
    log = small_log()
    plain = Interactions.from_arrays(log.user, log.item, None)
    ground = judged(plain, known=plain, before_valid=plain, train=plain, valid=None, test=None)
    assert set(
        reference_rows(asked_for(REFERENCES, TrainConfig()), ground, None, None, None, TrainConfig())[0]
    ) == {"popularity"}


def test_smoothing_of_log_p_is_that_of_the_configuration():
    assert [repr(one) for one in asked_for(["popularity", "markov"], TrainConfig(smoothing=0.5))] == [
        "Popularity(smoothing=0.5)",
        "Markov()",
    ]


@pytest.mark.parametrize(
    ("references", "kind", "message"),
    [
        ("popularity", TypeError, "references: expected a list of names or references; got str"),
        (["popularty"], ValueError, r"references: expected one of .*did you mean 'popularity'"),
        (["markov", "markov"], ValueError, "references: expected different names, and none of an arm"),
        ([RecencyWindow], TypeError, "references: expected a name or a Reference; got the class"),
    ],
)
def test_bad_references_get_one_clear_error(references, kind, message):
    with pytest.raises(kind, match=message):
        fastpop.compare(small_log(), references=references, **QUICK)


def test_an_arm_may_not_have_the_name_of_a_row():
    for name in ("popularity", "item-mean"):
        with pytest.raises(ValueError, match="arms: expected"):
            fastpop.compare(small_log(), **QUICK | {"arms": [name]})


def test_the_command_line_asks_for_the_same_rows():
    from fastpop.cli.parse import parse

    assert parse(["compare", "bundled", "--out", "x"]).references == REFERENCES
