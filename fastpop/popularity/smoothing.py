"""Counts to probabilities: additive smoothing, its strength by leave-one-out, Good-Turing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.data import columns

GRID = 65


def check_counts(counts: Any) -> np.ndarray:
    """float64 [V] counts: finite, >= 0, not all zero; a copy that nobody else writes to."""
    count_V = checks.float_array("counts", counts, 1, by_item=True).copy()
    if count_V.shape[0] == 0:
        raise checks.wrong("counts", "at least one item", count_V)
    if (count_V < 0).any():
        at = int(np.argmax(count_V < 0))
        raise checks.wrong("counts", "numbers >= 0", text=f"{count_V[at]} at item {at}")
    if not count_V.any():
        raise checks.wrong("counts", "at least one event", text=f"{count_V.shape[0]} items, all zero")
    return count_V


def smooth_counts(
    counts: Any, smoothing: str | float = "loo", min_count: float = 0, events: "Events | None" = None
) -> tuple[np.ndarray, float | None]:
    """(counts + alpha) / (counts.sum() + alpha * V), and the alpha that was used.

    counts: [V] numbers >= 0, not all zero. smoothing: alpha as a number >= 0; "loo" for
    `loo_alpha(counts, events)`; "good-turing" for `good_turing(counts)`, whose alpha is None.
    min_count: items with fewer events count as unseen (0) before smoothing. events: what was counted,
    where its weights are known.
    Returns: prior_V float64, > 0, sums to 1; alpha.
    Raises: ValueError for a zero count with alpha = 0 (its log would be -inf).
    """
    count_V = apply_min_count(check_counts(counts), min_count)
    if isinstance(smoothing, str):
        checks.one_of("smoothing", smoothing, ["loo", "good-turing"])
        if smoothing == "good-turing":
            return good_turing(count_V), None
        alpha = loo_alpha(count_V, events)
    else:
        checks.number("smoothing", smoothing, ge=0)
        alpha = float(smoothing)
    return additive(count_V, alpha), alpha


def apply_min_count(count_V: np.ndarray, min_count: float) -> np.ndarray:
    """Counts below min_count set to 0."""
    checks.number("min_count", min_count, ge=0)
    kept_V = np.where(count_V >= min_count, count_V, 0.0)
    if not kept_V.any():
        raise checks.wrong("min_count", f"at most the largest count, {count_V.max():g}", min_count)
    return kept_V


def additive(count_V: np.ndarray, alpha: float) -> np.ndarray:
    """(n + alpha) / (N + alpha V)."""
    if alpha == 0 and not count_V.all():
        unseen = int((count_V == 0).sum())
        raise checks.wrong(
            "smoothing",
            "alpha > 0 where items have no events (log 0 is -inf)",
            text=f"alpha 0 with {unseen} unseen items of {count_V.shape[0]}",
        )
    # Scaled by alpha when it is large: counts + 1e300 would overflow in the sum.
    prior_V = count_V + alpha if alpha <= 1 else count_V / alpha + 1.0
    return prior_V / prior_V.sum()


@dataclass(frozen=True)
class Events:
    """Weighted events, equal ones once. item, weight, times: [E] each; weight > 0."""

    item: np.ndarray
    weight: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, item: np.ndarray, weight: np.ndarray) -> "Events":
        """A piece at a time: memory is that of the different (item, weight) pairs."""
        kept = cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
        for at in columns.pieces(len(item)):
            heavy = weight[at] > 0
            kept = cls(
                np.append(kept.item, item[at][heavy].astype(np.int64)),
                np.append(kept.weight, weight[at][heavy]),
                np.append(kept.times, np.ones(int(heavy.sum()))),
            )._distinct()
            columns.let_go(item[at], weight[at])
        return kept

    def _distinct(self) -> "Events":
        order = np.lexsort((self.weight, self.item))
        item, weight, times = self.item[order], self.weight[order], self.times[order]
        new = np.ones(len(item), dtype=bool)
        new[1:] = (item[1:] != item[:-1]) | (weight[1:] != weight[:-1])
        return Events(
            item[new], weight[new], np.add.reduceat(times, np.flatnonzero(new)) if len(times) else times
        )


def loo_alpha(counts: Any, events: Events | None = None) -> float:
    """argmax over alpha of sum_e w_e * log((n_i(e) - w_e + alpha) / (N - w_e + alpha * V)).

    Each event e, of weight w_e, is predicted from all the others. Without `events` an event weighs 1,
    and what a count has beyond a whole number is one event of that weight: whole counts are the
    usual n * log((n - 1 + alpha) / (N - 1 + alpha V)), and decayed counts lose no more than what
    their newest event could weigh. With `events` alpha is in the unit of their weights: twice the
    weights, twice the alpha. (For decayed counts of events with times, `recency_counts` does better:
    it predicts later events from earlier ones.)

    The search stays in [1/V, 1e6 * max(1, N/V)] times a typical weight: below, all pseudo-counts
    together weigh less than one event, which only data without a single singleton ask for; above,
    the direction of log p no longer moves (the optimum is at infinity when counts vary less than
    chance, as all-equal counts do). One event or one item, for which every alpha is as likely: 1.
    Cost: O(V log V), then O(distinct counts) a step; with events O(E log E), then O(E).
    """
    count_V = check_counts(counts)
    num_items = count_V.shape[0]
    total = float(count_V.sum())
    weight, gain, rest = _left_out(count_V, events)
    if num_items == 1 or (gain / weight).sum() <= 1:
        return 1.0
    return best_alpha(
        gain, rest, 1.0, gain, np.maximum(total - weight, 0.0) / num_items, *loo_range(count_V, events)
    )


def loo_range(count_V: np.ndarray, events: Events | None = None) -> tuple[float, float]:
    """Least and largest alpha that `loo_alpha` tries."""
    weight, gain, _ = _left_out(count_V, events)
    num_items = count_V.shape[0]
    unit = float(gain @ weight / gain.sum())
    return unit / num_items, 1e6 * max(unit, float(count_V.sum()) / num_items)


def _left_out(count_V: np.ndarray, events: Events | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weight of an event, weight of all like it, what is left of its item's count without it)."""
    if events is None:
        value, times = np.unique(count_V[count_V > 0], return_counts=True)
        whole = np.floor(value)
        part = value - whole
        # (how much weight, of events that weigh so much, on items of this count)
        weight = np.concatenate([np.ones(len(value)), part])
        gain = np.concatenate([whole * times, part * times])
        rest = np.concatenate([value - 1, whole])
    else:
        known = count_V[events.item] > 0
        weight = events.weight[known]
        gain = weight * events.times[known]
        rest = np.maximum(count_V[events.item[known]] - weight, 0.0)
    return weight[gain > 0], gain[gain > 0], rest[gain > 0]


