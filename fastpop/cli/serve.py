"""`fastpop recommend`, `evaluate` and `fit-serving`: the verbs that read a finished run."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from fastpop import checks, registry
from fastpop.cli.options import array, check_titles, read_titles_of, readable, smoothing_of, writable
from fastpop.text import aligned


@readable(
    {
        "run_folder": "RUN",
        "users": "ID ...",
        "history": "ID,ID,... ...",
        "similar_to": "ID ...",
        "allow": "FILE",
        "deny": "FILE",
        "titles": "FILE",
        "title_columns": "COLUMN COLUMN",
        "counts": "FILE",
        "out": "FILE",
        "k": "N",
        "smoothing": "NAME|X",
    }
)
@dataclass(frozen=True)
class Recommend:
    """Print the best items of users, or of histories, at any popularity weight."""

    run_folder: Positional[Path]
    """The --out of `fastpop train`."""
    users: tuple[str, ...] = ()
    """Ids of users, as in the log."""
    history: tuple[str, ...] = ()
    """Histories of anybody: item ids with commas between, oldest first (quotes around an id that has one)."""
    similar_to: tuple[str, ...] = ()
    """Ids of items: print the items most similar to each instead."""
    k: int = 10
    """Items a user, at most the catalogue."""
    popularity_weight: float | None = None
    """β: 0 serves without log p, 1 with it; as fitted, or as trained, when not given; 0 for --similar-to."""
    personal_weight: float | None = None
    """Multiplies the personal part; as fitted, or 1, when not given."""
    counts: Path | None = None
    """[V] .npy of new counts, in the order of the log's item ids: log p is taken from them, without
    retraining."""
    smoothing: str | None = None
    """Of --counts: loo, good-turing or a number to add; the run's own when not given."""
    allow: Path | None = None
    """A text file of item ids, one a line: show only these."""
    deny: Path | None = None
    """A text file of item ids, one a line: never show these."""
    titles: Path | None = None
    """A csv, tsv or parquet table of items with a column of ids and one of titles."""
    title_columns: tuple[str, ...] = ()
    """The columns of --titles: two names, or two 0-based positions in a file without header; item_id, item or
    id, and title or name, when not given."""
    include_seen: bool = False
    """Recommend items of the user's history too."""
    out: Path | None = None
    """A CSV file of user, rank, item, score."""

    def run(self) -> dict[str, Any]:
        import fastpop

        self._check()
        counts = None if self.counts is None else array("counts", self.counts)
        smoothing = None if self.smoothing is None else smoothing_of(self.smoothing)
        titles = read_titles_of(self.titles, self.title_columns)
        result = fastpop.load(self.run_folder)
        if counts is not None:
            result = result.refresh_prior(counts, smoothing=smoothing)
        item_ids = result.log.item_ids
        shown: dict[str, Any] = {
            "titles": titles,
            "allow": _listed("allow", self.allow, item_ids),
            "deny": _listed("deny", self.deny, item_ids),
        }
        if self.similar_to:
            asked = [_like("item", item_ids, one, "similar_to") for one in self.similar_to]
            found = result.similar_items(
                asked, self.k, popularity_weight=self.popularity_weight or 0.0, **shown
            )
        else:
            if self.history:
                rows = [_fields(text) for text in self.history]
                shown["histories"] = [
                    [_like("item", item_ids, one, "history") for one in row] for row in rows
                ]
                users = list(self.history)
            else:
                users = [_like("user", result.log.user_ids, user, "users") for user in self.users]
            found = result.recommend(
                users,
                self.k,
                popularity_weight=self.popularity_weight,
                personal_weight=self.personal_weight,
                exclude_seen=not self.include_seen,
                **shown,
            )
        print(found.table(limit=len(found.user)))
        if self.out is not None:
            fastpop.report.write_text(self.out, found.csv())
            print(f"written to {self.out}")
        return {
            "run": str(self.run_folder),
            "popularity_weight": found.popularity_weight,
            "personal_weight": found.personal_weight,
            "users" if found.asked_for == "user" else found.asked_for: _rows(found),
        }

    def _check(self) -> None:
        """All that can be wrong and is known before anything is read."""
        given = [name for name in ("users", "history", "similar_to") if getattr(self, name)]
        if not given:
            raise checks.wrong("users", "at least one id, or --history, or --similar-to", text="none")
        if len(given) > 1:
            raise checks.wrong(
                given[1], f"none beside --{given[0].replace('_', '-')}", getattr(self, given[1])
            )
        checks.number("k", self.k, ge=1, integer=True)
        if self.popularity_weight is not None:
            checks.score_weight("popularity_weight", self.popularity_weight)
        if self.personal_weight is not None:
            checks.score_weight("personal_weight", self.personal_weight)
        if self.out is not None:
            writable("out", self.out)
        if self.smoothing is not None and self.counts is None:
            raise checks.wrong("smoothing", "none without --counts", self.smoothing)
        check_titles(self.titles, self.title_columns)
        if self.similar_to and (self.personal_weight is not None or self.include_seen):
            raise checks.wrong(
                "similar_to", "no --personal-weight and no --include-seen beside it", self.similar_to
            )


