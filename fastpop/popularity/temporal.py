"""log p_t(i): the item marginal by time bucket, each shrunk towards the pooled one."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze
from fastpop.popularity.drift import drift_forecast
from fastpop.popularity.prior import PopularityPrior
from fastpop.popularity.smoothing import Events, best_alpha, smooth_counts
from fastpop.popularity.store import read_arrays, write_arrays

if TYPE_CHECKING:
    from fastpop.data import Interactions

DAY = 86_400
WIDTHS = {"hour": 3_600, "day": DAY, "week": 7 * DAY}
MEMORY_LIMIT = 4 << 30


@dataclass(frozen=True, eq=False, repr=False)
class TemporalPrior:
    """log p_t(i) of each time bucket t. Arrays are read-only.

    start_T: int64 [T], first second of each bucket, ascending; the last bucket has no end.
    counts_TV: float64 [T, V], events (or decayed events) of each bucket.
    log_prior_TV: float64 [T, V], nats; every row's exp sums to 1.
    pooled_V: float64 [V], the smoothed marginal over all buckets that rows are shrunk towards.
    alpha: events that the pooled marginal is worth in each bucket.
    Memory: dense, 16 T V bytes in all (a month of days over 1e6 items: 480 MB).
    """

    start_T: np.ndarray
    counts_TV: np.ndarray
    log_prior_TV: np.ndarray
    pooled_V: np.ndarray
    alpha: float
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "start_T", "counts_TV", "log_prior_TV", "pooled_V", "facts")

    @classmethod
    def from_events(
        cls,
        item: Any,
        time: Any,
        num_items: int,
        *,
        weight: Any = None,
        bucket: str | int = "day",
        num_buckets: int | None = None,
        smoothing: str | float = "loo",
        alpha: str | float = "loo",
        half_life: float | None = None,
    ) -> "TemporalPrior":
        """log((n_ti + alpha * p_i) / (n_t + alpha)), p the pooled marginal.

        item: [N] int ids in [0, num_items). time: [N] int seconds. weight: [N] numbers >= 0.
        bucket: "hour", "day", "week" (of UTC, counted from 1970-01-01) or a width in seconds.
        num_buckets: instead of a width, T buckets of about equally many events; events of one
            second stay together, so heavy ties may leave fewer.
        smoothing: of the pooled marginal, as in PopularityPrior.from_counts.
        alpha: a number > 0, or "loo": each event predicted from all the others, in its bucket and
            in the pooled marginal; with half_life each from the row of the bucket before its own, as
            the newest row predicts what comes.
        half_life: seconds. Bucket t then holds all events up to its end, each halved in weight for
            every half_life of age at that end: drift is followed without hard edges.
        A bucket inside the range without events is kept, at the pooled marginal.
        Raises: ValueError when T V float64 need over 4 GiB: take wider buckets.
        Source: hierarchical (Dirichlet) smoothing, MacKay & Bauman Peto 1995.
        """
        item_N, time_N, weight_N = _check_events(item, time, weight, num_items)
        if half_life is not None:
            checks.number("half_life", half_life, gt=0)
        start_T = _fixed_starts(time_N, bucket) if num_buckets is None else _equal_starts(time_N, num_buckets)
        num_rows = start_T.shape[0]
        if num_rows * num_items * 16 > MEMORY_LIMIT:
            raise checks.wrong(
                "bucket",
                f"T x V tables within {MEMORY_LIMIT >> 30} GiB",
                text=f"{num_rows} buckets x {num_items} items; take wider buckets",
            )
        bucket_N = np.searchsorted(start_T, time_N, side="right") - 1
        end_T = np.append(start_T[1:], time_N.max() + 1)
        own_N = weight_N  # what an event weighs at the end of its bucket
        if half_life is not None:
            own_N = weight_N * np.exp2(-(end_T[bucket_N] - time_N).astype(np.float64) / half_life)
        count_TV = _count(bucket_N, item_N, own_N, num_rows, num_items)
        if half_life is not None:
            _decay_on(count_TV, end_T, half_life)
        total_V = np.bincount(item_N, weight_N, num_items)
        pooled_V, pooled_alpha = smooth_counts(
            total_V, smoothing, events=None if weight is None else Events.of(item_N, weight_N)
        )
        if isinstance(alpha, str):
            checks.one_of("alpha", alpha, ["loo"])
            if half_life is not None and num_rows > 1:
                strength = prequential_alpha(bucket_N, item_N, weight_N, count_TV, pooled_V, pooled_alpha)
            elif half_life is None and weight is None:  # cells hold equal events
                row_E, item_E = np.nonzero(count_TV)
                one_E = np.ones(len(row_E))
                strength = hierarchical_alpha(
                    row_E,
                    item_E,
                    count_TV[row_E, item_E],
                    one_E,
                    one_E,
                    count_TV,
                    total_V,
                    pooled_V,
                    pooled_alpha,
                )
            else:
                strength = hierarchical_alpha(
                    bucket_N, item_N, own_N, own_N, weight_N, count_TV, total_V, pooled_V, pooled_alpha
                )
        else:
            checks.number("alpha", alpha, gt=0)
            strength = float(alpha)
        log_prior_TV = _shrink(count_TV, pooled_V, strength)
        facts = {
            "bucket": bucket if num_buckets is None else f"{num_rows} of about equal size",
            "half_life": half_life,
            "num_events": float(weight_N.sum()),
            "num_empty_buckets": int((np.bincount(bucket_N, minlength=num_rows) == 0).sum()),
            "pooled_alpha": pooled_alpha,
        }
        return cls(start_T, count_TV, log_prior_TV, pooled_V, strength, facts)

    @classmethod
    def from_interactions(cls, log: "Interactions", **options: Any) -> "TemporalPrior":
        """from_events of a log's events and weights: give it the training part."""
        if log.time is None:
            raise checks.wrong("log", "events with times", text="a log without times")
        return cls.from_events(log.item, log.time, log.num_items, weight=log.weight, **options)

    @property
    def num_buckets(self) -> int:
        return self.start_T.shape[0]

    @property
    def num_items(self) -> int:
        return self.pooled_V.shape[0]

    def bucket_of(self, time: Any) -> np.ndarray:
        """Bucket index of each time (int64). Times after the last bucket's start belong to it:
        tomorrow is served by the newest marginal. Times before the first are an error."""
        time_N = _whole("time", time)
        if time_N.dtype.kind not in "iu":
            raise checks.wrong_type("time", "integers (seconds)", time_N)
        if time_N.size and int(time_N.min()) < int(self.start_T[0]):
            raise checks.wrong("time", f"seconds >= {int(self.start_T[0])}", text=f"{int(time_N.min())}")
        return np.searchsorted(self.start_T, time_N, side="right") - 1

    def newest(self, drift: float = 0.0) -> PopularityPrior:
        """log p of the last bucket, with its counts: what serves what comes next.

        drift: this much of how shares changed from the bucket before to the last one is added once more
            (`drift_forecast`), before they are shrunk; nothing is where one of the two has no events.
        """
        checks.number("drift", drift, ge=0)
        counts_V, log_prior_V = self.counts_TV[-1], self.log_prior_TV[-1]
        if drift and self.counts_TV[-2:].any(axis=1).sum() == 2:
            share_V = drift_forecast(self.counts_TV[-2], counts_V, drift)
            counts_V = counts_V.sum() * share_V / share_V.sum()
            log_prior_V = _shrink(counts_V[None], self.pooled_V, self.alpha)[0]
        facts = {**self.facts, "bucket_start": int(self.start_T[-1]), "drift": float(drift)}
        return PopularityPrior(
            counts_V, np.exp(log_prior_V), log_prior_V, self.alpha, "hierarchical", facts=facts
        )

    def save(self, path: str | Path) -> None:
        """One safetensors file, written beside and then moved into place."""
        arrays = {
            "start_T": self.start_T,
            "counts_TV": self.counts_TV,
            "log_prior_TV": self.log_prior_TV,
            "pooled_V": self.pooled_V,
        }
        about = json.dumps({"alpha": self.alpha, "facts": self.facts})
        write_arrays(path, arrays, "temporal-prior", about)

    @classmethod
    def load(cls, path: str | Path) -> "TemporalPrior":
        """What `save` wrote, bit for bit."""
        arrays, text = read_arrays(path, "temporal-prior")
        about = json.loads(text)
        return cls(
            arrays["start_T"],
            arrays["counts_TV"],
            arrays["log_prior_TV"],
            arrays["pooled_V"],
            about["alpha"],
            about["facts"],
        )

    def __repr__(self) -> str:
        return (
            f"TemporalPrior(num_buckets={self.num_buckets}, num_items={self.num_items}, "
            f"alpha={self.alpha:.4g})"
        )


