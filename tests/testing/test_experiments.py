"""The suite of experiments: toys from outside pass it, and it says what is wrong with those that do not."""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import toy_judges

from fastpop import testing
from fastpop.studies import Answer, Chart, Series, Study, Table
from fastpop.studies.models import model_options, trained

LINE = Series("users", (1.0, 2.0), (3.0, 4.0), (2.0, 3.0), (4.0, 5.0))
CHART = Chart("users", "Users", "nothing", "users", (LINE,))
SOUND = Answer(
    {"users": 3.0, "users.low": 2.0, "users.high": 4.0},
    ("3 users.",),
    (Table("Users", ("what", "number"), (("users", 3.0), ("none", None))),),
    (CHART,),
)


@dataclass(frozen=True)
class Trains(Study):
    """Two models, each in a folder of its own."""

    name: ClassVar[str] = "toy-trains"
    question: ClassVar[str] = "Which of two seeds is better?"
    dim: int = 4
    runs: ClassVar[list] = []

    def run(self, setting):
        self.runs.append(setting.folder)
        options = {**model_options(setting), "dim": self.dim, "epochs": 1}
        found = [
            trained(setting, f"seed-{seed}", **options, seed=seed).metrics["ndcg@10"] for seed in range(2)
        ]
        return Answer(
            dict(zip(("first", "second"), found)), (f"The {'first' if found[0] > found[1] else 'second'}.",)
        )


@dataclass(frozen=True)
class Gives(Study):
    """An answer that is given."""

    name: ClassVar[str] = "toy-gives"
    question: ClassVar[str] = "What is given?"
    answer: ClassVar[Answer] = SOUND

    def run(self, setting):
        return self.answer


@pytest.mark.parametrize("study", [toy_judges.CountsUsers, Trains, Trains(dim=8), Gives], ids=str)
def test_toys_pass_the_suite(study):
    Trains.runs.clear()
    testing.check_experiment(study)
    if isinstance(study, Trains) or study is Trains:
        asked, went_on, stopped, again = Trains.runs
        assert len({asked, went_on, stopped}) == 3
        assert stopped == again


class Changes(Gives):
    """Something else every time."""

    count = itertools.count()

    def run(self, setting):
        return replace(SOUND, values={"users": float(next(self.count))})


class Forgets(Gives):
    """Another answer where its folder was there before."""

    def run(self, setting):
        there = setting.folder.exists() and any(setting.folder.glob("kept"))
        setting.folder.mkdir(exist_ok=True)
        (setting.folder / "kept").write_text("")
        return replace(SOUND, sentences=("Again.",)) if there else SOUND


class Writes(Gives):
    """No question."""

    question = "What\nis given?"


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (Changes, "toy-gives: an answer that went on has other values: users, 0.0 and 1.0"),
        (Forgets, "toy-gives: an answer that went on has other sentences: '3 users.' and 'Again.'"),
        (Writes, "toy-gives: question in one line"),
        (type("Needs", (Gives,), {"needs": "nothing"}), "toy-gives: needs 'log' or 'time'; got 'nothing'"),
    ],
)
def test_the_suite_refuses_what_breaks_the_contract(study, message):
    with pytest.raises(AssertionError, match=f"^{message}"):
        testing.check_experiment(study)


WIDE = tuple(f"column {number:05}" for number in range(9))


def series(**changed):
    return {"charts": (replace(CHART, series=(replace(LINE, **changed),)),)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": {"users": float("nan")}}, "values, users: finite numbers; got nan"),
        ({"values": {"users": "three"}}, "value users a number; got 'three'"),
        ({"values": {"users": 3.0, "users.low": 2.0}}, "users.low beside users.high"),
        ({"values": {"users.low": 2.0, "users.high": 2.5}}, "users.low beside users"),
        ({"values": {"users": 3.0, "users.low": 4.0, "users.high": 2.0}}, "the interval of users is turned"),
        ({"values": {}}, "at least one value"),
        ({"sentences": ()}, "at least one sentence"),
        ({"sentences": ("Two\nlines.",)}, "a sentence is one line"),
        ({"tables": (Table("Users", ("what",), (("users", 3.0),)),)}, "table 'Users': a cell a column"),
        ({"tables": (Table("Users", ("what",), ((object(),),)),)}, "tables, rows: plain data; got object"),
        ({"tables": (Table("Users", WIDE, (WIDE,)),)}, "text of at most 80 columns"),
        ({"charts": (CHART, CHART)}, "charts of different names"),
        ({"charts": (replace(CHART, name="../users"),)}, "a name that a file can have"),
        ({"charts": (replace(CHART, series=()),)}, "at least one series"),
        ({"charts": (replace(CHART, ticks=("one", "two")),)}, "x among the ticks; got 2.0"),
        (series(y=(3.0,)), "as many y as x; got 1 and 2"),
        (series(low=()), "both ends of intervals"),
        (series(low=(9.0, 9.0)), "an interval is turned"),
        (
            {"charts": (replace(CHART, log_y=True, series=(replace(LINE, y=(0.0, 1.0)),)),)},
            "y above 0, where the axis is logarithmic",
        ),
    ],
)
def test_an_answer_is_plain_whole_and_can_be_drawn(changed, message):
    testing.check_answer(SOUND)
    with pytest.raises(AssertionError, match=f"^toy: .*{message}|^toy, .*{message}"):
        testing.check_answer(replace(SOUND, **changed), "toy")
