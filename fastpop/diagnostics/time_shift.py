"""Popularity of the time: does a context's score follow the log p of its own period more than of others?

Shuffled items would be the wrong null for that: popularity keeps from one period to the next. Shifting the
periods round in a circle keeps what items are, and what time does, and breaks only which belongs to which.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze
from fastpop.ops.energies import popularity_direction


@dataclass(frozen=True, eq=False)
class TimeShiftTest:
    """energy: Σ_t w_t of the mean squared score along the direction of log p_t, over contexts of period t.

    shifted_S: [T - 1], the same with the directions shifted round by 1 .. T - 1 periods. p_value: (1 + those
    that reach it) / T, exact; its least value is 1/T. energy_TT: [period of contexts, period of log p],
    what all of them are sums of. pooled_residual: Σ w_t ||H(log p_t - log p)||², p the weighted mean of p_t:
    how much of log p_t one log p for all times leaves.
    """

    energy: float
    shifted_S: np.ndarray
    p_value: float
    energy_TT: np.ndarray
    pooled_residual: float

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "shifted_S", "energy_TT")


def time_shift_test(
    query: Any,
    items: Any,
    bucket: Any,
    log_prior: Any,
    *,
    bias: Any = None,
    scale: float = 1.0,
    context_weight: Any = None,
    residual: bool = True,
) -> TimeShiftTest:
    """Energy of scores along the popularity of their own time, and its circular-shift null.

    Args:
        query: [C, D]. items: [V, D]. bias: [V] nats or None. scale: of the dot product.
        bucket: [C] integers in [0, T), the period of each context.
        log_prior: [T, V] nats, T >= 2, a row a period (`TemporalPrior.log_prior_TV`).
        context_weight: [C] >= 0; None counts all alike.
        residual: take out the mean over periods of log p_t first, which a shift leaves where it is.
    Raises: ValueError, TypeError; where a row of log_prior is uniform, or with residual the mean itself.
    Cost: O((C + V) D T), and [C, T] float64.
    """
    item_VD = checks.float_array("items", items, 2)
    query_CD = checks.float_array("query", query, 2)
    checks.shape("query", query_CD, ("C", item_VD.shape[1]))
    log_prior_TV = checks.float_array("log_prior", log_prior, 2)
    checks.shape("log_prior", log_prior_TV, ("T", len(item_VD)))
    num_buckets = len(log_prior_TV)
    if num_buckets < 2:
        raise checks.wrong("log_prior", "two periods or more", log_prior_TV)
    bucket_C = checks.int_array("bucket", bucket)
    checks.shape("bucket", bucket_C, (len(query_CD),))
    checks.ids_in_range("bucket", bucket_C, num_buckets)
    checks.number("scale", scale)
    weight_C = _weights(context_weight, len(query_CD))
    along_VT = _directions(log_prior_TV, residual)
    score_CT = scale * query_CD @ (item_VD.T @ along_VT)
    if bias is not None:
        bias_V = checks.float_array("bias", bias, 1)
        checks.shape("bias", bias_V, (len(item_VD),))
        score_CT += bias_V @ along_VT
    energy_TT = np.zeros((num_buckets, num_buckets))
    np.add.at(energy_TT, bucket_C, weight_C[:, None] * score_CT**2)
    place_T = np.arange(num_buckets)
    shifted_T = np.array([energy_TT[place_T, (place_T + s) % num_buckets].sum() for s in place_T])
    near = shifted_T[0] * (1 - 1e-12)
    weight_T = np.bincount(bucket_C, weight_C, num_buckets)
    return TimeShiftTest(
        float(shifted_T[0]),
        shifted_T[1:],
        float((shifted_T >= near).sum()) / num_buckets,
        energy_TT,
        pooled_residual(log_prior_TV, weight_T),
    )


def pooled_residual(log_prior: Any, weight: Any = None) -> float:
    """Σ_t w_t ||H(log p_t - log Σ_t w_t p_t)||², nats²: what one prior for all periods leaves of log p_t.

    log_prior: [T, V] nats. weight: [T] >= 0 or None for equal ones; normalised here.
    """
    log_prior_TV = checks.float_array("log_prior", log_prior, 2)
    weight_T = _weights(weight, len(log_prior_TV))
    top_V = log_prior_TV.max(axis=0)
    pooled_V = top_V + np.log(weight_T @ np.exp(log_prior_TV - top_V))
    left_TV = log_prior_TV - pooled_V
    left_TV = left_TV - left_TV.mean(axis=1, keepdims=True)
    return float(weight_T @ (left_TV**2).sum(axis=1))


def _directions(log_prior_TV: np.ndarray, residual: bool) -> np.ndarray:
    """[V, T], of unit length and centred over items."""
    if residual:
        log_prior_TV = log_prior_TV - log_prior_TV.mean(axis=0)
    return np.column_stack([popularity_direction(row_V)[0] for row_V in log_prior_TV])


def _weights(weight: Any, size: int) -> np.ndarray:
    if weight is None:
        return np.full(size, 1 / max(size, 1))
    weight_C = checks.float_array("weight", weight, 1)
    checks.shape("weight", weight_C, (size,))
    if (weight_C < 0).any() or weight_C.sum() == 0:
        raise checks.wrong("weight", "numbers >= 0, not all zero", weight_C)
    return weight_C / weight_C.sum()
