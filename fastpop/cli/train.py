"""`fastpop train`, `compare` and `demo`: the verbs that work for long and leave a folder."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

from fastpop import checks, registry
from fastpop.cli import processes
from fastpop.cli.options import (
    LogOptions,
    TrainOptions,
    about_log,
    check_titles,
    read_titles_of,
    readable,
    writable,
)
from fastpop.training.prints import AUDIT  # the last that a run writes


@readable({"test": "FILE", "config": "FILE", "recipe": "NAME"})
@dataclass(frozen=True)
class Train:
    """Train a model, judge it on held-out events, print its popularity audit."""

    reading: OmitArgPrefixes[LogOptions]
    training: OmitArgPrefixes[TrainOptions]
    out: Path
    """Folder for the model, checkpoints, train.csv and audit."""
    test: str | None = None
    """The test part that comes with the log: a file like the log, read in the same way, or, beside
    sessions and sequences, lines `prefix<TAB>target`."""
    config: Path | None = None
    """A TOML file of options, of any that stand here; options given here win."""
    recipe: str | None = None
    """A published method, whose options it gives (fastpop recipe lists them); options given here win."""
    resume: bool = False
    """Go on with the run in --out."""
    permutations: int = 2000
    """Of the audit's p-values."""
    deadline: str | None = None
    """Stop after so long (90m, 2h30m, 45s) as a signal would: exit code 75, and the same command goes on."""

    def run(self) -> dict[str, Any]:
        with processes.joined() as speaks:
            return self._run(speaks)

    def _run(self, speaks: bool) -> dict[str, Any]:
        import fastpop
        from fastpop.training import check_before, finished_run, sealed

        checks.number("permutations", self.permutations, ge=0, integer=True)
        config = self.training.checked()
        writable("out", self.out, folder=True)
        # A run that was stopped between its model and its audit goes on with the latter.
        trained = not self.resume and self._is_finished() and not (self.out / AUDIT).exists()
        check_before(self.out, config, resume=self.resume or trained)
        log = self.reading.read()
        print(log, flush=True)
        test = self.reading.read_test(self.test)
        if trained and not speaks:
            return {}  # with the first process alone there is a model whole
        if trained:
            result = finished_run(log, test=test, config=config, out=self.out)
        else:
            result = fastpop.train(log, test=test, config=config, out=self.out, resume=self.resume)
        if not speaks:
            return {}  # the first process judges, and writes
        print(_metrics(result), flush=True)
        written = ["model", "metrics.json", "train.csv"]
        reason, found = result.why_no_audit(), None
        if reason:
            print(f"no audit: {reason}")
        else:
            audit = result.audit(permutations=self.permutations)
            print(audit.table())
            found = audit.to_dict()
            sealed.write(self.out / AUDIT, fastpop.report.plain(found))
            written.append(AUDIT)
        print(f"\n{', '.join(written[:-1])} and {written[-1]} are in {self.out}")
        return {
            "out": str(self.out),
            **about_log(log),
            "config": result.config.to_dict(),
            "facts": result.facts,
            "history": result.history,
            "metrics": result.metrics,
            "no_metrics": None if result.metrics else result.why_no_metrics(),
            "audit": found,
            "no_audit": reason or None,
        }

    def _is_finished(self) -> bool:
        from fastpop.training import state_of

        return state_of(self.out) == "finished"

    def left(self) -> str:
        """What a run that was stopped left, and how it goes on."""
        from fastpop.training import state_of

        state = state_of(self.out)
        if state == "nothing":
            return "; nothing was written: the same command starts anew"
        if state == "finished" and not (self.out / AUDIT).exists():
            return f"; the model in {self.out} is finished: the same command goes on with its audit"
        if state == "finished":
            return f"; the run in {self.out} is finished: `fastpop audit` and `fastpop evaluate` read it"
        if state == "begun":
            return f"; no checkpoint was written yet: the same command starts anew in {self.out}"
        return f"; {state} is in {self.out}: the same command goes on from it"


def _metrics(result: Any) -> str:
    """The table of the test part, or why there is none."""
    if result.metrics:
        text = f"\n{result.evaluate().table()}\n"
        left_out = result.facts.get("test_cases_left_out", 0)
        if left_out:
            text += (
                f"{left_out:,} test cases left out: the encoder {result.config.encoder} cannot "
                "read their users or histories\n"
            )
        return text
    return f"no metrics: {result.why_no_metrics()}"


