"""Options of experiments on the command line."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

import fastpop
from fastpop import cli, registry
from fastpop.cli import parse
from fastpop.cli.experiment import options_of
from fastpop.studies import Answer, Frontier, Periods, Study

pytest.importorskip("tyro", reason="tyro, which reads a command line, is not installed")


def test_options_make_the_experiment_that_is_run():
    words = ["--frontier.dice", "40", "1.5", "--frontier.ips=0.3", "--out", "there", "--quick"]
    found = parse.parse(["experiment", "frontier", "clicks.csv", *words])
    assert found.studies == {"frontier": Frontier(dice=(40.0, 1.5), ips=(0.3,))}
    assert (found.name, found.reading.log, str(found.out), found.quick) == (
        "frontier",
        "clicks.csv",
        "there",
        True,
    )
    # A number takes one word, so that the log may stand behind it.
    found = parse.parse(
        ["experiment", "all", "--periods.periods", "12", "clicks.csv", "--frontier.pda", "0.2"]
    )
    assert found.studies == {"periods": Periods(periods=12), "frontier": Frontier(pda=(0.2,))}
    assert found.reading.log == "clicks.csv"
    assert parse.parse(["experiment", "drift"]).studies == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frontier", "--frontier.dice", "1", "x"], "frontier.dice: expected a number; got 'x'"),
        (["frontier", "--frontier.dice=1", "--frontier.dice=2"], "--frontier.dice: expected an option once"),
        (["frontier", "--frontier.dice", "-1"], "frontier.dice: expected .*; got -1"),
        (["frontier", "--frontier.margin", "1"], "frontier.margin: expected an option of 'frontier'"),
        (["drift", "--frontier.dice", "1"], "frontier.dice: expected an option of drift, .*; got frontier"),
    ],
)
def test_what_is_no_option_is_named(words, message):
    with pytest.raises((ValueError, TypeError), match=message):
        parse.parse(["experiment", *words])


def test_what_was_stopped_says_what_it_left(tmp_path):
    asked = parse.parse(["experiment", "all", "--out", str(tmp_path)])
    assert asked.left() == "; nothing was written: the same command starts anew"
    for name, files in {"drift": ["asked.json", "answer.json"], "frontier": ["asked.json"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    number = len(fastpop.available("experiments"))
    kept = f"what was trained is in {tmp_path}: the same command goes on"
    assert asked.left() == f"; 1 of {number} answered, {kept}"
    alone = parse.parse(["experiment", "frontier", "--out", str(tmp_path)])
    assert alone.left() == f"; 0 of 1 answered, {kept}"


def test_an_unknown_experiment_is_named_before_its_options():
    asked = parse.parse(["experiment", "nosuch", "--train", "prior=none"])
    with pytest.raises(ValueError, match=r"^name: expected one of 'decomposition'"):
        asked.run()


def test_options_of_every_model():
    assert options_of([]) == {}
    words = ["max-length=20", "dropout=0.4", 'encoder="gru4rec"', "loss=full_softmax", "base=false"]
    expected = {"max_length": 20, "dropout": 0.4, "encoder": "gru4rec", "loss": "full_softmax", "base": False}
    assert options_of(words) == expected
    found = parse.parse(["experiment", "frontier", "clicks.csv", "--train", *words[:2], "--quick"])
    assert (found.train, found.quick, found.reading.log) == (tuple(words[:2]), True, "clicks.csv")


@pytest.mark.parametrize("words", [["--train"], ["--train", "dim=8", "--train", "epochs=2"]])
def test_options_of_models_are_given_once_and_are_some(words):
    with pytest.raises(
        ValueError, match=r"^train: expected (a value; got nothing|the option once, .*; got it)"
    ):
        parse.parse(["experiment", "frontier", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["max_length"], "train: expected NAME=VALUE, such as max_length=20; got 'max_length'"),
        (["max_length=x"], "max_length: expected an integer; got str"),
        (["dim=8", "dim=8"], "train: dim: expected an option once"),
        (["width=8"], "width: expected an option of TrainConfig; got an unknown one"),
    ],
)
def test_what_is_no_option_of_models_is_named(words, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        options_of(words)


def test_help_says_the_options_of_what_is_asked(capsys):
    with pytest.raises(SystemExit):
        cli.main(["experiment", "frontier", "--help"])
    told = capsys.readouterr().out
    assert "--frontier.dice  (default: (40.0, 10.0, 3.0))" in told
    assert "--periods.periods" not in told
    assert max(map(len, told.splitlines())) <= 80


@dataclass(frozen=True)
class Told(Study):
    """Says its options."""

    name: ClassVar[str] = "told"
    question: ClassVar[str] = "What was asked?"
    often: bool = False
    words: str = "none"

    def run(self, setting):
        return Answer({"often": float(self.often)}, (self.words,))


def test_an_experiment_of_another_package_takes_its_options(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    with registry.registered("experiment", Told):
        words = ["told", "--told.often", "--told.words", "these"]
        cli.main(["experiment", *words, "--quick", "--out", str(tmp_path / "out")])
    found = fastpop.studies.run.sealed.read(tmp_path / "out" / "told" / "answer.json")
    assert (found["values"]["often"], found["sentences"]) == (1.0, ["these"])
    assert found["made_by"]["options"] == {"often": True, "words": "these"}
    assert "these" in capsys.readouterr().out
