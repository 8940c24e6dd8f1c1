"""Popularity drifts: what does a fresh log p save, and does refreshing it need a model trained beside it?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fastpop import checks
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.splits import GlobalTime
from fastpop.popularity import PopularityPrior, recency_counts
from fastpop.studies.models import model_options, trained
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table, excludes, of_seeds, told
from fastpop.training import TrainResult
from fastpop.training.recommending import readable
from fastpop.training.serving import WeightProblem, least_nll

WEEK = 7 * 86_400
PRIORS = ("static", "cumulative", "recency")
SERVED = {
    "popularity": "log p alone",
    "post-hoc": "standard, log p exchanged",
    "frozen": "trained beside log p",
}
RETRAINED = "retrained"


@dataclass(frozen=True)
class Drift(Study):
    """Events of later weeks, each predicted from what came before its week: log p as it was at the cut,
    counted on, or decayed; alone, exchanged in a standard model, beside one that was trained with it, or
    beside one that is trained anew before every week.

    train_weeks: the models know; the last of them validates and fits both serving weights.
    most_events: judged a week, drawn from a seed.
    """

    name: ClassVar[str] = "drift"
    sets: ClassVar[tuple[str, ...]] = ("prior", "split", "patience", "evaluate_every")
    question: ClassVar[str] = "Does refreshing popularity need a model that was trained with it outside?"
    needs: ClassVar[str] = "time"
    train_weeks: int = 16
    most_events: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("drift.train_weeks", self.train_weeks, ge=2, integer=True)
        checks.number("drift.most_events", self.most_events, ge=1, integer=True)

    def run(self, setting: Setting) -> Answer:
        log = setting.log
        weeks = Weeks.of(
            log, self.train_weeks, min(self.most_events, 50) if setting.quick else self.most_events
        )
        ahead = range(weeks.first, weeks.first + 2) if setting.quick else range(weeks.first, weeks.last + 1)
        priors = {week: weeks.priors(week) for week in (weeks.first - 1, *ahead)}
        found: dict[str, list[list[float]]] = {}  # by name: a list by seed, of weeks
        for seed in range(setting.seeds):
            one = self._one_seed(setting, weeks, ahead, priors, seed)
            for name, by_week in one.items():
                found.setdefault(name, []).append(by_week)
        values: dict[str, float] = {}
        for name, each in found.items():
            values |= of_seeds(name, [float(np.mean(by_week)) for by_week in each])
        for name in (f"{way}.{prior}" for way in SERVED for prior in PRIORS[1:]):
            stale = f"{name.partition('.')[0]}.static"
            values |= of_seeds(f"saved.{name}", _means(found[stale], found[name]))
        for prior in PRIORS:
            values |= of_seeds(
                f"frozen - post-hoc.{prior}", _means(found[f"frozen.{prior}"], found[f"post-hoc.{prior}"])
            )
        for prior in PRIORS[1:]:
            for way in ("frozen", "popularity"):
                gained = _means(found[f"{RETRAINED}.{prior}"], found[f"{way}.{prior}"])
                values |= of_seeds(f"{RETRAINED} - {way}.{prior}", gained)
        values["recency - static"] = values["popularity.static"] - values["popularity.recency"]
        values["recency - cumulative"] = values["popularity.cumulative"] - values["popularity.recency"]
        return Answer(
            values, _sentences(values, setting), (_table(values, setting),), (_chart(found, ahead),)
        )

    def _one_seed(
        self,
        setting: Setting,
        weeks: "Weeks",
        ahead: range,
        priors: dict[int, dict[str, np.ndarray]],
        seed: int,
    ) -> dict[str, list[float]]:
        """Mean NLL of every week by what is served."""
        valid, found = weeks.cases(weeks.first - 1, seed), {}
        models = {
            "post-hoc": self._trained(setting, weeks, "none", seed),
            "frozen": self._trained(setting, weeks, "frozen", seed),
        }
        weights: dict[str, tuple[float, float]] = {}
        for prior in PRIORS:
            for way in SERVED:
                result = models.get(way)
                if result is not None:
                    weights[prior] = fitted(_Scores.of(result, valid), priors[weeks.first - 1][prior])
                found[f"{way}.{prior}"] = [
                    _nll(
                        result,
                        weeks.cases(week, seed),
                        priors[week][prior],
                        None if result is None else weights[prior],
                    )
                    for week in ahead
                ]
        # The weights are those of the model trained beside log p, which was as fresh when they were fitted.
        for week in ahead:
            result = self._retrained(setting, weeks, week, models["frozen"], seed)
            for prior in PRIORS[1:]:
                nll = _nll(result, weeks.cases(week, seed), priors[week][prior], weights[prior])
                found.setdefault(f"{RETRAINED}.{prior}", []).append(nll)
        return found

    def _retrained(
        self, setting: Setting, weeks: "Weeks", week: int, first: TrainResult, seed: int
    ) -> TrainResult:
        """Trained on everything before a week, as many epochs as served the first model best."""
        options = {
            **model_options(setting),
            "prior": "frozen",
            "seed": seed,
            "split": "none",
            "epochs": first.facts["best_epoch"],
        }
        return trained(setting, f"{RETRAINED}-{week}-{seed}", weeks.before(week), **options)

    def _trained(self, setting: Setting, weeks: "Weeks", prior: str, seed: int) -> TrainResult:
        options = {
            **model_options(setting),
            "prior": prior,
            "seed": seed,
            "split": GlobalTime(weeks.valid_share),
        }
        if not setting.quick:
            options |= {"epochs": 3 * options["epochs"], "patience": 3, "evaluate_every": 1}
        test = weeks.cases(weeks.first, seed)
        return trained(setting, f"{prior}-{seed}", weeks.before(weeks.first), test=test, **options)


@dataclass(frozen=True, eq=False)
class Weeks:
    """A log by weeks from its first event. first: the first that is predicted. last: the last whole one."""

    log: Interactions
    week_N: np.ndarray
    first: int
    last: int
    most: int

    __repr__ = checks.brief

    @classmethod
    def of(cls, log: Interactions, train_weeks: int, most: int) -> "Weeks":
        if log.time is None:
            raise checks.wrong("log", "events with times", text="a log without times")
        time_N = np.asarray(log.time)
        week_N = (time_N - time_N.min()) // WEEK
        last = int(week_N.max()) - 1  # the newest is not over
        if last < train_weeks:
            raise checks.wrong("log", f"more than {train_weeks + 1} weeks", text=f"{last + 2}")
        return cls(log, week_N, train_weeks, last, most)

    @property
    def valid_share(self) -> float:
        """Of the events before the first predicted week, those of the week before it."""
        return float((self.week_N == self.first - 1).sum() / (self.week_N < self.first).sum())

    def before(self, week: int) -> Interactions:
        return self.log.take(self.week_N < week)

    def cases(self, week: int, seed: int) -> Cases:
        """Some of the week's events, each with all of its user's before it for a history."""
        at = np.flatnonzero(self.week_N == week)
        if len(at) > self.most:
            at = np.sort(np.random.default_rng([seed, week]).choice(at, self.most, replace=False))
        user = np.searchsorted(self.log.offsets, at, side="right") - 1
        start = np.asarray(self.log.offsets)[user]
        length = at - start
        offsets = np.concatenate([[0], np.cumsum(length)])
        place = np.repeat(start - offsets[:-1], length) + np.arange(offsets[-1])
        item = np.asarray(self.log.item)
        return Cases(
            user,
            offsets,
            item[place],
            np.arange(len(at) + 1),
            item[at],
            self.log.num_items,
            time=np.asarray(self.log.time)[at],
        )

    def priors(self, week: int) -> dict[str, np.ndarray]:
        """log p [V] at the start of a week: of the counts at the cut, of all counts, of decayed ones."""
        known = self.before(week)
        # Half-life and smoothing are those of the training weeks; only the counts go on.
        recent = recency_counts(self.before(self.first), horizon=WEEK)
        now = recency_counts(known, half_life=recent.half_life, horizon=WEEK)
        at_cut = self.before(min(week, self.first))
        return {
            "static": PopularityPrior.from_counts(at_cut.item_counts()).log_prior_V,
            "cumulative": PopularityPrior.from_counts(known.item_counts()).log_prior_V,
            "recency": PopularityPrior.from_counts(now.counts_V, recent.alpha).log_prior_V,
        }


@dataclass(frozen=True, eq=False)
class _Scores:
    """The learned part s of cases, a chunk at a time; 0 for those that the encoder cannot read."""

    query_CD: torch.Tensor
    item_VD: torch.Tensor
    bias_V: torch.Tensor
    target_C: torch.Tensor

    __repr__ = checks.brief

    @classmethod
    def of(cls, result: TrainResult, cases: Cases) -> "_Scores":
        model, decoder = result.model, result.model.decoder
        known_C = readable(model, result.split.train, cases)
        query_CD = torch.zeros(cases.num_cases, decoder.dim)
        if known_C.any():
            query_BD = model.encode(cases.take(known_C)).detach().float().cpu()
            query_CD[torch.from_numpy(known_C)] = query_BD * float(decoder.scale.detach())
        # Without a prior the product has learned log p: what is exchanged is taken off again.
        offset = (
            -result.prior.log_prior_V if str(result.config.prior) == "none" else np.zeros(cases.num_items)
        )
        bias_V = torch.tensor(offset, dtype=torch.float32)
        return cls(
            query_CD,
            decoder.item_vectors().detach().float().cpu(),
            bias_V,
            torch.from_numpy(np.asarray(cases.target_item).astype(np.int64)),
        )

    def chunks(self, rows: int = 256) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for first in range(0, len(self.query_CD), rows):
            query_BD = self.query_CD[first : first + rows]
            served_B1 = self.served[first : first + rows]
            yield (query_BD @ self.item_VD.T + self.bias_V) * served_B1, self.target_C[first : first + rows]

    @property
    def served(self) -> torch.Tensor:
        """[C, 1]: whom the encoder cannot read log p alone serves."""
        return (self.query_CD != 0).any(1, keepdim=True)

    def problem(self, log_prior_V: np.ndarray) -> WeightProblem:
        """Of their weight and that of log p: the bias is one more dimension of the product."""
        f_V = torch.tensor(log_prior_V, dtype=torch.float64)
        return WeightProblem(
            torch.cat([self.query_CD, self.served], 1).double(),
            torch.cat([self.item_VD, self.bias_V[:, None]], 1).double(),
            f_V - f_V.mean(),
            self.target_C,
            torch.arange(len(self.target_C)),
        )


def fitted(scores: _Scores, log_prior_V: np.ndarray) -> tuple[float, float]:
    """(weight of the learned part, weight of log p) of least NLL."""
    start = torch.ones(2, dtype=torch.float64)
    personal, popularity = least_nll(scores.problem(log_prior_V), start, free=[True, True])[0].tolist()
    return personal, popularity


def _loss(logit_BV: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
    return logit_BV.logsumexp(1) - logit_BV.gather(1, target_B[:, None])[:, 0]


def _nll(
    result: TrainResult | None, cases: Cases, log_prior_V: np.ndarray, weights: tuple[float, float] | None
) -> float:
    prior_V = torch.tensor(log_prior_V, dtype=torch.float32)
    if result is None or weights is None:
        return float(-prior_V[torch.from_numpy(np.asarray(cases.target_item).astype(np.int64))].mean())
    personal, popularity = weights
    total = 0.0
    for score_BV, target_B in _Scores.of(result, cases).chunks():
        served_BV = torch.where((score_BV != 0).any(1, keepdim=True), popularity, 1.0) * prior_V
        total += float(_loss(personal * score_BV + served_BV, target_B).double().sum())
    return total / cases.num_cases


def _means(first: list[list[float]], second: list[list[float]]) -> list[float]:
    return [float(np.mean(one) - np.mean(other)) for one, other in zip(first, second)]


def _sentences(values: dict[str, float], setting: Setting) -> tuple[str, ...]:
    name = "frozen - post-hoc.recency"
    verdict = {
        1: "it serves worse than log p exchanged in a standard model",
        -1: "it serves better than log p exchanged in a standard model",
        0: "it cannot be told apart from log p exchanged in a standard model",
        None: "one against log p exchanged in a standard model, too few runs to say",
    }[excludes(values, name)]
    return (
        f"{setting.log_name}, log p alone: decayed counts save {values['recency - static']:.3f} nats an "
        f"event over log p as it was at the cut, and {values['recency - cumulative']:.3f} over cumulative "
        "counts.",
        f"With both weights fitted, a model trained beside log p and a fresh one: {verdict} "
        f"(NLL difference {told(values, name)}).",
        _retrained_words(values),
    )


def _retrained_words(values: dict[str, float]) -> str:
    name = f"{RETRAINED} - frozen.recency"
    verdict = {1: "has a higher", -1: "has a lower", 0: "cannot be told from it by its"}
    side = excludes(values, name)
    alone = f"against decayed counts alone {told(values, f'{RETRAINED} - popularity.recency')}"
    if side is None:
        return f"Trained anew before every week: too few runs to say more ({told(values, name)}; {alone})."
    return (
        "Trained anew before every week, against the model of the cut, both beside decayed counts: it "
        f"{verdict[side]} NLL (difference {told(values, name)}; {alone})."
    )


def _table(values: dict[str, float], setting: Setting) -> Table:
    return Table(
        f"NLL of later weeks, nats an event, {setting.log_name}, means of {setting.seeds} seeds",
        ("served", *PRIORS),
        (
            *((words, *(values[f"{way}.{prior}"] for prior in PRIORS)) for way, words in SERVED.items()),
            ("trained anew each week", "-", *(values[f"{RETRAINED}.{prior}"] for prior in PRIORS[1:])),
        ),
    )


def _chart(found: dict[str, list[list[float]]], ahead: range) -> Chart:
    weeks = tuple(float(week + 1) for week in ahead)
    shown: list[tuple[str, Any]] = [("popularity.static", True), ("popularity.recency", True)]
    shown += [(f"{way}.{prior}", False) for way in ("post-hoc", "frozen") for prior in ("static", "recency")]
    shown.append((f"{RETRAINED}.recency", False))
    return Chart(
        "drift",
        "NLL of each week's events, from what came before it",
        "week",
        "NLL, nats an event",
        tuple(
            Series(
                name.replace(".", ", "), weeks, tuple(np.mean(found[name], axis=0).tolist()), dashed=dashed
            )
            for name, dashed in shown
        ),
    )
