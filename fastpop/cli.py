"""`fastpop`: one verb a job. The only reader of argv and of the environment."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from fastpop import checks

try:
    import tyro
    from tyro.conf import OmitArgPrefixes, Positional
except ImportError:
    checks.missing_package("tyro", "", "the command line")

from fastpop.training.config import TrainConfig


@dataclass(frozen=True)
class LogOptions:
    """Where the events are and how to read them."""

    log: Positional[str]
    """A csv, tsv, .dat, parquet, sequence or session file, plain or gzip; or a quoted glob; or the
    word bundled: MovieTweetings 100K, which comes with the package."""
    preset: str | None = None
    """A known layout; see `fastpop doctor`."""
    user: str | None = None
    """Column of users: a name, or a 0-based position in a file without header."""
    item: str | None = None
    """Column of items."""
    time: str | None = None
    """Column of times."""
    weight: str | None = None
    """Column of weights."""
    behavior: str | None = None
    """Column of kinds of event."""
    rating: str | None = None
    """Column of ratings, for --min-rating."""
    separator: str | None = None
    """Between fields; found out when not given."""
    keep_behavior: tuple[str, ...] = ()
    """Kinds of event to keep: view fav cart buy ..."""
    min_rating: float | None = None
    """Keep events rated at least so."""
    min_user_events: int = 1
    """k-core: events a user must have."""
    min_item_events: int = 1
    """k-core: events an item must have."""
    on_bad_row: str = "raise"
    """raise names the first bad row; skip counts bad rows and keeps them in rejected.csv."""
    memory_limit: str = "2GB"
    """What reading may hold in memory; more spills to disk."""

    def read(self) -> Any:
        import fastpop

        if self.log == "bundled":
            return fastpop.data.bundled_log()
        columns: dict[str, Any] = {role: _column(getattr(self, role)) for role in
                   ("user", "item", "time", "weight", "behavior", "rating")}
        log = fastpop.read_log(
            self.log, preset=self.preset, **columns, separator=self.separator,
            keep_behavior=self.keep_behavior or None, min_rating=self.min_rating,
            min_user_events=self.min_user_events, min_item_events=self.min_item_events,
            on_bad_row=self.on_bad_row, memory_limit=self.memory_limit,
        )
        if log.rejected is not None and len(log.rejected):
            print(f"{len(log.rejected):,} bad rows left out; rejected.csv says which and why")
        return log

    def read_test(self, path: str | None) -> Any:
        """What `fastpop.train` takes as test."""
        if path is None or self.preset in ("sessions", "sequence"):
            return path
        return dataclasses.replace(self, log=path).read()


class TrainOptions(TrainConfig):
    """How to train."""

    def __post_init__(self) -> None:
        """Checked by `checked`, so that a bad value is this program's error, not the parser's."""

    def checked(self) -> TrainConfig:
        return TrainConfig.from_dict(self.to_dict())


def _column(value: str | None) -> str | int | None:
    return int(value) if value is not None and value.isdigit() else value


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
    """A TOML file of options; options given here win."""
    resume: bool = False
    """Go on with the run in --out."""
    permutations: int = 2000
    """Of the audit's p-values."""

    def run(self) -> None:
        import json

        import fastpop
        from fastpop.training.checkpoint import write_text

        checks.number("permutations", self.permutations, least=0, integer=True)
        config = self.training.checked()
        log = self.reading.read()
        print(log)
        result = fastpop.train(log, test=self.reading.read_test(self.test), config=config, out=self.out,
                               resume=self.resume)
        if result.metrics:
            print(f"\n{result.evaluate().table()}\n")
        audit = result.audit(permutations=self.permutations)
        print(audit.table())
        write_text(self.out / "audit.json", json.dumps(audit.to_dict(), indent=2) + "\n")
        print(f"\nmodel, metrics.json, train.csv and audit.json are in {self.out}")