def best_alpha(
    gain: np.ndarray,
    rest: np.ndarray,
    share: np.ndarray | float,
    size_gain: np.ndarray,
    size: np.ndarray,
    low: float,
    high: float,
) -> float:
    """argmax over alpha in [low, high] of
    sum(gain * log(rest + alpha * share)) - sum(size_gain * log(size + alpha)).

    Both sums are of one thing, events that are predicted from others, each over its own groups: gain
    and size_gain sum to the same. With share 1, size is the number of other events over V.
    """
    total = float(gain.sum())
    size, group = np.unique(size, return_inverse=True)
    size_gain = np.bincount(group, size_gain, len(size))

    def likelihood(log_alpha: float) -> float:
        alpha = np.exp(log_alpha)
        return float(gain @ np.log(rest + alpha * share) - size_gain @ np.log(size + alpha))

    def slope(log_alpha: float) -> float:
        alpha = np.exp(log_alpha)
        # Both sides over the total: differences of large sums would lose the sign near the top.
        fit = float((gain / total) @ (share / (rest + alpha * share)))
        return fit - float((size_gain / total) @ (1 / (size + alpha)))

    return float(np.exp(maximum(likelihood, slope, np.log(low), np.log(high))))


def maximum(likelihood: Any, slope: Any, low: float, high: float) -> float:
    """Where a smooth function is largest in [low, high]: the best of a grid, then bisection of the
    slope between its neighbours. An end of the interval when the slope points out of it."""
    grid = np.linspace(low, high, GRID)
    best = int(np.argmax([likelihood(x) for x in grid]))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    if slope(left) <= 0:
        return float(left)
    if slope(right) >= 0:
        return float(right)
    for _ in range(60):
        middle = 0.5 * (left + right)
        if slope(middle) > 0:
            left = middle
        else:
            right = middle
    return float(0.5 * (left + right))


