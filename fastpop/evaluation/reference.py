"""Rows of a comparison that need no model, by name: what any recommender has to beat on the same cases."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from fastpop import checks
from fastpop.components import Component
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.evaluation.baselines import ease_scorer, markov_scorer, recency_scorer
from fastpop.evaluation.dot_scores import DotScores
from fastpop.evaluation.ppmi import ppmi_scorer
from fastpop.evaluation.ranking import Score
from fastpop.popularity import PopularityPrior, recency_counts
from fastpop.popularity.temporal import DAY

WINDOWS = (14.0, 1.0, 2.0, 4.0, 7.0, 28.0, 56.0, 112.0, 224.0)  # days; the first where nothing can choose
PENALTIES = (500.0, 100.0, 200.0, 1000.0, 2000.0)  # of EASE; the first where nothing can choose


@dataclass(frozen=True)
class Reference(Component):
    """A row of `fastpop.compare` that needs no model. One of your own needs words and `fit`, or `shared`
    where its score is the same for every case.

    trained_on, served_as: what it counts, and what its score is, in words for tables. counted: which events
    `fit` is given: "known", all that are known when a case is asked, or "half", those that arms train on.
    logits: whether the softmax of its scores is meant as a distribution over items, so that it has an NLL.
    needs: what a log must have for the row to stand: "time", "order". chosen_by: in words, what `candidates`
    chooses its options by, where it does.
    """

    kind: ClassVar[str] = "reference"
    trained_on: ClassVar[str] = ""
    served_as: ClassVar[str] = ""
    counted: ClassVar[Literal["known", "half"]] = "known"
    logits: ClassVar[bool] = False
    needs: ClassVar[tuple[Literal["time", "order"], ...]] = ()
    chosen_by: ClassVar[str] = ""

    def candidates(self, half: Interactions) -> "tuple[Reference, ...]":
        """This row with the options to choose from: the best on the validation part is taken, the first where
        there is none. None at all: the log does not have what the row needs.

        half: the events that the arms train on.
        """
        return (self,)

    def shared(self, log: Interactions) -> np.ndarray | None:
        """[V] real: the score of every item, where it is the same for every case; otherwise None."""
        return None

    def fit(self, log: Interactions) -> Callable[[Cases], Score]:
        """From events to a function of cases, whose result is what `evaluate` takes: slices of case numbers
        -> [b, V]. A case holds its history and, where the log has times, when it is asked."""
        item_V = self.shared(log)
        if item_V is None:
            raise NotImplementedError
        checks.shape("shared", np.asarray(item_V), (log.num_items,))
        bias = torch.tensor(np.asarray(item_V), dtype=torch.float32)
        return lambda cases: DotScores(torch.zeros(cases.num_cases, 1), torch.zeros(len(bias), 1), bias)


@dataclass(frozen=True)
class Popularity(Reference):
    """log p of the events that the arms train on. smoothing: as in `fastpop.train`."""

    name: ClassVar[str] = "popularity"
    trained_on: ClassVar[str] = "counts of half A"
    served_as: ClassVar[str] = "log p"
    counted: ClassVar[Literal["known", "half"]] = "half"
    logits: ClassVar[bool] = True
    smoothing: str | float = "loo"

    def shared(self, log: Interactions) -> np.ndarray:
        smoothing: Any = self.smoothing
        return PopularityPrior.from_counts(log.item_counts(), smoothing=smoothing).log_prior_V


@dataclass(frozen=True)
class Recency(Reference):
    """log of decayed counts. half_life_days, alpha: None chooses them by the likelihood of later events of
    half A, each from what came before it (`popularity.recency_counts`)."""

    name: ClassVar[str] = "recency"
    trained_on: ClassVar[str] = "counts of all events before the case, decaying with age"
    served_as: ClassVar[str] = "log of them"
    logits: ClassVar[bool] = True
    needs: ClassVar[tuple[Literal["time", "order"], ...]] = ("time",)
    chosen_by: ClassVar[str] = "the likelihood of half A's later events"
    half_life_days: float | None = None
    alpha: float | None = None

    def candidates(self, half: Interactions) -> "tuple[Recency, ...]":
        if self.half_life_days is not None and self.alpha is not None:
            return (self,)
        if half.time is None or half.time.min() == half.time.max():
            return ()
        given = None if self.half_life_days is None else self.half_life_days * DAY
        found = recency_counts(half, half_life=given)
        days = found.half_life / DAY if np.isfinite(found.half_life) else None
        return (replace(self, half_life_days=days, alpha=found.alpha if self.alpha is None else self.alpha),)

    def fit(self, log: Interactions) -> Callable[[Cases], Score]:
        half_life = np.inf if self.half_life_days is None else self.half_life_days * DAY
        return lambda cases: recency_scorer(log, cases, half_life=half_life, alpha=self.alpha)


@dataclass(frozen=True)
class RecencyWindow(Reference):
    """Counts of the last days. days: None tries 1 to 224 of them."""

    name: ClassVar[str] = "recency-window"
    trained_on: ClassVar[str] = "counts of the last days before the case"
    served_as: ClassVar[str] = "counts"
    needs: ClassVar[tuple[Literal["time", "order"], ...]] = ("time",)
    days: float | None = None

    def candidates(self, half: Interactions) -> "tuple[RecencyWindow, ...]":
        if self.days is not None:
            return (self,)
        if half.time is None or half.time.min() == half.time.max():
            return ()
        return tuple(replace(self, days=days) for days in WINDOWS)

    def fit(self, log: Interactions) -> Callable[[Cases], Score]:
        window = (WINDOWS[0] if self.days is None else self.days) * DAY
        return lambda cases: recency_scorer(log, cases, window=window)


@dataclass(frozen=True)
class Markov(Reference):
    """Steps from the last item."""

    name: ClassVar[str] = "markov"
    trained_on: ClassVar[str] = "how often an item came right after the last one, in all that is known"
    served_as: ClassVar[str] = "counts"
    needs: ClassVar[tuple[Literal["time", "order"], ...]] = ("order",)

    def fit(self, log: Interactions) -> Callable[[Cases], Score]:
        return lambda cases: markov_scorer(log, cases)


@dataclass(frozen=True)
class Ease(Reference):
    """EASE (Steck 2019), for catalogues up to some ten thousand items. l2: None tries 100 to 2000."""

    name: ClassVar[str] = "ease"
    trained_on: ClassVar[str] = "which items users have in common, in all that is known"
    served_as: ClassVar[str] = "a linear map of the history"
    l2: float | None = None

    def candidates(self, half: Interactions) -> "tuple[Ease, ...]":
        return (self,) if self.l2 is not None else tuple(replace(self, l2=l2) for l2 in PENALTIES)

    def fit(self, log: Interactions) -> Callable[[Cases], Score]:
        l2 = PENALTIES[0] if self.l2 is None else self.l2
        return lambda cases: ease_scorer(log, cases, l2=l2)


@dataclass(frozen=True)
class Ppmi(Reference):
    """Shifted positive PMI of items, cut to rank dim (Levy & Goldberg 2014); catalogues as for EASE."""

    name: ClassVar[str] = "ppmi"
    trained_on: ClassVar[str] = "which items users have in common, in all that is known"
    served_as: ClassVar[str] = "PMI with the items of the history, of rank dim"
    dim: int = 64
    negatives: float = 1.0

    def fit(self, log: Interactions) -> Callable[[Cases], Score]:
        return lambda cases: ppmi_scorer(log, cases, dim=self.dim, negatives=self.negatives)


OURS = (Popularity, Recency, RecencyWindow, Markov, Ease, Ppmi)
