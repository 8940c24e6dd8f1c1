"""Accuracy at matched popularity of what is shown.

Every family of scores is a curve over beta: what it shows is more or less popular (ARP), and more or less
accurate. Energies cannot rank ways of removing popularity, since a subtraction that is fitted leaves none;
what can is accuracy where two curves show equally popular items.
"""

from typing import Any

import numpy as np

from fastpop.evaluation import paired_over_seeds
from fastpop.experiments.findings import MIN_SEEDS

POPULARITY = "arp@10"
JUDGED = ("ndcg@10", "recall_mid@10", "coverage@10")
LEVELS = (0.25, 0.5, 0.75)  # of the range of ARP that all curves of a pair reach


def matched(rows: list[dict[str, Any]], baseline: str, arms: list[str], epochs: str) -> list[dict[str, Any]]:
    """arm - baseline at three levels of ARP, per metric: mean over seeds, a t interval from three seeds on.

    Between two betas accuracy is taken to be linear in ARP: NDCG and recall are then what a share of the
    cases served at one beta and the others at the next one get; coverage is theirs at least. A pair of curves
    that do not overlap in every seed has no entry (a seed that is left out would be a choice), and neither
    has a metric that some seed has not (mid recall of a log without mid items).
    """
    found = []
    base = _curves(rows, baseline, epochs)
    seeds = list(dict.fromkeys(row["seed"] for row in rows if row["epochs"] == epochs))
    for arm in arms:
        mine = _curves(rows, arm, epochs)
        reach = _reach(mine, base, seeds)
        if reach is None:
            continue
        low, high = reach
        for share in LEVELS:
            level = low + share * (high - low)
            for metric in JUDGED:
                if not all(metric in curves[seed] for seed in seeds for curves in (mine, base)):
                    continue
                first, second = (
                    [
                        float(np.interp(level, curves[seed][POPULARITY], curves[seed][metric]))
                        for seed in seeds
                    ]
                    for curves in (mine, base)
                )
                pair = paired_over_seeds(first, second, metric)
                known = len(seeds) >= MIN_SEEDS
                found.append(
                    {
                        "arm": arm,
                        "baseline": baseline,
                        "epochs": epochs,
                        "metric": metric,
                        "arp": float(level),
                        "arm_mean": pair.mean_a,
                        "baseline_mean": pair.mean_b,
                        "mean": pair.difference,
                        "low": pair.low if known else None,
                        "high": pair.high if known else None,
                        "n": len(seeds),
                    }
                )
    return found


def mean_between(
    rows: list[dict[str, Any]], baseline: str, arm: str, epochs: str, metric: str = "ndcg@10"
) -> list[float] | None:
    """By seed, the area between the curve of an arm and that of a baseline over the range of ARP that both
    reach in every seed, divided by the range: how much more accurate the arm is there on average. None where
    there is no such range. Exact for curves that are linear between their points, as in `matched`."""
    mine, base = (_curves(rows, name, epochs) for name in (arm, baseline))
    seeds = list(dict.fromkeys(row["seed"] for row in rows if row["epochs"] == epochs))
    reach = _reach(mine, base, seeds)
    if reach is None or not all(metric in curves[seed] for seed in seeds for curves in (mine, base)):
        return None
    low, high = reach
    found = []
    for seed in seeds:
        knots = np.concatenate([mine[seed][POPULARITY], base[seed][POPULARITY], reach])
        at = np.unique(np.clip(knots, low, high))
        first, second = (
            np.interp(at, curves[seed][POPULARITY], curves[seed][metric]) for curves in (mine, base)
        )
        found.append(float(np.trapezoid(first - second, at)) / (high - low))
    return found


def _reach(
    mine: dict[int, dict[str, np.ndarray]], base: dict[int, dict[str, np.ndarray]], seeds: list[int]
) -> tuple[float, float] | None:
    """The range of ARP that both curves cover in every seed."""
    if not all(seed in mine and seed in base for seed in seeds):
        return None
    reach = [curve[POPULARITY] for seed in seeds for curve in (mine[seed], base[seed])]
    low, high = float(max(x[0] for x in reach)), float(min(x[-1] for x in reach))
    return (low, high) if low < high else None


def _curves(rows: list[dict[str, Any]], arm: str, epochs: str) -> dict[int, dict[str, np.ndarray]]:
    """seed -> metric -> values, by rising ARP: betas that show no more popular items than a smaller beta
    did are left out."""
    points: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["arm"] == arm and row["epochs"] == epochs and POPULARITY in row["values"]:
            points.setdefault(row["seed"], []).append(row)
    curves = {}
    for seed, mine in points.items():
        mine.sort(key=lambda row: row["popularity_weight"])
        arp = np.array([row["values"][POPULARITY] for row in mine])
        rising = np.concatenate([[True], arp[1:] > np.maximum.accumulate(arp)[:-1]])
        if rising.sum() < 2:
            continue
        curves[seed] = {
            metric: np.array([row["values"][metric] for row in mine])[rising]
            for metric in JUDGED
            if all(metric in row["values"] for row in mine)
        }
        curves[seed][POPULARITY] = arp[rising]
    return curves