@dataclass(frozen=True)
class Compare:
    """Train with and without log p outside the dot product, and write a report."""

    reading: OmitArgPrefixes[LogOptions]
    training: OmitArgPrefixes[TrainOptions]
    out: Path
    """Folder for report.html, comparison.json, rows.csv and table.txt."""
    seeds: int = 5
    """Runs of every arm."""
    arms: tuple[str, ...] = ("standard", "frozen", "permuted", "learned", "disjoint")
    """Which arms to run; standard always is."""
    permutations: int = 2000
    """Of each p-value."""
    name: str = ""
    """Of the log, for titles."""
    test: str | None = None
    """The test part that comes with the log: a file like the log, read in the same way, or, beside
    sessions and sequences, lines `prefix<TAB>target`."""
    config: Path | None = None
    """A TOML file of options; options given here win."""

    def run(self) -> None:
        from fastpop.experiments import compare

        config = self.training.checked()
        log = self.reading.read()
        print(log)
        result = compare(
            log, test=self.reading.read_test(self.test), seeds=self.seeds, arms=self.arms,
            permutations=self.permutations, config=config, out=self.out,
            name=self.name or _name_of(self.reading.log),
        )
        if log.rejected is not None and len(log.rejected):
            log.rejected.save(self.out / "rejected.csv")
        print(result.table())
        print(f"\nreport.html, comparison.json, rows.csv and table.txt are in {self.out}")


def _name_of(log: str) -> str:
    return "MovieTweetings 100K" if log == "bundled" else Path(log).name.split(".")[0]


@dataclass(frozen=True)
class Audit:
    """How much of a score is popularity: of a run, or of two arrays and counts."""

    run_folder: Annotated[Positional[Path | None], tyro.conf.arg(metavar="[RUN]")] = None
    """The --out of `fastpop train`."""
    query: Path | None = None
    """[C, D] array, .npy, of a model from elsewhere."""
    items: Path | None = None
    """[V, D] array, .npy."""
    counts: Path | None = None
    """[V] training events of each item, .npy."""
    bias: Path | None = None
    """[V] what the model adds to the dot product, .npy."""
    scale: float | None = None
    """Multiplies the dot product of the arrays; 1 when not given."""
    smoothing: str | None = None
    """Of log p: loo, good-turing or a number to add; loo, or the run's own, when not given."""
    popularity_weight: float | None = None
    """Audit the scores that a run serves at this knob, not the learned part."""
    permutations: int = 2000
    """Of the p-values; 0: none."""
    seed: int = 0
    """Of the permutations."""
    null: str = "label"
    """label: log p shuffled over items; sign: random signs."""
    out: Path | None = None
    """Folder for audit.json and report.html."""

    def run(self) -> None:
        import fastpop
        from fastpop import report

        checks.number("permutations", self.permutations, least=0, integer=True)
        checks.one_of("null", self.null, ("label", "sign"))
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise checks.wrong("out", "a folder", f"={self.out}, a file")
        smoothing = None if self.smoothing is None else _smoothing(self.smoothing)
        arrays = {"query": self.query, "items": self.items, "counts": self.counts}
        if self.run_folder is not None:
            given = [name for name, path in {**arrays, "bias": self.bias}.items()
                     if path is not None]
            if self.scale is not None:
                given.append("scale")
            if given:
                raise checks.wrong("RUN", "a run or arrays, not both", f"=RUN and --{given[0]}")
            result = fastpop.load(self.run_folder).audit(
                permutations=self.permutations, seed=self.seed, null=self.null,
                popularity_weight=self.popularity_weight, smoothing=smoothing)
        else:
            missing = [f"--{name}" for name, path in arrays.items() if path is None]
            if missing:
                raise checks.wrong("RUN", "a run folder, or --query, --items and --counts",
                                   "=no " + ", ".join(missing))
            if self.popularity_weight is not None:
                raise checks.wrong("popularity_weight", "none with arrays (add the term to --bias)",
                                   self.popularity_weight)
            read = {name: _array(name, path) for name, path in arrays.items()}
            result = fastpop.audit(
                **read, bias=None if self.bias is None else _array("bias", self.bias),
                scale=1.0 if self.scale is None else self.scale,
                smoothing="loo" if smoothing is None else smoothing, permutations=self.permutations,
                seed=self.seed, null=self.null)
        print(result.table())
        if self.out is not None:
            whole = result.to_dict(samples=True)
            report.write_json(self.out / "audit.json", whole)
            report.write_audit_report(self.out / "report.html", whole)
            print(f"\nreport.html and audit.json are in {self.out}")