def decayed_counts(
    item: Any, time: Any, num_items: int, *, half_life: float, at: int | None = None, weight: Any = None
) -> np.ndarray:
    """sum over events up to `at` of weight * 2**-((at - time) / half_life): float64 [V].

    at: seconds, default the last event's; later events are left out. half_life: seconds; inf: no
    decay.
    Feed the result to PopularityPrior.from_counts for a recency-weighted marginal, or let
    `recency_counts` choose the half-life and the smoothing by what came next in the log.
    """
    item_N, time_N, weight_N = _check_events(item, time, weight, num_items)
    if half_life != math.inf:
        checks.number("half_life", half_life, gt=0)
    now = int(time_N.max()) if at is None else at
    checks.number("at", now, integer=True)
    age_N = (now - time_N).astype(np.float64)
    past = age_N >= 0
    factor_N = weight_N[past] * np.exp2(-age_N[past] / half_life)
    return np.bincount(item_N[past], factor_N, num_items)


def hierarchical_alpha(
    row_E: np.ndarray,
    item_E: np.ndarray,
    gain_E: np.ndarray,
    weight_E: np.ndarray,
    pooled_weight_E: np.ndarray,
    count_TV: np.ndarray,
    total_V: np.ndarray,
    pooled_V: np.ndarray,
    pooled_alpha: float | None,
) -> float:
    """argmax over alpha of sum_E gain log((n_ti - w + alpha p_i') / (n_t - w + alpha)).

    Events of row t and item i, equal ones together (gain: how much they weigh together), are each
    predicted from all the others: without their own weight w in the row, and pooled_weight in p', the
    pooled marginal. With p each rare item would be predicted from itself and alpha come out too
    large. (Good-Turing has no such form: p' = p there.)
    Searched in [1e-3, 1e6 * max(1, N/T)] times a typical weight. Cost: O(E) for each of about 130 steps.
    """
    if pooled_alpha is None:
        share_E = pooled_V[item_E]
    else:
        left_E = np.maximum(total_V[item_E] - pooled_weight_E, 0.0) + pooled_alpha
        all_E = float(total_V.sum()) - pooled_weight_E + pooled_alpha * len(total_V)
        share_E = np.divide(left_E, all_E, out=pooled_V[item_E].copy(), where=all_E > 0)
    # An item whose only event is left out with pooled alpha 0 cannot be predicted by any alpha.
    known = (share_E > 0) & (weight_E > 0)
    row_E, item_E, gain_E, weight_E, share_E = (
        array[known] for array in (row_E, item_E, gain_E, weight_E, share_E)
    )
    if (gain_E / np.maximum(weight_E, np.finfo(float).tiny)).sum() <= 1:
        return 1.0
    size_T = np.bincount(row_E, gain_E, count_TV.shape[0])
    return best_alpha(
        gain_E,
        np.maximum(count_TV[row_E, item_E] - weight_E, 0.0),
        share_E,
        gain_E,
        np.maximum(size_T[row_E] - weight_E, 0.0),
        *_bounds(float(gain_E @ weight_E / gain_E.sum()), size_T),
    )


