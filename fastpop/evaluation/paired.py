"""Differences between two runs, with intervals that use the pairing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks, stats
from fastpop.evaluation.result import Evaluation


@dataclass(frozen=True)
class PairedInterval:
    """Mean of a - b with its interval. `low` and `high` are NaN when one pair is all there is."""

    metric: str
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    confidence: float
    num_pairs: int
    unit: str  # "cases" or "seeds"
    method: str

    @property
    def excludes_zero(self) -> bool:
        """True when the interval lies wholly on one side of zero."""
        return bool(self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        return (
            f"{self.metric}: {self.mean_a:.4f} - {self.mean_b:.4f} = {self.difference:+.4f}, "
            f"{self.confidence:.0%} interval [{self.low:+.4f}, {self.high:+.4f}] "
            f"({self.method}, {self.num_pairs:,} {self.unit})"
        )

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def compare_paired(
    a: Evaluation,
    b: Evaluation,
    metric: str,
    *,
    confidence: float = 0.95,
    method: str = "t",
    resamples: int = 2000,
    seed: int = 0,
) -> PairedInterval:
    """Interval of mean(a - b) over the cases that both have a value for.

    One run each: the interval says what other cases would have given, not what other seeds would.

    Args:
        a, b: evaluations of the same cases.
        metric: a key of `per_case`.
        confidence: in (0, 1).
        method: "t": difference ± t sd/sqrt(n), for weighted cases (and NLL, weighted by target
            events) the linearised standard error of the ratio. "bootstrap": percentiles over
            `resamples` draws of n cases with replacement, from `seed`.
    Returns: PairedInterval with unit "cases".
    Raises: ValueError for an unknown metric, or evaluations of different cases.
    Source: Student 1908; Efron & Tibshirani 1993, ch. 13; linearisation: Cochran 1977, sec. 6.3.
    """
    stats.check_confidence(confidence)
    checks.one_of("method", method, ["t", "bootstrap"])
    if a.cases_key != b.cases_key:
        raise checks.wrong("b", "an evaluation of the same cases as a", text="other cases or targets")
    for name, run in (("a", a), ("b", b)):
        if metric not in run.per_case:
            expected = "one of " + ", ".join(map(repr, run.per_case))
            raise checks.wrong("metric", expected, text=f"{metric!r}, which {name} has not")
    value_a, value_b, weight = a.per_case[metric], b.per_case[metric], a.weight_of(metric)
    both = ~(np.isnan(value_a) | np.isnan(value_b)) & (weight > 0)
    value_a, value_b, weight = value_a[both], value_b[both], weight[both]
    if len(weight) == 0:
        raise checks.wrong("metric", "a value in at least one case of both runs", text=f"{metric!r}")
    share = weight / weight.sum()
    delta = value_a - value_b
    if method == "t":
        mean, low, high = stats.weighted_interval(delta, weight, confidence)
    else:
        mean, low, high = stats.bootstrap_interval(delta, weight, confidence, resamples, seed)
    return PairedInterval(
        metric,
        float(share @ value_a),
        float(share @ value_b),
        mean,
        low,
        high,
        confidence,
        len(delta),
        "cases",
        method,
    )


def paired_over_seeds(
    a: Sequence[Any], b: Sequence[Any], metric: str = "value", *, confidence: float = 0.95
) -> PairedInterval:
    """t interval of mean(a - b) over seeds: scipy.stats.ttest_rel's, without scipy.

    Args:
        a, b: one entry a seed, the same seeds in the same order: numbers, or Evaluations, of
            which `metric` is taken.
    Returns: PairedInterval with unit "seeds".
    Raises: ValueError when the lengths differ or nothing is given.
    """
    stats.check_confidence(confidence)
    if len(a) != len(b) or len(a) == 0:
        raise checks.wrong("a, b", "the same seeds, at least one", text=f"{len(a)} and {len(b)}")
    first, second = _values("a", a, metric), _values("b", b, metric)
    mean_a, mean_b, delta = first.mean(), second.mean(), first - second
    mean, low, high = stats.mean_interval(delta, confidence)
    return PairedInterval(
        metric, float(mean_a), float(mean_b), mean, low, high, confidence, len(delta), "seeds", "t"
    )


def _values(argument: str, runs: Sequence[Any], metric: str) -> np.ndarray:
    if all(isinstance(run, Evaluation) for run in runs):
        missing = [i for i, run in enumerate(runs) if metric not in run.metrics]
        if missing:
            expected = "one of " + ", ".join(map(repr, runs[missing[0]].metrics))
            raise checks.wrong("metric", expected, text=f"{metric!r}")
        return np.array([run.metrics[metric] for run in runs], float)
    return checks.float_array(argument, list(runs), 1)
