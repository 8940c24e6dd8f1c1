"""Propensities, the probability that a pair (user, item) is seen: by popularity, by value, by features.

From biased events alone only a guess can be made of them (popularity, features); what a value is worth
(naive Bayes) needs a few events shown at random.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze

MOST_STEPS = 100  # of Newton's method, which takes some ten


def popularity_propensity(counts: Any, power: float = 0.5) -> np.ndarray:
    """(count / largest count)^power, float64 [V] in (0, 1]. A count below one is taken as one.

    counts: [V] >= 0, not all zero. power: >= 0; 0 gives 1 everywhere, no correction. Up to a factor,
    which cancels wherever weights are normalised.
    Raises: ValueError, TypeError.
    Source: Saito et al., WSDM 2020, sec. 5; Yang et al., RecSys 2018.
    """
    counts_V = checks.float_array("counts", counts, 1, by_item=True)
    checks.number("power", power, ge=0)
    if len(counts_V) == 0 or counts_V.min() < 0 or counts_V.max() == 0:
        raise checks.wrong("counts", "numbers >= 0, not all zero", counts_V)
    counts_V = np.maximum(counts_V, 1.0)
    return (counts_V / counts_V.max()) ** power


@dataclass(frozen=True, eq=False)
class NaiveBayesPropensity:
    """P(seen | value) = P(value | seen) P(seen) / P(value): every pair of one value alike.

    value_R: float64, rising: the values (ratings, say). propensity_R: in (0, 1].
    Source: Schnabel et al., ICML 2016, sec. 5.1.
    """

    value_R: np.ndarray
    propensity_R: np.ndarray

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "value_R", "propensity_R")

    @classmethod
    def fit(cls, seen: Any, random: Any, num_pairs: int) -> "NaiveBayesPropensity":
        """From the values of the biased events, and of pairs that were shown at random.

        seen: [N] numbers. random: [M] numbers. num_pairs: users times items.
        A share that comes out above 1, as a small random part can make it, is 1.
        Raises: ValueError where a value that was seen is not in the random part.
        """
        seen_N, random_M = checks.float_array("seen", seen, 1), checks.float_array("random", random, 1)
        checks.number("num_pairs", num_pairs, ge=max(len(seen_N), 1), integer=True)
        if len(seen_N) == 0 or len(random_M) == 0:
            raise checks.wrong(
                "seen, random", "at least one value each", text=f"{len(seen_N)}, {len(random_M)}"
            )
        value_R, count_R = np.unique(seen_N, return_counts=True)
        known, times = np.unique(random_M, return_counts=True)
        missing = np.setdiff1d(value_R, known)
        if len(missing):
            raise checks.wrong("random", "every value that was seen", text=f"no {missing[0]:g}")
        share_R = times[np.searchsorted(known, value_R)] / len(random_M)
        return cls(value_R, np.minimum(count_R / num_pairs / share_R, 1.0))

    def of(self, value: Any) -> np.ndarray:
        """[N] float64, of values [N]. Raises ValueError for a value that was not among those fitted."""
        value_N = checks.float_array("value", value, 1)
        at_N = np.minimum(np.searchsorted(self.value_R, value_N), len(self.value_R) - 1)
        other_N = self.value_R[at_N] != value_N
        if other_N.any():
            raise checks.wrong("value", f"one of {self.value_R.tolist()}", text=f"{value_N[other_N][0]:g}")
        return self.propensity_R[at_N]


@dataclass(frozen=True, eq=False)
class LogisticPropensity:
    """P(seen | features) = 1 / (1 + exp(-(intercept + features · weight))).

    weight_D: float64. intercept: number. num_steps: of Newton's method, to a gradient of zero.
    """

    weight_D: np.ndarray
    intercept: float
    num_steps: int

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "weight_D")

    @classmethod
    def fit(cls, features: Any, seen: Any, *, l2: float = 1.0) -> "LogisticPropensity":
        """argmin of -log likelihood + l2/2 ||weight||², the intercept free.

        features: [N, D] of pairs, both seen and not. seen: [N] bool or 0/1, some of each.
        l2: > 0: of features that tell the two apart the likelihood alone has no maximum.
        Raises: ValueError, TypeError; RuntimeError where Newton's method does not end.
        Cost: O(N D²) a step. Source: iteratively reweighted least squares, Green 1984.
        """
        feature_ND = checks.float_array("features", features, 2)
        seen_N = checks.float_array("seen", seen, 1)
        checks.shape("seen", seen_N, (len(feature_ND),))
        checks.number("l2", l2, gt=0)
        if set(np.unique(seen_N)) != {0.0, 1.0}:
            raise checks.wrong("seen", "zeros and ones, some of each", seen_N)
        row_NF = np.column_stack([np.ones(len(feature_ND)), feature_ND])
        ridge_F = np.full(row_NF.shape[1], float(l2))
        ridge_F[0] = 0.0
        weight_F = np.zeros(row_NF.shape[1])
        value = _penalised(row_NF, seen_N, ridge_F, weight_F)
        for step in range(1, MOST_STEPS + 1):
            p_N = _sigmoid(row_NF @ weight_F)
            gradient_F = row_NF.T @ (p_N - seen_N) + ridge_F * weight_F
            hessian_FF = (row_NF.T * (p_N * (1 - p_N))) @ row_NF + np.diag(ridge_F)
            move_F = np.linalg.solve(hessian_FF, gradient_F)
            size, decrease = 1.0, float(gradient_F @ move_F)
            if decrease <= 1e-14 * max(1.0, abs(value)):
                return cls(weight_F[1:].copy(), float(weight_F[0]), step)
            # Halved until it helps: far out a whole step of Newton's overshoots.
            while (after := _penalised(row_NF, seen_N, ridge_F, weight_F - size * move_F)) > value and (
                size > 1e-10
            ):
                size /= 2
            weight_F, value = weight_F - size * move_F, after
        raise RuntimeError(
            f"features: expected ones that {MOST_STEPS} steps of Newton's method fit; got others"
        )

    def of(self, features: Any) -> np.ndarray:
        """[N] float64 in (0, 1), of features [N, D]."""
        feature_ND = checks.float_array("features", features, 2)
        checks.shape("features", feature_ND, ("N", len(self.weight_D)))
        return _sigmoid(self.intercept + feature_ND @ self.weight_D)


def _sigmoid(z_N: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -z_N))


def _penalised(row_NF: np.ndarray, seen_N: np.ndarray, ridge_F: np.ndarray, weight_F: np.ndarray) -> float:
    z_N = row_NF @ weight_F
    return float((np.logaddexp(0.0, z_N) - seen_N * z_N).sum() + ridge_F @ weight_F**2 / 2)


def check_propensity(argument: str, propensity: Any, size: int, clip: float = 0.0) -> np.ndarray:
    """[N] float64 in (0, 1], none below `clip`. Raises ValueError, TypeError."""
    propensity_N = checks.float_array(argument, propensity, 1)
    checks.shape(argument, propensity_N, (size,))
    checks.number("clip", clip, ge=0, le=1)
    if size and not (propensity_N.min() > 0 and propensity_N.max() <= 1 + 1e-12):
        bad = propensity_N[(propensity_N <= 0) | (propensity_N > 1 + 1e-12)][0]
        raise checks.wrong(argument, "probabilities in (0, 1]", text=f"{bad:g}")
    return np.minimum(np.maximum(propensity_N, clip), 1.0)
