"""From the rows of a comparison to means over seeds and paired differences."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpop.evaluation import mean_interval, paired_over_seeds
from fastpop.experiments.arms import STANDARD
from fastpop.report.glossary import bounds

# An interval from two seeds is t(1) = 12.7 standard errors wide: their range says more.
MIN_SEEDS = 3
JUDGED = (
    "nll",
    "recall@10",
    "ndcg@10",
    "recall_head@10",
    "recall_mid@10",
    "recall_tail@10",
    "coverage@10",
    "gini@10",
    "arp@10",
    "auc_shown",
    "ndcg_shown@5",
)
ENERGIES = ("energy_total", "energy_direction", "energy_off_direction", "energy_shared", "energy_shared_b")


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per (arm, epochs, popularity weight): mean over seeds with a 95 % t interval.

    p-values are not averaged: `mean` is their median, `low` and `high` their range over seeds.
    """
    groups: dict[tuple[str, str, float | None], list[dict[str, float]]] = {}
    for row in rows:
        key = row["arm"], row["epochs"], row["popularity_weight"]
        groups.setdefault(key, []).append(row["values"])
    return [
        {
            "arm": arm,
            "epochs": epochs,
            "popularity_weight": weight,
            "values": {
                name: interval(name, [values[name] for values in group if name in values])
                for name in dict.fromkeys(name for values in group for name in values)
            },
        }
        for (arm, epochs, weight), group in groups.items()
    ]


def interval(name: str, values: list[float]) -> dict[str, Any]:
    """mean, low, high, n of one number; from fewer than three seeds the range of the seeds instead of low
    and high, as least and most. No interval leaves what the number can be."""
    if name.startswith("p_value"):
        return {"mean": float(np.median(values)), "low": min(values), "high": max(values), "n": len(values)}
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"mean": math.nan, "low": None, "high": None, "n": 0}
    mean, low, high = mean_interval(known)
    found: dict[str, Any] = {"mean": mean, "low": None, "high": None, "n": len(known)}
    if len(known) >= MIN_SEEDS:
        least, most = bounds(name)
        low, high = max(low, least), min(high, most)
        found |= {"low": low, "high": high}
    elif len(known) > 1:
        found |= {"least": min(known), "most": max(known)}
    return found


def paired_differences(
    rows: list[dict[str, Any]], arms: list[str], learned: Sequence[str] = (), served: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """arm - standard over the same seeds, at both readings: energies of the learned part, and what users
    see with both served as trained (beta 1).

    learned, served: further numbers of either.
    """
    found = []
    views = ((None, dict.fromkeys((*ENERGIES, *learned))), (1.0, dict.fromkeys((*JUDGED, *served))))
    wanted: list[tuple[str, float | None, str]] = [
        (arm, weight, metric) for weight, metrics in views for arm in arms for metric in metrics
    ]
    for epochs in dict.fromkeys(row["epochs"] for row in rows):
        for arm, weight, metric in wanted:
            if arm == STANDARD:
                continue
            pair = paired(rows, (arm, weight), (STANDARD, weight), metric, epochs)
            if pair is not None:
                found.append(
                    {
                        "arm": arm,
                        "baseline": STANDARD,
                        "epochs": epochs,
                        "popularity_weight": weight,
                        "metric": metric,
                        "unit": "seeds",
                        **pair,
                    }
                )
    return found


def paired(
    rows: list[dict[str, Any]],
    one: tuple[str, float | None],
    other: tuple[str, float | None],
    metric: str,
    epochs: str,
) -> dict[str, Any] | None:
    """Mean of one - other over the seeds that both have, with its t interval from three seeds on."""
    first, second = (by_seed(rows, arm, weight, metric, epochs) for arm, weight in (one, other))
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return None
    pair = paired_over_seeds([first[s] for s in seeds], [second[s] for s in seeds], metric)
    known = len(seeds) >= MIN_SEEDS
    return {
        "mean": pair.difference,
        "low": pair.low if known else None,
        "high": pair.high if known else None,
        "n": len(seeds),
    }


def by_seed(
    rows: list[dict[str, Any]], arm: str, weight: float | None, metric: str, epochs: str
) -> dict[int, float]:
    return {
        row["seed"]: row["values"][metric]
        for row in rows
        if (row["arm"], row["popularity_weight"], row["epochs"]) == (arm, weight, epochs)
        and not math.isnan(row["values"].get(metric, math.nan))
    }