def _array(name: str, path: Path | None) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)  # type: ignore[arg-type]
    except (OSError, ValueError, EOFError) as error:
        raise checks.wrong(name, "a .npy file", f"={path}: {error}") from None


def _smoothing(text: str) -> str | float:
    if text in ("loo", "good-turing"):
        return text
    try:
        return float(text)
    except ValueError:
        raise checks.wrong("smoothing", "loo, good-turing or a number", text) from None


@dataclass(frozen=True)
class Recommend:
    """Print the best items of users of a trained run, at any popularity knob."""

    run_folder: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The --out of `fastpop train`."""
    users: tuple[str, ...]
    """Ids of users, as in the log."""
    k: int = 10
    """Items a user."""
    popularity_weight: float | None = None
    """The knob: 0 serves without log p, 1 with it; as trained when not given."""
    counts: Path | None = None
    """[V] .npy of new counts, in the order of the log's item ids: log p is taken from them, without
    retraining."""
    include_seen: bool = False
    """Recommend items of the user's history too."""
    out: Path | None = None
    """A CSV file of user, rank, item, score."""

    def run(self) -> None:
        import fastpop
        from fastpop.training.checkpoint import write_text

        result = fastpop.load(self.run_folder)
        if self.counts is not None:
            result = result.refresh_prior(_array("counts", self.counts))
        users = [_like(result.log.user_ids, user) for user in self.users]
        found = result.recommend(users, self.k, popularity_weight=self.popularity_weight,
                                 exclude_seen=not self.include_seen)
        print(found.table(limit=len(users)))
        if self.out is not None:
            write_text(self.out, found.csv())
            print(f"written to {self.out}")


def _like(ids: Any, text: str) -> Any:
    """The text as an id of the log's kind."""
    if ids.dtype.kind not in "iu":
        return text
    try:
        return int(text)
    except ValueError:
        raise checks.wrong("users", "whole numbers, as the log's users are", text) from None