def _rows(found: Any) -> list[dict[str, Any]]:
    """Of each row what was asked for, and its items, best first."""
    rows = []
    for row, who in enumerate(found.user.tolist()):
        items = [
            {"item": item, "score": score}
            for item, score in zip(found.item[row].tolist(), found.score[row].tolist())
            if item is not None
        ]
        if found.title is not None:
            for one, title in zip(items, found.title[row].tolist()):
                one["title"] = title
        rows.append({found.asked_for: who, "items": items})
    return rows


def _like(noun: str, ids: Any, text: str, argument: str) -> Any:
    """The text as an id of the log's kind."""
    if ids.dtype.kind not in "iu":
        return text
    try:
        return int(text)
    except ValueError:
        raise checks.wrong(argument, f"whole numbers, as the log's {noun}s are", text) from None


def _fields(text: str) -> list[str]:
    """The ids of a history."""
    return [one.strip() for one in next(csv.reader([text], skipinitialspace=True), []) if one.strip()]


def _listed(argument: str, path: Path | None, ids: Any) -> list[Any] | None:
    """The item ids of a file, one a line."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise checks.wrong(argument, "a text file in UTF-8", text=f"{path}: {error}") from None
    return [_like("item", ids, line.strip(), argument) for line in text.splitlines() if line.strip()]


@readable({"run_folder": "RUN", "against": "RUN", "out": "FILE", "part": "test|valid", "metrics": "NAME ..."})
@dataclass(frozen=True)
class Evaluate:
    """Rank the whole catalogue for every held-out case of a trained run."""

    run_folder: Positional[Path]
    """The --out of `fastpop train`."""
    part: str = "test"
    """test or valid."""
    popularity_weight: tuple[float, ...] = ()
    """Weights of log p to serve at, one or several; as fitted, or as trained, when not given."""
    personal_weight: float | None = None
    """Multiplies the personal part; as fitted, or 1, when not given."""
    k: tuple[int, ...] = (10, 20)
    """List lengths."""
    metrics: tuple[str, ...] = ()
    """Further ones: names, see `fastpop doctor`."""
    sample_cases: int | None = None
    """Estimate from so many of the cases, drawn at random, with 95 % intervals; all are taken when not
    given."""
    sample_seed: int = 0
    """Of that draw."""
    against: Path | None = None
    """Another run on the same log and split: print paired differences, this run minus that."""
    out: Path | None = None
    """A JSON file of the metrics at each weight."""

    def run(self) -> dict[str, Any]:
        import fastpop
        from fastpop import report
        from fastpop.evaluation.recommendations import weights_text

        checks.one_of("part", self.part, ("test", "valid"))
        for name in self.metrics:
            registry.find("metric", name, "metrics")
        for k in self.k:
            checks.number("k", k, ge=1, integer=True)
        for given in self.popularity_weight:
            checks.score_weight("popularity_weight", given)
        if self.personal_weight is not None:
            checks.score_weight("personal_weight", self.personal_weight)
        if self.sample_cases is not None:
            checks.number("sample_cases", self.sample_cases, ge=2, integer=True)
        elif self.sample_seed:
            raise checks.wrong("sample_seed", "none without --sample-cases", self.sample_seed)
        checks.number("sample_seed", self.sample_seed, ge=0, integer=True)
        if self.out is not None:
            writable("out", self.out)
        result = fastpop.load(self.run_folder)
        other = None if self.against is None else fastpop.load(self.against)
        written, paired = [], []
        weights: tuple[float | None, ...] = self.popularity_weight or (None,)
        for weight in weights:
            found = self._evaluated(result, weight)
            shown, personal = result.serving_weights(weight, self.personal_weight)
            print(f"{weights_text(shown, personal)}\n{found.table()}\n", flush=True)
            written.append({"popularity_weight": shown, "personal_weight": personal, **found.to_dict()})
            if other is not None:
                both = f"{self.run_folder} - {self.against}"
                print(f"{both}, {weights_text(shown, personal)}, paired over cases")
                pairs = self._paired(found, self._evaluated(other, weight))
                print("\n".join(_paired_lines(pairs)) + "\n")
                paired.append({"popularity_weight": shown, "metrics": [pair.to_dict() for pair in pairs]})
        if self.out is not None:
            report.write_json(self.out, written)
            print(f"written to {self.out}")
        against = None if other is None else str(self.against)
        return {
            "run": str(self.run_folder),
            "part": self.part,
            "evaluations": written,
            "against": against,
            "paired": paired,
        }

    def _evaluated(self, result: Any, weight: float | None) -> Any:
        return result.evaluate(
            self.part,
            popularity_weight=weight,
            personal_weight=self.personal_weight,
            ks=self.k,
            metrics=self.metrics,
            sample_cases=self.sample_cases,
            sample_seed=self.sample_seed,
        )

    def _paired(self, found: Any, second: Any) -> list[Any]:
        """Of the metrics that both have a value of each case for."""
        from fastpop import evaluation

        further = [registry.made("metric", name) for name in self.metrics]
        names = ["nll", *(f"{name}@{k}" for name in ("hr", "ndcg") for k in self.k)]
        names += [metric.key(k) for metric in further for k in (self.k if metric.at_k else (0,))]
        return [
            evaluation.compare_paired(found, second, name)
            for name in dict.fromkeys(names)
            if name in found.per_case and name in second.per_case
        ]


def _paired_lines(pairs: list[Any]) -> list[str]:
    rows = [
        [
            f"  {pair.metric}",
            f"{pair.mean_a:.4f}",
            " -",
            f"{pair.mean_b:.4f}",
            f" = {pair.difference:+.4f}  95% [{pair.low:+.4f}, {pair.high:+.4f}]",
        ]
        for pair in pairs
    ]
    return aligned(rows, least=(12, 9, 2, 9), gap=0)


@readable({"run_folder": "RUN", "counts": "FILE", "smoothing": "NAME|X"})
@dataclass(frozen=True)
class FitServing:
    """Fit the weights of log p and of the personal part, and keep them.

    To the validation part; recommend and evaluate serve them from then on.
    """

    run_folder: Positional[Path]
    """The --out of `fastpop train`."""
    counts: Path | None = None
    """[V] .npy of counts known before the validation part, in the order of the log's item ids: log p is
    taken from them, and kept with the weights."""
    smoothing: str | None = None
    """Of --counts: loo, good-turing or a number to add; the run's own when not given."""
    recent: bool = False
    """Take log p from the training events of late, with half-life and smoothing chosen by what came
    next, instead of --counts; the log needs times."""
    most_cases: int = 10_000
    """More are thinned at random, by the seed of the run."""

    def run(self) -> dict[str, Any]:
        import fastpop
        from fastpop.popularity import recency_counts
        from fastpop.training.serving import LEAST_CASES

        if self.smoothing is not None and self.counts is None:
            raise checks.wrong("smoothing", "none without --counts", self.smoothing)
        checks.number("most_cases", self.most_cases, ge=LEAST_CASES, integer=True)
        if self.recent and self.counts is not None:
            raise checks.wrong("recent", "not beside --counts", True)
        smoothing = None if self.smoothing is None else smoothing_of(self.smoothing)
        prior: Any = None if self.counts is None else array("counts", self.counts)
        result = fastpop.load(self.run_folder)
        writable("run_folder", self.run_folder, folder=True)
        if self.recent:
            found = recency_counts(result.split.train, first_events=result.model.encoder.reads == "events")
            print(found.table())
            prior = found.prior()
        elif prior is not None:
            result, prior = result.refresh_prior(prior, smoothing=smoothing), None
        fitted = result.fit_serving(prior=prior, most_cases=self.most_cases)
        assert fitted.serving is not None
        print(fitted.serving.table())
        fitted.save(self.run_folder)
        print(f"\nkept with the run in {self.run_folder}")
        return {"run": str(self.run_folder), "serving": fitted.serving.to_dict()}
