"""Curves of accuracy against the popularity of the lists, against that of post-hoc subtraction: numbers,
verdicts, tables and the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastpop import checks
from fastpop.experiments.arms import BEST, EQUAL, POST_HOC
from fastpop.experiments.frontier import LEVELS, POPULARITY, matched, mean_between
from fastpop.studies.methods import Row
from fastpop.studies.study import Chart, Series, Table, excludes, give_or_take, of_seeds, told

NDCG = "ndcg@10"
READINGS = {BEST: "each at its own best epoch", EQUAL: "at equal epochs"}
AS_TRAINED = {"ndcg": NDCG, "arp": POPULARITY, "coverage": "coverage@10"}
DIFFERENCES = ("area", *(f"at {100 * share:.0f}" for share in LEVELS))


@dataclass(frozen=True, eq=False)
class Curves:
    """What rows of `methods.run_of` say.

    others: curves that are compared with post-hoc's. trained: those that have a score as trained.
    references: numbers of the rows that no model needs. title: the log and the number of seeds.
    """

    rows: list[Row]
    references: dict[str, dict[str, float]]
    others: tuple[str, ...]
    trained: tuple[str, ...]
    title: str

    __repr__ = checks.brief

    def values(self) -> dict[str, float]:
        """Of an arm as trained: "best.frozen.ndcg", .arp, .coverage, .epoch. Its NDCG minus that of post-hoc
        over the range of ARP that both reach: .area, the mean; .at 25, .at 50, .at 75, at these percents."""
        values: dict[str, float] = {}
        for name, found in self.references.items():
            values |= {f"{name}.{short}": found[key] for short, key in AS_TRAINED.items() if key in found}
        for epochs in READINGS:
            for arm in self.trained:
                served = [row["values"] for row in self._of(arm, epochs) if row["trained"]]
                for short, key in {**AS_TRAINED, "epoch": "epoch"}.items():
                    values |= of_seeds(f"{epochs}.{arm}.{short}", [one[key] for one in served])
            values |= self._differences(epochs)
        return values

    def _differences(self, epochs: str) -> dict[str, float]:
        values: dict[str, float] = {}
        points = matched(self.rows, POST_HOC, list(self.others), epochs)
        for arm in self.others:
            area = mean_between(self.rows, POST_HOC, arm, epochs)
            if area is not None:
                values |= of_seeds(f"{epochs}.{arm}.area", area)
            mine = [point for point in points if point["arm"] == arm and point["metric"] == NDCG]
            for short, point in zip(DIFFERENCES[1:], mine):
                name = f"{epochs}.{arm}.{short}"
                values[name] = point["mean"]
                if point["low"] is not None:
                    values |= {f"{name}.low": point["low"], f"{name}.high": point["high"]}
        return values

    def sentences(self, values: dict[str, float]) -> list[str]:
        found = []
        for epochs, words in READINGS.items():
            said: dict[str, list[str]] = {}
            for arm in self.others:
                said.setdefault(verdict(values, epochs, arm), []).append(arm)
            parts = "; ".join(f"{listed(arms)} {what}" for what, arms in said.items())
            found.append(
                "NDCG@10 against log p subtracted from a standard model (post-hoc), where both show equally "
                f"popular items, {words}: {parts}."
            )
        best = max(self.references, key=lambda name: values.get(f"{name}.ndcg", 0.0))
        counts = values[f"{best}.ndcg"]
        sides = {arm: excludes(values, f"{BEST}.{arm}.ndcg", counts) for arm in self.trained}
        if None in sides.values():
            more = "too few runs to say what is above it"
        else:
            above = [arm for arm, side in sides.items() if side == 1]
            more = f"above it as trained, with the whole interval: {listed(above) if above else 'none'}"
        found.append(f"Of the rows that no model needs {best} has the highest NDCG@10, {counts:.4f}; {more}.")
        return found

    def tables(self, values: dict[str, float]) -> list[Table]:
        return [table for epochs in READINGS for table in self._tables(values, epochs)]

    def _tables(self, values: dict[str, float], epochs: str) -> list[Table]:
        trained = [
            (
                arm,
                f"{values[f'{epochs}.{arm}.epoch']:.1f}",
                told(values, f"{epochs}.{arm}.ndcg", 4),
                *(values[f"{epochs}.{arm}.{short}"] for short in ("arp", "coverage")),
            )
            for arm in self.trained
        ]
        without = [
            (name, "-", *(values.get(f"{name}.{short}", "-") for short in AS_TRAINED))
            for name in self.references
        ]
        differences = [
            (arm, *(give_or_take(values, f"{epochs}.{arm}.{name}") for name in DIFFERENCES))
            for arm in self.others
        ]
        return [
            Table(
                f"As trained, {READINGS[epochs]}, and rows without a model: {self.title}",
                ("arm", "epoch", "NDCG@10", "ARP", "coverage"),
                (*trained, *without),
            ),
            Table(
                f"NDCG@10 minus that of post-hoc at equal ARP, {READINGS[epochs]}: mean over the range of "
                "ARP that both reach, and at 25, 50 and 75 % of it",
                ("arm", "mean", "25 %", "50 %", "75 %"),
                tuple(differences),
            ),
        ]

    def charts(self, name: str) -> tuple[Chart, ...]:
        return tuple(self._chart(name, epochs) for epochs in READINGS)

    def _chart(self, name: str, epochs: str) -> Chart:
        lines = []
        for arm in (POST_HOC, *self.others):
            mine = self._of(arm, epochs)
            weights = sorted({row["popularity_weight"] for row in mine})
            arp, ndcg = (
                [
                    float(np.mean([row["values"][key] for row in mine if row["popularity_weight"] == weight]))
                    for weight in weights
                ]
                for key in (POPULARITY, NDCG)
            )
            there = [place for place, value in enumerate(arp) if value > 0]  # of which there is a logarithm
            x, y = (tuple(axis[place] for place in there) for axis in (arp, ndcg))
            lines.append(Series(arm, x, y))
        for reference, found in self.references.items():
            if NDCG in found:
                lines.append(Series(reference, (found[POPULARITY],), (found[NDCG],), dashed=True))
        return Chart(
            f"{name}-{epochs}",
            f"{self.title}, {READINGS[epochs]}",
            "ARP@10: mean training events of the items shown",
            "NDCG@10",
            tuple(lines),
            log_x=True,
        )

    def _of(self, arm: str, epochs: str) -> list[Row]:
        return [row for row in self.rows if row["arm"] == arm and row["epochs"] == epochs]


def verdict(values: dict[str, float], epochs: str, arm: str) -> str:
    """Of an arm against post-hoc where both show equally popular items: by the intervals at three levels."""
    names = [f"{epochs}.{arm}.{short}" for short in DIFFERENCES[1:]]
    if not all(name in values for name in names):
        return "shows no lists as popular"
    sides = [excludes(values, name) for name in names]
    if None in sides:
        return "too few runs to say"
    if len(set(sides)) == 1:
        return {1: "better", -1: "worse", 0: "cannot be told apart"}[sides[0] or 0]
    if {-1, 1} <= set(sides):
        return "better in part and worse in part"
    return "better in part" if 1 in sides else "worse in part"


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