@readable(
    {
        "test": "FILE",
        "config": "FILE",
        "recipe": "NAME",
        "arms": "NAME ...",
        "references": "NAME ...",
        "nulls": "NAME ...",
        "metrics": "NAME ...",
        "diagnostics": "NAME ...",
        "name": "TEXT",
        "titles": "FILE",
        "title_columns": "COLUMN COLUMN",
    }
)
@dataclass(frozen=True)
class Compare:
    """Train with and without log p outside the dot product, and write a report.

    Stopped, the same command goes on. torchrun deals seeds out to its processes.
    """

    reading: OmitArgPrefixes[LogOptions]
    training: OmitArgPrefixes[TrainOptions]
    out: Path
    """Folder for report.html, comparison.json, rows.csv and table.txt."""
    seeds: int = 5
    """Runs of every arm."""
    arms: tuple[str, ...] = ("standard", "frozen", "learned", "learned-from-log-p", "permuted", "disjoint")
    """Which arms to train; standard always is."""
    references: tuple[str, ...] = ("popularity", "recency", "recency-window", "markov")
    """Rows that need no model: what any arm has to beat."""
    max_epochs: int = 0
    """How far an arm may go on after --epochs while its validation NLL falls; 0: twice --epochs."""
    max_cases: int = 0
    """Test cases judged, the same for all arms; 0: all."""
    permutations: int = 2000
    """Of each p-value."""
    nulls: tuple[str, ...] = ("label", "sign")
    """Of the permutation tests."""
    metrics: tuple[str, ...] = ()
    """What lists are measured by besides: names, see `fastpop doctor`."""
    diagnostics: tuple[str, ...] = ()
    """What is measured of learned parts besides: names, see `fastpop doctor`."""
    name: str = ""
    """Of the log, for headings."""
    titles: Path | None = None
    """A table of items, for the lists of a few users in the report: csv, tsv or parquet, with a column of ids
    and one of titles."""
    title_columns: tuple[str, ...] = ()
    """The columns of --titles; as in `fastpop recommend`."""
    test: str | None = None
    """The test part that comes with the log: a file like the log, read in the same way, or, beside
    sessions and sequences, lines `prefix<TAB>target`."""
    test_is_randomised: bool = False
    """All rows of --test were shown at random, those that --min-rating keeps were liked: judge the
    shown items among themselves, too."""
    config: Path | None = None
    """A TOML file of options, of any that stand here; options given here win."""
    recipe: str | None = None
    """A published method, whose options it gives (fastpop recipe lists them); options given here win."""
    deadline: str | None = None
    """Stop after so long (90m, 2h30m, 45s) as a signal would: exit code 75, and the same command goes on."""

    def run(self) -> dict[str, Any]:
        with processes.beside() as dealt:
            return self._run(dealt)

    def _run(self, dealt: Any) -> dict[str, Any]:
        from fastpop.experiments import compare

        checks.needed("matplotlib", "report", "the report")
        options = (
            dataclasses.replace(self.training, evaluate_every=1) if self.training.patience else self.training
        )
        config = options.checked()
        checks.number("seeds", self.seeds, ge=1, integer=True)
        checks.number("permutations", self.permutations, ge=1, integer=True)
        check_titles(self.titles, self.title_columns)
        titles = read_titles_of(self.titles, self.title_columns)  # a table of items: little beside a log
        writable("out", self.out, folder=True)
        for kind in ("arm", "reference", "null", "metric", "diagnostic"):
            for name in getattr(self, f"{kind}s"):
                registry.find(kind, name, f"{kind}s")
        log = self.reading.read()
        print(log, flush=True)
        shown, rated = self.reading.read_shown(self.test) if self.test_is_randomised else (None, None)
        result = compare(
            log,
            test=self.reading.read_test(self.test),
            shown=shown,
            rated=rated,
            seeds=self.seeds,
            arms=self.arms,
            references=self.references,
            max_epochs=self.max_epochs,
            max_cases=self.max_cases,
            permutations=self.permutations,
            nulls=self.nulls,
            metrics=self.metrics,
            diagnostics=self.diagnostics,
            config=config,
            out=self.out,
            name=self.name or _name_of(self.reading.log),
            dealt=dealt,
            titles=titles,
        )
        if dealt is not None and not dealt.leads:
            return {}
        if log.rejected is not None and len(log.rejected):
            log.rejected.save(self.out / "rejected.csv")
        print(result.table())
        print(f"\nreport.html, comparison.json, rows.csv and table.txt are in {self.out}")
        return {"out": str(self.out), "comparison": result.comparison}

    def left(self) -> str:
        return left_by_comparison(self.out)


def left_by_comparison(out: Path) -> str:
    from fastpop.experiments import state_of

    return "; " + state_of(out)


def _name_of(log: str) -> str:
    return "MovieTweetings 100K" if log == "bundled" else Path(log).name.split(".")[0]


@readable()
@dataclass(frozen=True)
class Demo:
    """Run the comparison on a real log that comes with the package.

    Stopped at any moment, the same command goes on where it was.
    """

    out: Path = Path("demo")
    """Folder for report.html and the numbers."""
    seeds: int = 3
    """Runs of every arm; intervals need three."""
    deadline: str | None = None
    """Stop after so long (90m, 2h30m, 45s) as a signal would: exit code 75, and the same command goes on."""

    def run(self) -> dict[str, Any]:
        from fastpop.demo import demo

        checks.needed("matplotlib", "report", "the report")
        checks.number("seeds", self.seeds, ge=1, integer=True)
        writable("out", self.out, folder=True)
        result = demo(self.out, self.seeds)
        return {"out": str(self.out), "comparison": result.comparison}

    def left(self) -> str:
        return left_by_comparison(self.out)