@dataclass(frozen=True)
class Evaluate:
    """Rank the whole catalogue for every held-out case of a trained run."""

    run_folder: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The --out of `fastpop train`."""
    part: str = "test"
    """test or valid."""
    popularity_weight: tuple[float, ...] = ()
    """Knobs to serve at, one or several; as trained when not given."""
    k: tuple[int, ...] = (10, 20)
    """List lengths."""
    against: Path | None = None
    """Another run on the same log and split: print paired differences, this run minus that."""
    out: Path | None = None
    """A JSON file of the metrics at each knob."""

    def run(self) -> None:
        import fastpop
        from fastpop import evaluation, report

        result = fastpop.load(self.run_folder)
        other = None if self.against is None else fastpop.load(self.against)
        written = []
        for weight in self.popularity_weight or (None,):
            found = result.evaluate(self.part, popularity_weight=weight, ks=self.k)
            shown = result.model.decoder.trained_weight if weight is None else weight
            print(f"popularity weight {shown:g}\n{found.table()}\n")
            written.append({"popularity_weight": shown, **found.to_dict()})
            if other is not None:
                second = other.evaluate(self.part, popularity_weight=weight, ks=self.k)
                print(f"{self.run_folder} - {self.against}, paired over cases")
                for metric in ("nll", *(f"{name}@{k}" for name in ("hr", "ndcg") for k in self.k)):
                    pair = evaluation.compare_paired(found, second, metric)
                    print(f"  {metric:10}{pair.mean_a:9.4f} -{pair.mean_b:9.4f} = "
                          f"{pair.difference:+.4f}  95% [{pair.low:+.4f}, {pair.high:+.4f}]")
                print()
        if self.out is not None:
            report.write_json(self.out, written)
            print(f"written to {self.out}")


@dataclass(frozen=True)
class Doctor:
    """Say which implementation of each op runs here, and why others do not."""

    def run(self) -> None:
        from fastpop.doctor import report

        print(report())


@dataclass(frozen=True)
class Demo:
    """Run the comparison on a real log that comes with the package."""

    out: Path = Path("demo")
    """Folder for report.html and the numbers."""
    seeds: int = 2
    """Runs of every arm."""

    def run(self) -> None:
        from fastpop.demo import demo

        demo(self.out, self.seeds)


@dataclass(frozen=True)
class Bench:
    """Measure speed here: `bench step` times a training step at each catalogue size."""

    what: Positional[Literal["step"]]
    """What to time."""
    items: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Catalogue size; give it again for another."""
    dim: int = 64
    """Length of query and item vectors."""
    negatives: int = 8192
    """Negatives, shared by the batch."""
    batch: int = 4096
    """Events a step."""
    rounds: int = 15
    """Steps timed."""
    json: bool = False
    """Print {"rows": [...]} instead of a table."""

    def run(self) -> None:
        import json

        from fastpop import benchmark

        rows = benchmark.time_steps(self.items, self.dim, self.negatives, self.batch, rounds=self.rounds)
        print(json.dumps({"rows": rows}) if self.json else benchmark.table(rows))


@dataclass(frozen=True)
class Version:
    """`fastpop --version`."""

    def run(self) -> None:
        import fastpop

        print(f"fastpop {fastpop.__version__}")


def _parse(argv: Sequence[str]) -> Any:
    if list(argv) == ["--version"]:
        return Version()
    verbs = {"train": Train, "compare": Compare, "audit": Audit, "recommend": Recommend,
             "evaluate": Evaluate, "doctor": Doctor, "demo": Demo, "bench": Bench}
    defaults = _from_toml(argv)
    union: Any = None
    for verb, kind in verbs.items():
        if verb in ("train", "compare") and defaults is not None:
            default: Any = kind(reading=LogOptions(log=tyro.MISSING), training=defaults,
                                out=tyro.MISSING)
            made: Any = Annotated[kind, tyro.conf.subcommand(verb, default=default)]
        else:
            made = Annotated[kind, tyro.conf.subcommand(verb)]
        union = made if union is None else union | made
    return tyro.cli(
        union, args=argv, prog="fastpop",
        description="Recommenders with popularity outside the dot product, and its audit.",
    )


def _from_toml(argv: Sequence[str]) -> TrainOptions | None:
    """The options of --config, which stand under those of the command line."""
    for n, word in enumerate(argv):
        path = None
        if word == "--config" and n + 1 < len(argv):
            path = argv[n + 1]
        elif word.startswith("--config="):
            path = word.removeprefix("--config=")
        if path is not None:
            return TrainOptions(**TrainConfig.from_toml(path).to_dict())
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: 0 done, 1 the work failed, 2 bad input, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        _parse(argv).run()
    except KeyboardInterrupt:
        again = "; a checkpoint was written: add --resume to go on" if "train" in argv[:1] else ""
        _stop("interrupted" + again, 130)
    except (ValueError, TypeError, FileNotFoundError) as error:
        _stop(str(error), 2, error)
    except (RuntimeError, OSError, ImportError, MemoryError, NotImplementedError) as error:
        _stop(str(error), 1, error)


def _stop(message: str, code: int, error: BaseException | None = None) -> NoReturn:
    if error is not None and os.environ.get("FASTPOP_DEBUG"):
        raise error
    print(f"fastpop: {message}", file=sys.stderr)
    raise SystemExit(code)
