"""Run an experiment, keep its answer as data and pictures, and say it in words."""

import contextlib
import dataclasses
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastpop
from fastpop import checks, registry, report
from fastpop.data.interactions import Interactions
from fastpop.data.paths import local_path
from fastpop.data.prepare import as_log
from fastpop.frozen import freeze
from fastpop.studies.models import small
from fastpop.studies.study import Setting, Study
from fastpop.text import Tabled
from fastpop.training import TrainConfig, checkpoint, sealed
from fastpop.training import folder as run_folder
from fastpop.training.damaged import write_anew

QUICK_SEEDS = 1
ASKED = "asked.json"  # the question, in its folder before there is an answer
ANSWER = "answer.json"  # written last
SUMS = "sha256"  # a key there: checksums of what stands beside it


class Watch:
    """How long an experiment took, in seconds; a file knows of the processes before this one."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.since = path, time.perf_counter()
        self.before = 0.0
        if path is not None and path.exists():
            try:
                self.before = sealed.read(path)["seconds"]
            except sealed.Damaged as error:
                warnings.warn(f"{error}. Time before this process is not counted.", stacklevel=3)

    def lap(self) -> float:
        total = self.before + time.perf_counter() - self.since
        if self.path is not None:
            sealed.write(self.path, {"seconds": total})
        return total


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult(Tabled):
    """answer: values, sentences, tables and charts of one experiment, with what made it, as plain data."""

    answer: dict[str, Any]

    def __post_init__(self) -> None:
        freeze(self, "answer")

    @property
    def values(self) -> dict[str, float]:
        return self.answer["values"]

    @property
    def sentences(self) -> list[str]:
        return self.answer["sentences"]

    def table(self) -> str:
        """The answer in words and numbers, at most 80 columns."""
        return report.study_text(self.answer)

    def save(self, out: str | Path) -> Path:
        """Write out/answer.json, answer.txt and a picture (SVG) a chart. answer.json is closed by a checksum,
        and has those of the others. Returns its path."""
        place = local_path(out, "out")
        checks.needed("matplotlib", "report", "experiment(out=...)")
        texts = {f"{name}.svg": svg for name, svg in report.study_pictures(self.answer).items()}
        texts["answer.txt"] = self.table() + "\n"
        for name, text in texts.items():
            report.write_text(place / name, text)
        sealed.write(place / ANSWER, {**report.plain(self.answer), SUMS: sealed.sums(place, texts)})
        return place / ANSWER

    def __repr__(self) -> str:
        lines = [f"StudyResult: {self.answer['experiment']}, {self.answer['log']}", *self.sentences]
        return "\n  ".join([*lines, ".table() .values .sentences .save(folder)"])


def experiment(
    study: str | Study,
    log: Interactions | str | Path | None = None,
    *,
    test: Interactions | None = None,
    shown: Interactions | None = None,
    rated: Interactions | None = None,
    quick: bool = False,
    seeds: int = 0,
    name: str = "",
    out: str | Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> StudyResult:
    """Ask one question of a log, at the sizes that answer it.

    Args:
        study: a name (`fastpop.available("experiments")`) or an object of one, with its options.
        log: from `fastpop.read_log`, or a prepared folder; None takes the bundled one, and leaves what needs
            no log to itself.
        test, shown, rated: of a randomised test part, as in `fastpop.compare`, for experiments that judge
            one: events that were liked, all that were shown, the training part with ratings for weights.
        quick: tiny models of a few hundred users, to see that everything runs: its numbers mean nothing.
        seeds: runs of every model; 0 takes the experiment's own, and one where it is quick.
        name: of the log, for titles.
        out: a folder for the answer, its pictures and every model. A stopped experiment goes on there; one
            that is finished is given back.
        progress: show bars; None shows them on a terminal.
        options: of `fastpop.train`, for every model.
    Returns:
        StudyResult.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came.
    Cost: minutes to hours, as docs/experiments.md says of each; seconds where it is quick.
    """
    part = _part(study)
    if not isinstance(quick, bool):
        raise checks.wrong_type("quick", "true or false", quick)
    checks.number("seeds", seeds, ge=0, integer=True)
    check_options(part, options)
    log_name = name
    if log is None:
        from fastpop.data.demo_log import NAME, bundled_log

        log, log_name = bundled_log(), name or NAME
    log = as_log(log)
    if part.needs == "time" and log.time is None:
        raise checks.wrong(
            "log", f"events with times, which {part.name} asks about", text="a log without times"
        )
    _check_shown(part, test, shown, rated)
    if quick and shown is None:
        log = small(log)
    if log.num_items < 4:
        raise checks.wrong("log", "at least 4 items", text=str(log.num_items))
    place = None if out is None else local_path(out, "out")
    seeds = seeds or (QUICK_SEEDS if quick else part.default_seeds)
    asked: dict[str, Any] = {
        "version": fastpop.__version__,
        "experiment": part.name,
        "options": part.options(),
        "quick": quick,
        "seeds": seeds,
        "train": {key: repr(value) for key, value in options.items()},
        "log_sha256": run_folder.fingerprint(log, None),
    }
    if shown is not None:
        asked["shown_sha256"] = run_folder.fingerprint(shown, None)
    setting = Setting(log, log_name or "the log", quick, seeds, place, progress, options, test, shown, rated)
    if place is None:
        return _answered(part, setting, asked, Watch(None))
    checks.needed("matplotlib", "report", "experiment(out=...)")
    _refuse_others(place)
    with run_folder.held(place):
        before = _before(place, asked)
        if before is not None:
            return before
        with checkpoint.explained(place):
            sealed.write(place / ASKED, report.plain(asked))
        watch = Watch(place / "seconds.json")
        with _unless_refused(place):
            result = _answered(part, dataclasses.replace(setting, lap=watch.lap), asked, watch)
        with checkpoint.explained(place):
            result.save(place)
        return result


def check_options(study: str | Study, options: dict[str, Any]) -> None:
    """Options of fastpop.train for an experiment's models. Raises ValueError, TypeError."""
    part = _part(study)
    TrainConfig.from_dict(dict(options))
    for option in ("seed", *part.sets):
        if option in options:
            raise checks.wrong(
                option, f"an option that the experiment {part.name} does not set itself", options[option]
            )


