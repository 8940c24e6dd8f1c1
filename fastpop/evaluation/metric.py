"""What a metric is, what it can compute from, and how an evaluation asks it."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from fastpop import checks, registry
from fastpop.components import Component
from fastpop.evaluation.result import weighted_mean
from fastpop.frozen import freeze

NEEDS = {
    "counts": "counts=",
    "logits": "logits=True",
    "candidates": "candidates=",
    "unmasked": "mask_seen=False",
    "propensity": "propensity=",
}


@dataclass(frozen=True)
class Metric(Component):
    """One number of an evaluation, or one for every list length; stateless, options are its fields.

    A metric of ours and one that `fastpop.register("metric", Mine)` added are asked in the same way: `value`
    for [C] numbers, a case each (NaN: the case has none), whose mean over the cases is the metric; or, with
    per_case = False, for one number of the whole evaluation. compare_paired pairs those of cases.

    name: its key in `Evaluation.metrics`; "name@k" where at_k. label, definition, source: for tables and
    glossaries, the definition in one line. formula: for docs, where it says more. direction: whether larger
    or smaller is better, "" for neither. bounds: what it can be. needs: of "counts", "logits", "candidates",
    "propensity" and "unmasked" (mask_seen=False), without which an evaluation leaves it out, or refuses where
    it was asked for. section: metrics of one stand together, those of one k first.
    """

    kind: ClassVar[str] = "metric"
    label: ClassVar[str] = ""
    definition: ClassVar[str] = ""
    source: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    direction: ClassVar[Literal["larger", "smaller", ""]] = "larger"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    at_k: ClassVar[bool] = True
    per_case: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    section: ClassVar[str] = ""

    def value(self, known: "Known", k: int) -> Any:
        """[C] float, or one float where not per_case; None: there is none here. k is 0 where not at_k."""
        raise NotImplementedError

    def size(self, known: "Known") -> np.ndarray | None:
        """[C] >= 0: what a case counts in the mean beside its own weight, its target events for an NLL;
        None: every case the same."""
        return None

    def key(self, k: int) -> str:
        return f"{self}@{k}" if self.at_k else str(self)


@dataclass(frozen=True, eq=False)
class Targets:
    """Where targets stand: one entry a distinct (case, item), the best first within each case.

    case, position, nth: [pairs]; position is 1 for the top, halves for ties; nth is 1 for the best target of
    its case. size_C: targets of each case. best_C: position of the best, NaN without one. events: [E] bool,
    which of the target events they are.
    """

    case: np.ndarray
    position: np.ndarray
    nth: np.ndarray
    size_C: np.ndarray
    best_C: np.ndarray
    events: np.ndarray

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "case", "position", "nth", "size_C", "best_C", "events")

    @classmethod
    def of(cls, case: np.ndarray, ahead: np.ndarray, num_cases: int, events: np.ndarray) -> "Targets":
        """From `ahead`, the non-relevant items before each target (ties by halves)."""
        order = np.lexsort((ahead, case))
        case, ahead = case[order], ahead[order]
        size_C = np.bincount(case, minlength=num_cases)
        first_C = np.cumsum(size_C) - size_C
        nth = np.arange(len(case)) - first_C[case] + 1
        position = nth + ahead
        best_C = np.full(num_cases, np.nan)
        best_C[case[nth == 1]] = position[nth == 1]
        return cls(case, position, nth, size_C, best_C, events)

    def hit(self, k: int) -> np.ndarray:
        """[pairs] bool: fewer than k items stand before it, ties by halves."""
        return self.position < k + 1

    def total(self, value: np.ndarray, k: int) -> np.ndarray:
        """[C]: the sum of `value` [pairs] over the targets that are hit at k."""
        hit = self.hit(k)
        return np.bincount(self.case[hit], value[hit], len(self.size_C))

    def hits(self, k: int) -> np.ndarray:
        """[C]: how many targets are hit at k."""
        return self.total(np.ones(len(self.case)), k)


@dataclass(frozen=True, eq=False)
class Known:
    """What an evaluation knows when its metrics are computed: C cases over V items, E target events.

    Arrays are read-only. targets: by part: "" all of them; "head", "mid", "tail" with counts; "repeat", "new"
    where nothing is masked. pair_case, ahead: [pairs] all of them as they were ranked, other items before
    each target. others_C: how many items those are out of. top_CK: [C, largest k] lists, -1 where one is
    short. exposure: k -> [V] slots that an item got. event_case [E], event_nll [E] nats or None without
    logits. pool: (score, whether it is a target) of every listed pair, None without candidates. counts_V:
    training counts or None. case_weight_C: ones unless given. pair_propensity: [pairs] or None.
    """

    num_items: int
    targets: dict[str, Targets]
    pair_case: np.ndarray
    ahead: np.ndarray
    others_C: np.ndarray
    top_CK: np.ndarray
    exposure: dict[int, np.ndarray]
    event_case: np.ndarray
    event_nll: np.ndarray | None
    pool: tuple[np.ndarray, np.ndarray] | None
    counts_V: np.ndarray | None
    case_weight_C: np.ndarray
    pair_propensity: np.ndarray | None = None

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(
            self,
            "targets",
            "pair_case",
            "ahead",
            "others_C",
            "top_CK",
            "exposure",
            "event_case",
            "event_nll",
            "pool",
            "counts_V",
            "case_weight_C",
            "pair_propensity",
        )

    @property
    def num_cases(self) -> int:
        return len(self.case_weight_C)

    def lists(self, k: int) -> np.ndarray:
        """[C, k] item ids, best first, -1 where a list is short."""
        return self.top_CK[:, :k]

    def mean(self, metric: Metric, k: int = 0) -> float:
        """The mean of one that has a value per case, as the evaluation gives it."""
        size = metric.size(self)
        return weighted_mean(metric.value(self, k), self.case_weight_C * (1 if size is None else size))


def measure(
    known: Known, metrics: Sequence[Metric], ks: Sequence[int]
) -> tuple[dict[str, float], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(means, values of cases, what cases count in them) by key; means of cases first."""
    per_case: dict[str, np.ndarray] = {}
    sizes: dict[str, np.ndarray] = {}
    whole: dict[str, float] = {}
    for metric, k in _asked(metrics, ks):
        key = metric.key(k)
        value = metric.value(known, k)
        if value is None:
            continue
        if not metric.per_case:
            whole[key] = _number(key, value)
            continue
        per_case[key] = _of_cases(key, value, known.num_cases)
        size = metric.size(known)
        if size is not None:
            sizes[key] = _of_cases(key, size, known.num_cases, "size")
    means = {
        key: weighted_mean(value, known.case_weight_C * sizes.get(key, 1)) for key, value in per_case.items()
    }
    return means | whole, per_case, sizes


