"""p-values beyond the number of draws: an approximation, by a generalised Pareto tail of the null."""

import math
from dataclasses import dataclass

import numpy as np

from fastpop import checks

LEAST_TAIL = 30  # draws that a tail is fitted to
FIT_SAMPLES = 200  # of the test of the fit


@dataclass(frozen=True)
class TailEstimate:
    """An approximate p-value, or why there is none.

    p_value: None where `why` says what stands against it. shape: ξ, > 0 for a heavy tail, < 0 for one that
    ends. spread: σ. threshold: where the tail begins. num_tail: draws in it. fit_p: of the fit,
    Anderson-Darling, by 200 samples.
    """

    p_value: float | None
    why: str
    shape: float
    spread: float
    threshold: float
    num_tail: int
    fit_p: float

    def words(self) -> str:
        """In a sentence that says what it is."""
        if self.p_value is None:
            return f"no tail approximation: {self.why}"
        return (
            f"p ≈ {self.p_value:.2g} (an approximation: generalised Pareto tail of the {self.num_tail} "
            f"largest draws, shape {self.shape:.2g})"
        )


def tail_p_value(observed: float, null: np.ndarray, *, num_tail: int = 250, seed: int = 0) -> TailEstimate:
    """P(T >= observed) of a null known by draws, where hardly any of them reaches the observed value.

    A generalised Pareto distribution is fitted to the excesses over a threshold (probability-weighted
    moments); where it does not fit (p < .05) the tail is made shorter, by ten draws at a time.

    null: [P] draws, P >= 500. num_tail: draws that the fit begins with, at most P/4 of them. seed: of its
        test.
    Returns: without a p-value where ten draws or more reach the observed value (count them instead), no
        tail fits, or the fitted one ends before it.
    Source: Knijnenburg et al., Bioinformatics 25(12), 2009; Hosking & Wallis, Technometrics 29(3), 1987.
    """
    checks.number("observed", observed)
    null_P = np.sort(checks.float_array("null", null, 1))
    if len(null_P) < 500:
        raise checks.wrong("null", "at least 500 draws", null_P)
    checks.number("num_tail", num_tail, ge=LEAST_TAIL, integer=True)
    rng = np.random.Generator(np.random.PCG64(seed))
    reached = int((null_P >= observed).sum())
    why = (
        f"{reached} draws reach the observed value, so that counting them is better" if reached >= 10 else ""
    )
    tail = min(num_tail, len(null_P) // 4)
    while True:
        threshold = float(null_P[-tail - 1] + null_P[-tail]) / 2
        excess_n = null_P[-tail:] - threshold
        shape, spread = fitted_pareto(excess_n)
        fit_p = _fit_p(excess_n, shape, spread, rng)
        if fit_p >= 0.05 or tail - 10 < LEAST_TAIL:
            break
        tail -= 10
    if not why and fit_p < 0.05:
        why = "no generalised Pareto distribution fits the largest draws"
    p_value = None
    if not why:
        beyond = survival(np.array([max(observed - threshold, 0.0)]), shape, spread)
        p_value = tail / len(null_P) * float(beyond[0])
    if p_value == 0:
        why = f"the fitted tail ends at {threshold - spread / shape:.4g}, before the observed value"
    return TailEstimate(p_value or None, why, shape, spread, threshold, tail, fit_p)


def fitted_pareto(excess_n: np.ndarray) -> tuple[float, float]:
    """(ξ, σ) by probability-weighted moments; excess_n rising, >= 0. NaN where they have none."""
    num = len(excess_n)
    a0 = float(excess_n.mean())
    a1 = float(((1 - (np.arange(1, num + 1) - 0.35) / num) * excess_n).mean())
    if not a0 > 2 * a1:  # as of ties at the threshold
        return math.nan, math.nan
    return 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)


def survival(excess_n: np.ndarray, shape: float, spread: float) -> np.ndarray:
    """P(excess > x) = (1 + ξ x/σ)^(-1/ξ), 0 beyond its end."""
    if abs(shape) < 1e-9:
        return np.exp(-excess_n / spread)
    return np.maximum(1 + shape * excess_n / spread, 0.0) ** (-1 / shape)


def anderson_darling(excess_n: np.ndarray, shape: float, spread: float) -> float:
    """A² of rising excesses."""
    num = len(excess_n)
    above_n = np.clip(survival(excess_n, shape, spread), 1e-300, 1.0)
    below_n = np.clip(1 - above_n, 1e-300, 1.0)
    weight_n = 2 * np.arange(1, num + 1) - 1
    return -num - float((weight_n * (np.log(below_n) + np.log(above_n[::-1]))).mean())


def _fit_p(excess_n: np.ndarray, shape: float, spread: float, rng: np.random.Generator) -> float:
    """By samples of the fitted distribution, each fitted anew."""
    if not (spread > 0 and np.isfinite(shape)):
        return 0.0
    found, worse = anderson_darling(excess_n, shape, spread), 0
    for _ in range(FIT_SAMPLES):
        above_n = np.sort(rng.random(len(excess_n)))[::-1]
        sample_n = -spread * np.log(above_n) if abs(shape) < 1e-9 else spread / shape * (above_n**-shape - 1)
        worse += anderson_darling(sample_n, *fitted_pareto(sample_n)) >= found
    return (1 + worse) / (FIT_SAMPLES + 1)