def _answered(part: Study, setting: Setting, asked: dict[str, Any], watch: Watch) -> StudyResult:
    answer = part.run(setting).to_dict()
    return StudyResult(
        {
            "experiment": part.name,
            "question": part.question,
            "log": setting.log_name,
            **answer,
            "made_by": {**asked, "seconds": round(watch.lap(), 1), "cpu_count": os.cpu_count()},
        }
    )


def _check_shown(part: Study, test: Any, shown: Any, rated: Any) -> None:
    if shown is None:
        for name, value in (("test", test), ("rated", rated)):
            if value is not None:
                raise checks.wrong(name, "None without shown=, beside which it stands", value)
        return
    if not part.reads_shown:
        raise checks.wrong("shown", f"None for {part.name}, which judges no randomised test part", shown)
    for name, value in (("test", test), ("shown", shown), ("rated", rated)):
        if not isinstance(value, Interactions) and (name != "rated" or value is not None):
            raise checks.wrong_type(name, "Interactions", value)
    if rated is not None and rated.weight is None:
        raise checks.wrong("rated", "a log with ratings for weights", text="one without weights")


def _part(study: str | Study) -> Study:
    if isinstance(study, Study):
        return study
    if not isinstance(study, str):
        raise checks.wrong_type("study", "the name of an experiment, or an object of one", study)
    found = registry.find("experiment", study, "study")
    return found() if isinstance(found, type) else found


@contextlib.contextmanager
def _unless_refused(place: Path) -> Iterator[None]:
    """An error within, before there is a model, leaves no question behind: what is then asked instead is
    another one."""
    try:
        yield
    except Exception:
        left = {path.name for path in place.rglob("*") if path.is_file()}
        if left <= {ASKED, run_folder.LOCK}:
            shutil.rmtree(place)
        raise


def _refuse_others(place: Path) -> None:
    """ValueError for a folder with files that are no experiment's. Makes nothing."""
    if not (place / ASKED).exists() and place.is_dir() and run_folder.others_in(place):
        raise checks.wrong(
            "out", "a new or an empty folder, or this experiment's", text=f"{place}, which has files"
        )


def _before(place: Path, asked: dict[str, Any]) -> StudyResult | None:
    """The answer that stands in the folder already, less what was damaged. Raises ValueError for another
    experiment's folder."""
    if not (place / ASKED).exists():
        return None
    there = sealed.read(place / ASKED, older=True)
    before, wanted = _flat(there), _flat(report.plain(asked))
    for name in wanted | before:
        if before.get(name) != wanted.get(name):
            had, got = (
                ("another",) * 2 if name == "log_sha256" else map(repr, (before.get(name), wanted.get(name)))
            )
            option = f"{wanted['experiment']}.{name}" if name in asked["options"] else name
            raise checks.wrong(
                "log" if name == "log_sha256" else option,
                f"{had}, as in the experiment in {place} (or a new folder)",
                text=got,
            )
    if not (place / ANSWER).exists():
        return None
    try:
        answer = sealed.read(place / ANSWER, older=True)
    except sealed.Damaged as error:
        warnings.warn(f"{error}. It is made anew of the models in {place}.", UserWarning, stacklevel=3)
        return None
    lost = sealed.differing(place, answer.pop(SUMS, {}))
    found = StudyResult(answer)
    write_anew(place, lost, ANSWER, found.save)
    return found


def _flat(asked: dict[str, Any]) -> dict[str, Any]:
    """Every choice by its own name, those of the experiment and of its models among them."""
    return (
        {key: asked[key] for key in asked if key not in ("options", "train")}
        | asked["options"]
        | asked["train"]
    )
