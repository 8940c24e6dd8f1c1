"""Differences between two runs, with intervals that use the pairing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from fastpop import checks
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
    _bounds(confidence)
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
    mean = float(share @ delta)
    n = len(delta)
    if n == 1:
        low = high = math.nan
    elif method == "t":
        error = math.sqrt(n / (n - 1) * float((share * (delta - mean)) @ (share * (delta - mean))))
        reach = t_quantile(0.5 + confidence / 2, n - 1) * error
        low, high = mean - reach, mean + reach
    else:
        checks.number("resamples", resamples, ge=100, integer=True)
        rng = np.random.Generator(np.random.Philox(seed))
        means = np.empty(resamples)
        for r in range(resamples):
            times = np.bincount(rng.integers(0, n, n), minlength=n) * weight
            means[r] = times @ delta / times.sum()
        low, high = map(float, np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2]))
    return PairedInterval(
        metric,
        float(share @ value_a),
        float(share @ value_b),
        mean,
        low,
        high,
        confidence,
        n,
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
    _bounds(confidence)
    if len(a) != len(b) or len(a) == 0:
        raise checks.wrong("a, b", "the same seeds, at least one", text=f"{len(a)} and {len(b)}")
    first, second = _values("a", a, metric), _values("b", b, metric)
    mean_a, mean_b, delta = first.mean(), second.mean(), first - second
    mean, low, high = mean_interval(delta, confidence)
    return PairedInterval(
        metric, float(mean_a), float(mean_b), mean, low, high, confidence, len(delta), "seeds", "t"
    )


def mean_interval(values: Any, confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): the t interval of a mean. NaN bounds for a single value."""
    _bounds(confidence)
    value = np.asarray(values, float)
    if value.ndim != 1 or len(value) == 0:
        raise checks.wrong("values", "a 1-d array of at least one number", value)
    mean = float(value.mean())
    if len(value) == 1:
        return mean, math.nan, math.nan
    error = float(value.std(ddof=1)) / math.sqrt(len(value))
    reach = t_quantile(0.5 + confidence / 2, len(value) - 1) * error
    return mean, mean - reach, mean + reach


def t_quantile(probability: float, freedom: int) -> float:
    """scipy.stats.t.ppf(probability, freedom) for whole degrees of freedom, probability in (0, 1).

    Source: Abramowitz & Stegun 26.7.3-4 (closed-form distribution, bisected) up to 200 degrees of
    freedom; 26.7.5 (expansion about the normal quantile, next term below 1e-9 there) above.
    """
    if freedom > 200:
        x = NormalDist().inv_cdf(probability)
        terms = (
            (x**3 + x) / 4,
            (5 * x**5 + 16 * x**3 + 3 * x) / 96,
            (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
            (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
        )
        return x + sum(term / freedom**n for n, term in enumerate(terms, 1))
    low, high = -1e8, 1e8
    for _ in range(120):
        middle = (low + high) / 2
        if _t_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_cdf(t: float, freedom: int) -> float:
    theta = math.atan(t / math.sqrt(freedom))
    cos2 = math.cos(theta) ** 2
    if freedom % 2:
        term, total = math.cos(theta), 0.0
        for j in range(1, freedom - 1, 2):
            total += term
            term *= cos2 * (j + 1) / (j + 2)
        inside = (theta + math.sin(theta) * total) * 2 / math.pi
    else:
        term, total = 1.0, 0.0
        for j in range(0, freedom - 1, 2):
            total += term
            term *= cos2 * (j + 1) / (j + 2)
        inside = math.sin(theta) * total
    return 0.5 + inside / 2


def _values(argument: str, runs: Sequence[Any], metric: str) -> np.ndarray:
    if all(isinstance(run, Evaluation) for run in runs):
        missing = [i for i, run in enumerate(runs) if metric not in run.metrics]
        if missing:
            expected = "one of " + ", ".join(map(repr, runs[missing[0]].metrics))
            raise checks.wrong("metric", expected, text=f"{metric!r}")
        return np.array([run.metrics[metric] for run in runs], float)
    return checks.float_array(argument, list(runs), 1)


def _bounds(confidence: float) -> None:
    checks.number("confidence", confidence, gt=0)
    if confidence >= 1:
        raise checks.wrong("confidence", "a number in (0, 1)", confidence)
