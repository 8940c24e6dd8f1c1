"""The statistics that intervals, tests and directions are made of, each once.

Not scipy's: see docs/design.md. The tests hold every function to scipy's of the same meaning.
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from fastpop import checks


def popularity_direction(
    log_prior_V: np.ndarray, centring_V: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """(b [V], ||f~||): log p centred, under a distribution over items where one is given, and the unit vector
    along it.

    Raises ValueError for uniform popularity, which has no direction.
    """
    if np.ptp(log_prior_V) <= 1e-12 * max(1.0, float(np.abs(log_prior_V).max())):
        raise checks.wrong(
            "log_prior",
            "a popularity that varies over items",
            text="a uniform one, whose direction is not defined",
        )
    column_V1 = log_prior_V[:, None]
    mean = column_V1.mean(axis=0) if centring_V is None else centring_V @ column_V1
    centred_V = (column_V1 - mean)[:, 0]
    # Not by BLAS, whose threads spin on for a while in the way of a kernel's.
    norm = float(np.sqrt(np.square(centred_V).sum()))
    return centred_V / norm, norm


def correlation(x_V: np.ndarray, y_V: np.ndarray) -> float:
    """np.corrcoef(x, y)[0, 1]; NaN where one side is constant (centring a constant leaves rounding dust)."""
    x_c_V, y_c_V = x_V - x_V.mean(), y_V - y_V.mean()
    spread, other = float(np.linalg.norm(x_c_V)), float(np.linalg.norm(y_c_V))
    dust = 1e-12
    if spread <= dust * np.linalg.norm(x_V) or other <= dust * np.linalg.norm(y_V):
        return float("nan")
    return float(np.clip(x_c_V @ y_c_V / (spread * other), -1, 1))


def mean_interval(values: Any, confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): the t interval of a mean. NaN bounds for a single value."""
    check_confidence(confidence)
    value = np.asarray(values, float)
    if value.ndim != 1 or len(value) == 0:
        raise checks.wrong("values", "a 1-d array of at least one number", value)
    mean = float(value.mean())
    if len(value) == 1:
        return mean, math.nan, math.nan
    error = float(value.std(ddof=1)) / math.sqrt(len(value))
    reach = t_quantile(0.5 + confidence / 2, len(value) - 1) * error
    return mean, mean - reach, mean + reach


def weighted_interval(
    value_n: np.ndarray, weight_n: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """(mean, low, high): the t interval of a weighted mean, by the linearised standard error of the ratio;
    `mean_interval` where the weights are equal. Source: Cochran 1977, sec. 6.3."""
    share_n, n = weight_n / weight_n.sum(), len(value_n)
    mean = float(share_n @ value_n)
    if n == 1:
        return mean, math.nan, math.nan
    off_n = share_n * (value_n - mean)
    reach = t_quantile(0.5 + confidence / 2, n - 1) * math.sqrt(n / (n - 1) * float(off_n @ off_n))
    return mean, mean - reach, mean + reach


def bootstrap_interval(
    value_n: np.ndarray, weight_n: np.ndarray, confidence: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(mean, low, high): percentiles of the weighted mean over draws of n with replacement.
    Source: Efron & Tibshirani 1993, ch. 13."""
    mean, n = float(weight_n / weight_n.sum() @ value_n), len(value_n)
    if n == 1:
        return mean, math.nan, math.nan
    checks.number("resamples", resamples, ge=100, integer=True)
    rng = np.random.Generator(np.random.Philox(seed))
    means = np.empty(resamples)
    for r in range(resamples):
        times = np.bincount(rng.integers(0, n, n), minlength=n) * weight_n
        means[r] = times @ value_n / times.sum()
    low, high = map(float, np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2]))
    return mean, low, high


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


def clopper_pearson(hits: int, draws: int, level: float = 0.95) -> tuple[float, float]:
    """scipy.stats.binomtest(hits, draws).proportion_ci(level, "exact")"""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, draws - hits + 1)
    high = 1.0 if hits == draws else beta_quantile(1 - tail, hits + 1, draws - hits)
    return low, high


def beta_quantile(q: float, a: float, b: float) -> float:
    """scipy.special.betaincinv(a, b, q), by bisection to the last bits."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high) or high - low < 1e-15 * high:
            return middle
        if regularised_beta(middle, a, b) < q:
            low = middle
        else:
            high = middle


def regularised_beta(x: float, a: float, b: float) -> float:
    """scipy.special.betainc(a, b, x), by Lentz's continued fraction (Numerical Recipes 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - regularised_beta(1 - x, b, a)
    front = (
        math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
        / a
    )
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + step * d
            c = 1 + step / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * value


def check_confidence(confidence: float) -> None:
    """In (0, 1). Raises ValueError."""
    checks.number("confidence", confidence, gt=0)
    if confidence >= 1:
        raise checks.wrong("confidence", "a number in (0, 1)", confidence)
