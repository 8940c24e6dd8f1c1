"""`fastpop experiment`: questions asked of a log, one by one or all of them."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional, Suppress

from fastpop import checks, registry
from fastpop.cli.options import LogOptions, readable, writable
from fastpop.training.config import TrainConfig

ALL = "all"


@readable({"log": "LOG"})
@dataclass(frozen=True)
class ExperimentLog(LogOptions):
    """Where the events are; the bundled log where nothing is said."""

    log: Positional[str] = "bundled"
    """As `fastpop train` takes it; the word bundled: MovieTweetings 100K, which comes with the package."""


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """Options of `fastpop.train` of "max_length=20", values as TOML has them, text with quotes or without.
    Raises ValueError, TypeError."""
    found: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        name = name.replace("-", "_")
        if not sign or not name:
            raise checks.wrong("train", "NAME=VALUE, such as max_length=20", word)
        if name in found:
            raise checks.wrong(f"train: {name}", "an option once", word)
        try:
            found[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = text
    TrainConfig.from_dict(dict(found))  # what is wrong with one is told before the log is read
    return found


@readable({"name": "NAME"})
@dataclass(frozen=True)
class Experiment:
    """Ask a log one of the questions of the field, or all of them.

    Stopped at any moment, the same command goes on where it was.
    """

    name: Positional[str]
    """Of the experiment, or the word all."""
    reading: OmitArgPrefixes[ExperimentLog]
    out: Path = Path("experiments")
    """A folder of its own for each answer, its pictures and its models is made in it."""
    quick: bool = False
    """Tiny models of a few hundred users, to see that everything runs."""
    seeds: int = 0
    """Runs of every model; 0: the experiment's own."""
    title: str = ""
    """What the log is called in titles; its file's name where nothing is said."""
    test: str | None = None
    """Beside --test-is-randomised: a file like the log, all of whose rows were shown at random."""
    test_is_randomised: bool = False
    """Rows of --test that --min-rating keeps were liked: for experiments that judge the shown items."""
    train: tuple[str, ...] = ()
    """Options of `fastpop train` for every model, NAME=VALUE, over those of the experiment: max_length=20
    dropout=0.4."""
    deadline: str | None = None
    """Stop after so long (90m, 2h30m, 45s) as a signal would: exit code 75, and the same command goes on."""
    studies: Suppress[dict[str, Any]] = field(default_factory=dict)
    """Experiments with options of their own, by name: --NAME.OPTION, which `cli.studies` reads."""

    def run(self) -> dict[str, Any]:
        from fastpop.studies import experiment
        from fastpop.studies.run import check_options

        checks.needed("matplotlib", "report", "the pictures")
        checks.number("seeds", self.seeds, ge=0, integer=True)
        options = options_of(self.train)
        names = self._names()
        for name in names:
            registry.find("experiment", name, "name")
        if self.name != ALL:  # of all, those that set it are left out
            check_options(self.studies.get(self.name, self.name), options)
        writable("out", self.out, folder=True)
        if self.test is not None and not self.test_is_randomised:
            raise checks.wrong("test", "no test part without --test-is-randomised", self.test)
        log = self.reading.read()
        print(log, flush=True)
        parts = {}
        if self.test_is_randomised:
            shown, rated = self.reading.read_shown(self.test)
            parts = {"test": self.reading.read_test(self.test), "shown": shown, "rated": rated}
        file = "MovieTweetings 100K" if self.reading.log == "bundled" else Path(self.reading.log).name
        title = self.title or file
        left_out: ValueError | None = None
        answers, refused = {}, {}
        for name in names:
            try:
                found = experiment(
                    self.studies.get(name, name),
                    log,
                    **parts,
                    quick=self.quick,
                    seeds=self.seeds,
                    name=title,
                    out=self.out / name,
                    **options,
                )
            except ValueError as error:  # of this experiment: the others may do with the log
                if self.name != ALL:
                    raise
                print(f"\n{name}: left out. {error}", flush=True)
                left_out, refused[name] = error, str(error)
                continue
            answers[name] = found.answer
            print("\n" + found.table(), flush=True)
        if left_out is not None and not answers:
            raise left_out
        print(f"\nanswers and pictures are in {self.out}")
        return {"out": str(self.out), "answers": answers, "left_out": refused}

    def _names(self) -> list[str]:
        return list(registry.available("experiments")) if self.name == ALL else [self.name]

    def left(self) -> str:
        """What experiments that were stopped left, and how they go on."""
        from fastpop.studies.run import ANSWER, ASKED

        names = self._names()
        if not any((self.out / name / ASKED).exists() for name in names):
            return "; nothing was written: the same command starts anew"
        answered = sum((self.out / name / ANSWER).exists() for name in names)
        said = f"{answered} of {len(names)} answered"
        return f"; {said}, what was trained is in {self.out}: the same command goes on"