def good_turing(counts: Any) -> np.ndarray:
    """Simple Good-Turing (Gale & Sampson 1995): n events weigh r*(n), unseen items share N_1 / N.

    r* is Turing's (n+1) N_{n+1} / N_n for small n and, from the first n where the two do not differ
    by 1.65 standard deviations, that of a line through log Z against log n. The mass of
    unseen items, N_1 / N, is shared equally by them; without unseen items the seen ones keep it.

    counts: [V] whole numbers.
    Raises: ValueError for fractional counts; when items are unseen but none was seen once (nothing
        says how likely they are) or all were (nothing is left for the seen); when counts take fewer
        than two values, which is too few for the line.
    Source: Gale, "Good-Turing smoothing without tears" (1995).
    """
    count_V = check_counts(counts)
    if (count_V != np.floor(count_V)).any():
        at = int(np.argmax(count_V != np.floor(count_V)))
        raise checks.wrong("counts", "whole numbers for good-turing", text=f"{count_V[at]} at {at}")
    total = float(count_V.sum())
    seen = count_V > 0
    value, which, times = np.unique(count_V[seen], return_inverse=True, return_counts=True)
    singletons = float(times[0]) if value[0] == 1 else 0.0
    unseen = int((~seen).sum())
    if unseen and not 0 < singletons < total:
        raise checks.wrong(
            "smoothing",
            "for good-turing, some but not all events on items seen once",
            text=f"{int(singletons)} singletons of {total:g} events; use an additive alpha",
        )
    if value.size < 2:
        raise checks.wrong(
            "counts", "at least two different counts for good-turing", text=f"only {value[0]:g}"
        )
    unseen_mass = singletons / total if unseen else 0.0
    adjusted = _adjusted_counts(value, times.astype(np.float64))
    prior_V = np.zeros_like(count_V)
    prior_V[seen] = (1 - unseen_mass) * adjusted[which] / (times @ adjusted)
    if unseen:
        prior_V[~seen] = unseen_mass / unseen
    return prior_V / prior_V.sum()


def _adjusted_counts(value: np.ndarray, times: np.ndarray) -> np.ndarray:
    """r*(n) for the distinct counts `value`, `times` items having each."""
    before = np.concatenate([[0.0], value[:-1]])
    after = np.concatenate([value[1:], [2 * value[-1] - before[-1]]])
    log_value = np.log(value)
    log_density = np.log(2 * times / (after - before))
    centred = log_value - log_value.mean()
    slope = float(centred @ log_density / (centred @ centred))
    # n S(n+1)/S(n) (n+1)/n of the line S(n) = exp(a) n^slope: the intercept cancels.
    linear = value * (1 + 1 / value) ** (slope + 1)
    has_next = value[1:] == value[:-1] + 1
    stop = int(np.argmin(has_next)) if not has_next.all() else has_next.size
    adjusted = linear.copy()
    for k in range(stop):
        ratio = times[k + 1] / times[k]
        turing = (value[k] + 1) * ratio
        deviation = (value[k] + 1) * np.sqrt(ratio / times[k] * (1 + ratio))
        if abs(turing - linear[k]) <= 1.65 * deviation:
            break
        adjusted[k] = turing
    return adjusted