def prequential_alpha(
    bucket_N: np.ndarray,
    item_N: np.ndarray,
    weight_N: np.ndarray,
    count_TV: np.ndarray,
    pooled_V: np.ndarray,
    pooled_alpha: float | None,
) -> float:
    """argmax over alpha of sum_N w log((n_si + alpha p_si) / (n_s + alpha)), s the bucket before the
    event's: later events predicted from earlier ones, as they are when the newest row serves.

    p_s: the pooled marginal of what is known by then (with Good-Turing, that of all).
    Searched as by `hierarchical_alpha`. Cost: O(N log N + T V), then O(N) a step.
    """
    order = np.argsort(bucket_N, kind="stable")
    ends = np.searchsorted(bucket_N[order], np.arange(count_TV.shape[0]), side="right")
    known_V = np.bincount(item_N[order[: ends[0]]], weight_N[order[: ends[0]]], len(pooled_V))
    parts: list[tuple[np.ndarray, ...]] = []
    for s in range(count_TV.shape[0] - 1):
        coming = order[ends[s] : ends[s + 1]]
        item, back = np.unique(item_N[coming], return_inverse=True)
        gain = np.bincount(back, weight_N[coming], len(item))
        share = pooled_V[item]
        if pooled_alpha is not None:
            share = (known_V[item] + pooled_alpha) / (known_V.sum() + pooled_alpha * len(known_V))
        known_V[item] += gain
        parts.append((gain, count_TV[s, item], share, np.full(len(item), count_TV[s].sum())))
    gain_E, rest_E, share_E, size_E = (np.concatenate(column) for column in zip(*parts))
    known = (share_E > 0) & (gain_E > 0)
    gain_E, rest_E, share_E, size_E = gain_E[known], rest_E[known], share_E[known], size_E[known]
    if len(gain_E) == 0:
        return 1.0
    return best_alpha(gain_E, rest_E, share_E, gain_E, size_E, *_bounds(1.0, count_TV.sum(axis=1)))


