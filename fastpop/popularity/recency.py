"""Popularity of late: decayed counts whose half-life and smoothing are chosen by what came next."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze
from fastpop.popularity.prior import PopularityPrior
from fastpop.popularity.smoothing import best_alpha
from fastpop.popularity.temporal import DAY, decayed_counts
from fastpop.text import Tabled, aligned

if TYPE_CHECKING:
    from fastpop.data import Interactions

_FAR = 500.0  # half-lives after which scaled counts are brought back to 1, long before 2**1023


@dataclass(frozen=True, eq=False, repr=False)
class RecencyCounts(Tabled):
    """Counts that halve in weight every half_life, as of a time. Arrays are read-only.

    counts_V: float64 [V]. at: seconds; later events are left out. half_life: seconds, inf: no decay.
    alpha: pseudo-count of each item. nll: nats per event, of the judged events from what was known
    before each one's period. horizon: length of a period, seconds. num_judged: how many were judged.
    tried: (half_life, its best alpha, its nll), rising. alphas: (alpha, nll) at the half-life taken.
    """

    counts_V: np.ndarray
    at: int
    half_life: float
    alpha: float
    nll: float
    horizon: float
    num_judged: int
    tried: tuple[tuple[float, float, float], ...]
    alphas: tuple[tuple[float, float], ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "counts_V", "facts")

    def prior(self) -> PopularityPrior:
        """log p of these counts at this alpha: what `refresh_prior` takes."""
        return PopularityPrior.from_counts(self.counts_V, self.alpha)

    def table(self) -> str:
        """What was chosen and how much it matters, at most 80 columns."""
        lines = [
            f"half-life {_days(self.half_life)}, alpha {self.alpha:.3g}: {self.nll:.3f} nats an event",
            f"({self.num_judged:,} later events, each from what came before its {_days(self.horizon)})",
        ]
        tried = [*self.tried, *((self.half_life, alpha, nll) for alpha, nll in self.alphas)]
        cells = [["half-life", "alpha", "nats"]]
        cells += [[_days(half_life), f"{alpha:.3g}", f"{nll:.3f}"] for half_life, alpha, nll in tried]
        return "\n".join([*lines, *aligned(cells, least=(12, 9, 7), left=0)])

    def __repr__(self) -> str:
        return (
            f"RecencyCounts(num_items={len(self.counts_V)}, half_life={_days(self.half_life)}, "
            f"alpha={self.alpha:.3g}, nll={self.nll:.3f})"
        )


def recency_counts(
    log: "Interactions",
    *,
    half_life: float | None = None,
    at: int | None = None,
    horizon: float | None = None,
    judged: float = 0.25,
    first_events: bool = True,
) -> RecencyCounts:
    """Decayed counts of a log, with half-life and smoothing chosen by prequential likelihood:

        argmax over half_life, alpha of sum_e w_e log((n_i(s) + alpha) / (n(s) + alpha V))

    Time before `at` is cut into periods of `horizon`, backwards; s is the start of event e's period,
    and n(s) the counts decayed to s: a prior that is made anew each period predicts what comes in it.
    The half-life is one of horizon / 2 times powers of sqrt(2), up to four times the log's span, or
    infinite; alpha is found to rounding for each.

    Args:
        log: the training part, with times. at: seconds, default the last event's.
        half_life: seconds, to be taken as it is (inf: no decay); None chooses it.
        horizon: seconds that a prior serves before it is made anew; None: a day, or an eighth of
            the log's span where that is shorter.
        judged: the share of the events, the latest, that are predicted; in (0, 1).
        first_events: False counts and judges no user's first event, as sequence encoders do not.
    Raises: ValueError for a log without times, or with all events in one period.
    Cost: O(N log N), then O(N) for each of about 20 half-lives.
    Source: prequential likelihood, Dawid 1984.
    """
    if log.time is None:
        raise checks.wrong("log", "events with times", text="a log without times")
    checks.number("judged", judged, gt=0)
    if judged >= 1:
        raise checks.wrong("judged", "a share below 1", judged)
    if half_life is not None and half_life != math.inf:
        checks.number("half_life", half_life, gt=0)
    events = _Events.of(log, at, first_events)
    span = float(events.at - events.time[0])
    if horizon is None:
        horizon = min(float(DAY), max(span / 8, 1.0))
    checks.number("horizon", horizon, gt=0)
    first = events.first_judged(horizon, judged)
    tried, best = [], None
    for one in [half_life] if half_life is not None else _half_lives(horizon, span):
        terms = events.terms(one, horizon, first)
        alpha = terms.best()
        nll = terms.nll(alpha)
        tried.append((float(one), alpha, nll))
        if best is None or nll < best[2]:
            best = (float(one), alpha, nll, terms)
    assert best is not None
    chosen, alpha, nll, terms = best
    alphas = tuple((alpha * factor, terms.nll(alpha * factor)) for factor in (0.1, 0.5, 2.0, 10.0))
    counts_V = events.decayed(chosen)
    return RecencyCounts(
        counts_V,
        events.at,
        chosen,
        alpha,
        nll,
        float(horizon),
        len(events.time) - first,
        tuple(tried),
        alphas,
        {"first_events": first_events, "judged": float(judged)},
    )


@dataclass(frozen=True)
class _Terms:
    """What the likelihood is made of: gain @ log(rest + alpha) - gain @ log(size + alpha) - log V."""

    gain: np.ndarray
    rest: np.ndarray
    size: np.ndarray  # over V
    num_items: int

    def best(self) -> float:
        typical = max(float(self.size.mean()), np.finfo(float).tiny)
        return best_alpha(self.gain, self.rest, 1.0, self.gain, self.size, 1e-6 * typical, 1e6 * typical)

    def nll(self, alpha: float) -> float:
        fit = self.gain @ (np.log(self.rest + alpha) - np.log(self.size + alpha))
        return float(np.log(self.num_items) - fit / self.gain.sum())


@dataclass(frozen=True)
class _Events:
    """Events up to `at`, in the order of time."""

    item: np.ndarray
    time: np.ndarray
    weight: np.ndarray
    at: int
    num_items: int

    @classmethod
    def of(cls, log: "Interactions", at: int | None, first_events: bool) -> "_Events":
        assert log.time is not None
        kept = np.ones(log.num_events, dtype=bool)
        if log.weight is not None:
            kept &= log.weight > 0
        if not first_events:
            kept[log.offsets[:-1][np.diff(log.offsets) > 0]] = False
        if at is not None:
            checks.number("at", at, integer=True)
            kept &= log.time <= at
        if not kept.any():
            raise checks.wrong("log", "at least one event to count", text="none")
        chosen = np.flatnonzero(kept)
        chosen = chosen[np.argsort(log.time[chosen], kind="stable")]
        weight = np.ones(len(chosen)) if log.weight is None else log.weight[chosen]
        time = log.time[chosen]
        return cls(
            log.item[chosen].astype(np.int64),
            time,
            weight,
            int(time[-1]) if at is None else int(at),
            log.num_items,
        )

    def first_judged(self, horizon: float, judged: float) -> int:
        """The first of the events that are judged: whole periods, and something before them."""
        age = self._age(horizon)
        wanted = age[min(int((1 - judged) * len(age)), len(age) - 1)]
        first = int(np.searchsorted(-age, -wanted, side="left"))
        if first == 0:
            first = int(np.searchsorted(-age, -age[0], side="right"))
        if first == len(age):
            raise checks.wrong(
                "horizon",
                "periods short enough for events in two of them",
                text=f"{horizon:g} seconds, which hold all {len(age)}",
            )
        return first

    def _age(self, horizon: float) -> np.ndarray:
        """Whole periods between an event and `at`: falls."""
        return np.floor((self.at - self.time) / horizon).astype(np.int64)

    def terms(self, half_life: float, horizon: float, first: int) -> _Terms:
        """Of each period from `first` on: its items, what they weigh in it, and the counts at its start.

        Counts are held in units of the weight at `zero`: those before a period are neither touched nor
        decayed one by one.
        """
        period = self._age(horizon)[first:]
        cuts = first + np.flatnonzero(np.diff(period, prepend=period[0] + 1))
        start_P = self.at - (period[cuts - first] + 1) * horizon
        zero = start_P[0]
        scaled_V = np.bincount(
            self.item[:first], self._scaled(slice(0, first), zero, half_life), self.num_items
        )
        total = float(scaled_V.sum())
        parts = []
        for start, begin, end in zip(start_P, cuts, [*cuts[1:], len(self.item)]):
            if (start - zero) / half_life > _FAR:
                back = np.exp2(-(start - zero) / half_life)
                scaled_V *= back
                total *= back
                zero = start
            unit = np.exp2(-(start - zero) / half_life)
            item, group = np.unique(self.item[begin:end], return_inverse=True)
            gain = np.bincount(group, self.weight[begin:end], len(item))
            parts.append((gain, scaled_V[item] * unit, np.full(len(item), total * unit)))
            added = self._scaled(slice(begin, end), zero, half_life)
            scaled_V[item] += np.bincount(group, added, len(item))
            total += float(added.sum())
        gain, rest, size = (np.concatenate(column) for column in zip(*parts))
        return _Terms(gain, rest, size / self.num_items, self.num_items)

    def _scaled(self, some: slice, zero: float, half_life: float) -> np.ndarray:
        return self.weight[some] * np.exp2((self.time[some] - zero) / half_life)

    def decayed(self, half_life: float) -> np.ndarray:
        return decayed_counts(
            self.item, self.time, self.num_items, half_life=half_life, at=self.at, weight=self.weight
        )


def _half_lives(horizon: float, span: float) -> list[float]:
    steps = max(int(np.ceil(2 * np.log2(8 * span / horizon))), 0)
    return [*(horizon / 2 * 2 ** (step / 2) for step in range(steps + 1)), math.inf]


def _days(seconds: float) -> str:
    if seconds == math.inf:
        return "infinite"
    for name, unit in (("d", DAY), ("h", 3600)):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
