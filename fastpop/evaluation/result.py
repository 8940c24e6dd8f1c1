"""What an evaluation gives back: means, and the values of each case behind them."""

import textwrap
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from fastpop.frozen import freeze
from fastpop.text import aligned, html_table


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found. Definitions: docs/metrics.md.

    metrics: name -> mean over cases (NLL: over target events).
    per_case: name -> float64 [C]; NaN where a case has no value (no tail target, say).
    rule: how it was ranked and masked, in words; print it with every number.
    events: name -> target events of each case, for the metrics that are means over events.
    case_weight: [C], ones unless given.
    exposure: k -> int64 [V], how many top-k slots each item got.
    cases_key: equal for equal cases; runs are paired only then.
    intervals: name -> (low, high), 95 %, where some of the cases were drawn (`sample_cases=`); else empty.
        A mean whose drawn cases have one value alone has none, and the rule names it.
    """

    metrics: dict[str, float]
    per_case: dict[str, np.ndarray]
    rule: str
    ks: tuple[int, ...]
    events: dict[str, np.ndarray]
    case_weight: np.ndarray
    exposure: dict[int, np.ndarray]
    cases_key: str
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "metrics", "per_case", "events", "case_weight", "exposure", "intervals")

    def __repr__(self) -> str:
        shown = [
            f"{name} {value:.4g}"
            for name, value in self.metrics.items()
            if name.partition("@")[0] in ("hr", "ndcg", "rank", "nll")
        ]
        return (
            f"Evaluation: {self.num_cases:,} cases, {self.num_events:,} target events\n  "
            + ", ".join(shown[:8])
            + "\n  .metrics .per_case .table()"
        )

    def _repr_html_(self) -> str:
        listed, whole, words = self._parts()
        tables = html_table(listed[0], listed[1:]), html_table(["", "mean"], whole)
        return "\n".join([*tables, f"<p>{escape(words)}</p>"])

    @property
    def num_cases(self) -> int:
        return len(self.case_weight)

    @property
    def num_events(self) -> int:
        return int(self.events["nll"].sum())

    def weight_of(self, name: str) -> np.ndarray:
        """[C] weights whose weighted mean of per_case[name] is metrics[name]."""
        return self.case_weight * self.events.get(name, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain and small: the means and the rule, without the per-case values."""
        return {
            "metrics": dict(self.metrics),
            "rule": self.rule,
            "ks": list(self.ks),
            "num_cases": self.num_cases,
            "num_events": self.num_events,
            **({"intervals": {k: list(v) for k, v in self.intervals.items()}} if self.intervals else {}),
        }

    def table(self) -> str:
        """Fixed width, at most 80 columns: one row a metric, one column a k."""
        listed, whole, words = self._parts()
        widths = [24, *(11 for _ in self.ks)]
        lines = [*aligned(listed, least=widths, gap=0), "", *aligned(whole, least=widths, gap=0), ""]
        return "\n".join([*lines, *textwrap.wrap(words, 78)])

    def _parts(self) -> tuple[list[list[str]], list[list[str]], str]:
        """Metrics of lists by k under a header, the others, and what was ranked, in words."""
        stems = dict.fromkeys(n.split("@")[0] for n in self.metrics if "@" in n)
        if (self.events["nll"] == 1).all():
            stems.pop("recall", None)  # of one target that is the hit rate
        listed = [["", *(f"@{k}" for k in self.ks)]]
        listed += [[stem, *(_cell(self.metrics.get(f"{stem}@{k}")) for k in self.ks)] for stem in stems]
        whole = [[name, _cell(value)] for name, value in self.metrics.items() if "@" not in name]
        listed += [
            [f"  {stem} ±", *(_cell(self._reach(f"{stem}@{k}")) for k in self.ks)]
            for stem in stems
            if any(f"{stem}@{k}" in self.intervals for k in self.ks)
        ]
        whole += [[f"  {name} ±", _cell(self._reach(name))] for name, _ in whole if name in self.intervals]
        size = f"{self.num_cases:,} cases, {self.num_events:,} target events. "
        return listed, whole, size + self.rule

    def _reach(self, name: str) -> float | None:
        """Half of an interval."""
        if name not in self.intervals:
            return None
        low, high = self.intervals[name]
        return (high - low) / 2


def weighted_mean(value_C: np.ndarray, weight_C: np.ndarray) -> float:
    """Mean over the cases that have a value; NaN if none has."""
    there = ~np.isnan(value_C) & (weight_C > 0)
    if not there.any():
        return float("nan")
    return float((value_C[there] * weight_C[there]).sum() / weight_C[there].sum())


def _cell(value: float | None) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"