def _bounds(unit: float, size_T: np.ndarray) -> tuple[float, float]:
    """Where alpha is searched: from far below the weight of an event to where it wins in every row."""
    size_T = size_T[size_T > 0]
    return 1e-3 * unit, 1e6 * max(unit, float(size_T.mean()))


def _shrink(count_TV: np.ndarray, pooled_V: np.ndarray, alpha: float) -> np.ndarray:
    log_prior_TV = count_TV + alpha * pooled_V
    log_prior_TV /= count_TV.sum(axis=1, keepdims=True) + alpha
    return np.log(log_prior_TV, out=log_prior_TV)


def _count(
    bucket_N: np.ndarray, item_N: np.ndarray, weight_N: np.ndarray, num_rows: int, num_items: int
) -> np.ndarray:
    cell_N = bucket_N * num_items + item_N
    return np.bincount(cell_N, weight_N, num_rows * num_items).reshape(num_rows, num_items)


def _decay_on(count_TV: np.ndarray, end_T: np.ndarray, half_life: float) -> None:
    """Row t += row t-1 aged by the width of bucket t."""
    for t in range(1, end_T.shape[0]):
        count_TV[t] += count_TV[t - 1] * np.exp2(-float(end_T[t] - end_T[t - 1]) / half_life)


def _fixed_starts(time_N: np.ndarray, bucket: str | int) -> np.ndarray:
    if isinstance(bucket, str):
        checks.one_of("bucket", bucket, WIDTHS)
        width = WIDTHS[bucket]
    else:
        checks.number("bucket", bucket, ge=1, integer=True)
        width = int(bucket)
    first, last = int(time_N.min()) // width, int(time_N.max()) // width
    if last - first >= 1 << 24:
        raise checks.wrong("bucket", "at most 2**24 buckets", text=f"{last - first + 1} of {width} s")
    return np.arange(first, last + 1, dtype=np.int64) * width


def _equal_starts(time_N: np.ndarray, num_buckets: int) -> np.ndarray:
    checks.number("num_buckets", num_buckets, ge=1, le=time_N.shape[0], integer=True)
    ordered = np.sort(time_N)
    return np.unique(ordered[np.arange(num_buckets) * ordered.shape[0] // num_buckets])


def _whole(argument: str, value: Any) -> np.ndarray:
    array = checks.array_like(argument, value)
    return array.detach().cpu().numpy() if hasattr(array, "detach") else array


def _check_events(
    item: Any, time: Any, weight: Any, num_items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    checks.number("num_items", num_items, ge=1, integer=True)
    item_N, time_N = _whole("item", item), _whole("time", time)
    for name, array in (("item", item_N), ("time", time_N)):
        if array.dtype.kind not in "iu":
            raise checks.wrong_type(name, "a 1-d array of integers", array)
        if array.ndim != 1 or array.shape != item_N.shape or array.shape[0] == 0:
            raise checks.wrong(name, "shape [N], N >= 1, the same for item and time", array)
    checks.ids_in_range("item", item_N, num_items)
    if weight is None:
        weight_N = np.ones(item_N.shape[0])
    else:
        weight_N = checks.float_array("weight", weight, 1)
        checks.shape("weight", weight_N, (item_N.shape[0],))
        if (weight_N < 0).any():
            at = int(np.argmax(weight_N < 0))
            raise checks.wrong("weight", "numbers >= 0", text=f"{weight_N[at]} at event {at}")
    return item_N.astype(np.int64), time_N.astype(np.int64), weight_N