def asked_for(
    metrics: Iterable[str | Metric] | None, given: set[str], ours: Sequence[Metric]
) -> list[Metric]:
    """The metrics behind names and objects, each once; one of ours may be among them.

    given: which of NEEDS there are.
    Raises: TypeError, ValueError for what is no metric, one that lacks what it needs, or a second one of the
    same name.
    """
    known = {str(metric): metric for metric in ours}
    found: dict[str, Metric] = {}
    if isinstance(metrics, (str, bytes, Metric)) or not isinstance(metrics, Iterable | None):
        raise checks.wrong_type("metrics", "a list of names or metrics", metrics)
    for metric in [registry.made("metric", one, "metrics") for one in metrics or ()]:
        name = str(metric)
        if (known | found).get(name, metric) != metric:
            raise checks.wrong("metrics", "different names", text=f"{name!r} twice")
        found[name] = metric
        for need in metric.needs:
            checks.one_of(f"needs of the metric {name!r}", need, NEEDS)
            if need not in given:
                raise checks.wrong("metrics", f"{NEEDS[need]} beside {name!r}, which needs it", text="none")
    return list(found.values())


def chosen(further: Iterable[str | Metric] | None, given: set[str], ours: Sequence[Metric]) -> list[Metric]:
    """Ours that this evaluation has the means for, and the further ones that were asked for.

    given, Raises: as in `asked_for`.
    """
    found = [metric for metric in ours if given.issuperset(metric.needs)]
    return found + [metric for metric in asked_for(further, given, ours) if metric not in found]


def find_metric(key: str) -> tuple[Metric, int]:
    """The metric behind a key of `Evaluation.metrics`, such as "ndcg@10", and its k (0: it has none).

    Raises: ValueError for a name that no metric has, and for a k where there is none, or none where there is.
    """
    stem, at, k = str(key).partition("@")
    metric = registry.made("metric", stem)
    if metric.at_k != bool(at) or (at and not (k.isdecimal() and int(k) >= 1)):
        raise checks.wrong("metric", f"'{stem}@k' with k >= 1" if metric.at_k else repr(stem), key)
    return metric, int(k or 0)


def _asked(metrics: Sequence[Metric], ks: Sequence[int]) -> Iterator[tuple[Metric, int]]:
    for _, group in itertools.groupby(metrics, lambda metric: metric.section):
        section = list(group)
        yield from ((metric, k) for k in ks for metric in section if metric.at_k)
        yield from ((metric, 0) for metric in section if not metric.at_k)


def _of_cases(key: str, value: Any, num_cases: int, what: str = "value") -> np.ndarray:
    value_C = np.asarray(value)
    if value_C.shape != (num_cases,) or value_C.dtype.kind not in "fiub":
        raise checks.wrong(f"{what} of the metric {key!r}", f"[{num_cases}] numbers, a case each", value)
    if what == "size" and not (value_C >= 0).all():
        raise checks.wrong(f"{what} of the metric {key!r}", "numbers >= 0", text=f"{value_C.min():g}")
    return value_C.astype(float)


def _number(key: str, value: Any) -> float:
    if np.ndim(value) != 0:
        raise checks.wrong(f"value of the metric {key!r}", "one number (per_case = False)", value)
    return float(value)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where that is 0."""
    return np.divide(above, below, out=np.full(len(above), math.nan), where=below > 0)
