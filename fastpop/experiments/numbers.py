"""The numbers that a comparison's sentences are made of: means, intervals over seeds, paired differences."""

import math
from typing import Any

from fastpop.experiments.findings import MIN_SEEDS, by_seed, interval, paired

Row = tuple[str, float | None]  # arm, popularity weight; None: the learned part
# What sentences need of each seed, by popularity weight: kept wherever a comparison is kept in part.
WORDED: dict[float | None, tuple[str, ...]] = {
    None: ("energy_direction", "energy_shared", "energy_off_direction", "energy_shared_b", "slope"),
    1.0: ("nll", "ndcg@10", "coverage@10", "auc_shown"),
}


class Numbers:
    """Of one comparison at one reading, by (arm, popularity weight) and metric.

    Means and intervals are its summary's, differences its own where it lists them, otherwise those of its
    rows. Where a comparison was kept without the rows of a number, two intervals stand for a difference: the
    widest that they allow, whatever goes with what over seeds; it says "unpaired".
    """

    def __init__(self, comparison: Any, reading: str):
        self.rows, self.reading = comparison["rows"], reading
        self.summary = {
            (entry["arm"], entry["popularity_weight"]): entry["values"]
            for entry in comparison["summary"]
            if entry["epochs"] == reading
        }
        self.differences = {
            (entry["arm"], entry["baseline"], entry["popularity_weight"], entry["metric"]): entry
            for entry in comparison.get("differences", [])
            if entry["epochs"] == reading
        }

    def interval(self, row: Row, metric: str) -> dict[str, Any] | None:
        found = self.summary.get(row, {}).get(metric)
        return None if found is None or not found["n"] else found

    def mean(self, row: Row, metric: str) -> float:
        found = self.interval(row, metric)
        return math.nan if found is None else found["mean"]

    def seeds(self, row: Row, metric: str) -> dict[int, float]:
        return by_seed(self.rows, *row, metric, self.reading)

    def pair(self, one: Row, other: Row, metric: str) -> dict[str, Any] | None:
        """one - other with its interval."""
        listed = self.differences.get((one[0], other[0], one[1], metric)) if one[1] == other[1] else None
        if listed is not None:
            return listed
        return paired(self.rows, one, other, metric, self.reading) or self._unpaired(one, other, metric)

    def ratio(self, one: Row, other: Row, metric: str) -> dict[str, Any] | None:
        """one / other of what is above 0: the geometric mean over seeds with its interval."""
        first, second = self.seeds(one, metric), self.seeds(other, metric)
        logs = [
            math.log(first[seed] / second[seed])
            for seed in first
            if first[seed] > 0 and second.get(seed, 0) > 0
        ]
        if logs and len(logs) == len(first):
            return _exp(interval("", logs))
        mine, theirs = self.interval(one, metric), self.interval(other, metric)
        if mine is None or theirs is None or theirs["mean"] <= 0:
            return None
        found = {"mean": mine["mean"] / theirs["mean"], "low": None, "high": None, "n": mine["n"]}
        if mine["low"] is not None and theirs["low"] is not None and theirs["low"] > 0:
            found |= {
                "low": mine["low"] / theirs["high"],
                "high": mine["high"] / theirs["low"],
                "unpaired": True,
            }
        return found

    def change(self, one: Row, other: Row, metric: str) -> dict[str, Any] | None:
        """one / other - 1, its mean over seeds with an interval; None without rows of each seed."""
        first, second = self.seeds(one, metric), self.seeds(other, metric)
        changes = [first[seed] / second[seed] - 1 for seed in first if second.get(seed, 0) > 0]
        return interval("", changes) if changes else None

    def _unpaired(self, one: Row, other: Row, metric: str) -> dict[str, Any] | None:
        mine, theirs = self.interval(one, metric), self.interval(other, metric)
        if mine is None or theirs is None:
            return None
        found = {
            "mean": mine["mean"] - theirs["mean"],
            "low": None,
            "high": None,
            "n": min(mine["n"], theirs["n"]),
        }
        if mine["low"] is not None and theirs["low"] is not None:
            found |= {
                "low": mine["low"] - theirs["high"],
                "high": mine["high"] - theirs["low"],
                "unpaired": True,
            }
        return found


def _exp(found: dict[str, Any]) -> dict[str, Any]:
    return {
        name: math.exp(value) if name != "n" and value is not None else value for name, value in found.items()
    }


def side(pair: dict[str, Any] | None) -> int | None:
    """1 where the whole interval lies above 0, -1 below, 0 where it holds 0; None: there is no interval."""
    if pair is None or pair["low"] is None:
        return None
    return int(pair["low"] > 0) - int(pair["high"] < 0)


MOST_DIGITS = 6


def told(pair: dict[str, Any], digits: int | None) -> str:
    """A difference with its interval, or with what keeps one from being given; and whether it has a side.

    digits: decimals; None: four significant ones, of energies.
    """
    if digits is not None and side(pair):
        while digits < MOST_DIGITS and not round(abs(pair["mean"]), digits):
            digits += 1  # "+0.000 [+0.000, +0.000]" tells nobody what is told apart
    form = "+.4g" if digits is None else f"+.{digits}f"
    text = f"{pair['mean']:{form}}"
    if pair["low"] is None:
        return f"{text} ({why_no_interval(pair['n'])})"
    text += f" [{pair['low']:{form}}, {pair['high']:{form}}]"
    if pair.get("unpaired"):
        text += " unpaired"
    return text if side(pair) else f"{text}, not told apart"


def why_no_interval(seeds: int) -> str:
    if seeds == 1:
        return "one run, no interval"
    return f"no interval: {seeds} seeds, {MIN_SEEDS} are the least"


def amount(found: dict[str, Any] | None, form: str = ".4g") -> str:
    """A mean with its interval, where there is one."""
    if found is None:
        return "unknown"
    text = f"{found['mean']:{form}}"
    if found.get("low") is not None:
        text += f" [{found['low']:{form}}, {found['high']:{form}}]"
    return text


def percent(found: dict[str, Any]) -> str:
    text = f"{found['mean']:+.0%}"
    if found.get("low") is not None:
        text += f" [{max(found['low'], -1):+.0%}, {found['high']:+.0%}]"  # nothing falls by more than all
    return text
