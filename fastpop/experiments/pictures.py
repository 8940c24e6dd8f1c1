"""What the pictures of a report show of the first seed, as plain data."""

from typing import Any

import numpy as np

from fastpop.experiments.arms import POST_HOC
from fastpop.experiments.one_arm import K, Reading

SCATTER_POINTS = 4000
TENTHS = 10


def pictures(
    readings: dict[str, Reading], log_prior_V: np.ndarray, counts_V: np.ndarray, tests: dict[str, Any]
) -> dict[str, Any]:
    """scatter: mean score against log p. nulls: the paired test of frozen. exposure: slots by popularity."""
    shown = np.arange(len(log_prior_V))
    if len(shown) > SCATTER_POINTS:
        # Every popularity is shown: items evenly spaced in the order of log p.
        order = np.argsort(log_prior_V, kind="stable")
        shown = order[np.linspace(0, len(order) - 1, SCATTER_POINTS).astype(int)]
    scatter = []
    for reading in readings.values():
        for family in reading.served:
            mean_V = family.moments.mean_score()
            served = {}
            if family.term_V is not None:
                score = family.at(1.0)
                served = {
                    "served_score": score.mean_score()[shown].tolist(),
                    "served_slope": score.energy(log_prior_V).slope_mean,
                }
            scatter.append(
                {
                    "arm": family.arm,
                    "log_prior": log_prior_V[shown].tolist(),
                    "mean_score": mean_V[shown].tolist(),
                    "slope": next(iter(tests.values())).energy[family.arm].slope_mean,
                    "num_items": len(log_prior_V),
                    **served,
                }
            )
    nulls = [
        {
            "arm": f"standard - {second}",
            "statistic": "energy_shared",
            "observed": pair.shared.observed,
            "samples": pair.shared.null_P.tolist(),
            "p_value": pair.shared.p_value,
            "kind": null,
        }
        for null, audits in tests.items()
        for (_, second), pair in audits.pairs.items()
        if second == "frozen"
    ]
    exposure = []
    tenth_V = _tenths(counts_V)
    for reading in readings.values():
        for (arm, beta), found in reading.evaluations.items():
            if beta == 1 or (beta == 0 and arm in (POST_HOC, "frozen")):
                slots = np.bincount(tenth_V, found.exposure[K], TENTHS)
                exposure.append(
                    {"arm": arm, "popularity_weight": beta, "share": (slots / slots.sum()).tolist(), "k": K}
                )
    return {"scatter": scatter, "nulls": nulls, "exposure": exposure}


def _tenths(counts_V: np.ndarray) -> np.ndarray:
    """Which tenth of the events an item belongs to, items from the most popular to the least."""
    order = np.argsort(-counts_V, kind="stable")
    before = np.cumsum(counts_V[order]) - counts_V[order]
    tenth_V = np.empty(len(counts_V), dtype=np.int64)
    tenth_V[order] = np.minimum(TENTHS * before / counts_V.sum(), TENTHS - 1).astype(np.int64)
    return tenth_V
