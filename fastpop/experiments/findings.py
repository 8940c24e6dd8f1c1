"""From the rows of a comparison to means over seeds, paired differences and plain words."""

import math
from typing import Any

import numpy as np

from fastpop.evaluation import mean_interval, paired_over_seeds

JUDGED = ("nll", "hr@10", "ndcg@10", "recall_head@10", "recall_mid@10", "recall_tail@10",
          "coverage@10", "gini@10", "arp@10")
POST_HOC = "post-hoc"
FOLLOWS = 0.2  # slope on log p below which a standard model has hardly learned popularity


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per (arm, popularity weight): mean over seeds with a 95 % t interval.

    p-values are not averaged: `mean` is their median, `low` and `high` their range over seeds.
    """
    groups: dict[tuple[str, float | None], list[dict[str, float]]] = {}
    for row in rows:
        groups.setdefault((row["arm"], row["popularity_weight"]), []).append(row["values"])
    return [
        {"arm": arm, "popularity_weight": weight,
         "values": {name: _interval(name, [values[name] for values in group if name in values])
                    for name in group[0]}}
        for (arm, weight), group in groups.items()
    ]


def _interval(name: str, values: list[float]) -> dict[str, Any]:
    if name.startswith("p_value"):
        return {"mean": float(np.median(values)), "low": min(values), "high": max(values),
                "n": len(values)}
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"mean": math.nan, "low": None, "high": None, "n": 0}
    mean, low, high = mean_interval(known)
    one = len(known) == 1
    return {"mean": mean, "low": None if one else low, "high": None if one else high,
            "n": len(known)}


def paired_differences(
    rows: list[dict[str, Any]], arms: list[str], weights: tuple[float, ...]
) -> list[dict[str, Any]]:
    """arm - standard over the same seeds: energies of s, and what users see at equal knobs.

    At knob 0 standard is post-hoc subtraction, at knob 1 the model as trained.
    """
    others = [arm for arm in arms if arm != "standard"]
    wanted: list[tuple[str, float | None, str]] = [
        (arm, None, metric) for arm in (*others, POST_HOC)
              for metric in ("energy_shared", "energy_direction", "energy_total")
    ]
    wanted += [(arm, weight, metric) for arm in others for weight in weights for metric in JUDGED]
    found = []
    for arm, weight, metric in wanted:
        first, second = (_by_seed(rows, name, weight, metric) for name in (arm, "standard"))
        seeds = [seed for seed in first if seed in second]
        if not seeds:
            continue
        pair = paired_over_seeds([first[s] for s in seeds], [second[s] for s in seeds], metric)
        one = len(seeds) == 1
        found.append({
            "arm": arm, "baseline": "standard", "popularity_weight": weight, "metric": metric,
            "mean": pair.difference, "low": None if one else pair.low,
            "high": None if one else pair.high, "n": len(seeds), "unit": "seeds",
        })
    return found


def _by_seed(rows, arm: str, weight: float | None, metric: str) -> dict[int, float]:
    return {
        row["seed"]: row["values"][metric] for row in rows
        if row["arm"] == arm and row["popularity_weight"] == weight and metric in row["values"]
        and not math.isnan(row["values"][metric])
    }


def sentences(
    rows: list[dict[str, Any]], summary: list[dict[str, Any]], differences: list[dict[str, Any]],
    pairs: list[dict[str, Any]], arms: list[str], priors: dict[str, Any], num_seeds: int,
) -> list[str]:
    """What the numbers say, the headline first. Nothing is left out for being unwelcome."""
    mean = {(row["arm"], row["popularity_weight"]): {k: v["mean"] for k, v in row["values"].items()}
            for row in summary}
    standard, post_hoc = mean["standard", None], mean[POST_HOC, None]
    over = f"mean over {num_seeds} seeds" if num_seeds > 1 else "one seed"
    said = []
    if "frozen" in arms:
        frozen = mean["frozen", None]
        caution = ""
        if abs(standard["mean_slope"]) < FOLLOWS:
            caution = (
                f"CAUTION: the standard model hardly follows log p (slope "
                f"{standard['mean_slope']:.3f}, where 1 is expected): it is perhaps not trained "
                f"enough, and what follows says little. "
            )
        said.append(
            caution + f"Training with log p outside the dot product takes the context-shared popularity "
            f"energy of the learned scores from {standard['energy_shared']:.4g} to "
            f"{frozen['energy_shared']:.4g} nats squared, {_change(standard, frozen)} ({over}). "
            f"Subtracting log p from the standard model afterwards, without retraining, takes it "
            f"to {post_hoc['energy_shared']:.4g}, {_change(standard, post_hoc)}."
        )
        said.append(_post_hoc_words(rows, frozen, post_hoc))
        said.append(
            f"Slope of the learned scores on log p (1: log p is in them once, 0: not at all): "
            f"standard {standard['mean_slope']:.3f}, frozen {frozen['mean_slope']:.3f}, post-hoc "
            f"{post_hoc['mean_slope']:.3f}. All energy along log p, shared or not: standard "
            f"{standard['energy_direction']:.4g}, frozen {frozen['energy_direction']:.4g}."
        )
        said.append(_test_words(pairs, "frozen"))
        said.append(
            f"Along log p of the half that no model saw, the shared energy goes from "
            f"{standard['energy_shared_b']:.4g} to {frozen['energy_shared_b']:.4g}"
            + (f" (disjoint: {mean['disjoint', None]['energy_shared_b']:.4g})."
               if "disjoint" in arms else ".")
        )
    else:
        said.append(f"Context-shared popularity energy of the standard model's scores: "
                    f"{standard['energy_shared']:.4g}; after subtracting log p "
                    f"{post_hoc['energy_shared']:.4g} ({over}).")
    if "permuted" in arms:
        said.append(
            f"Control: with log p of randomly relabelled items outside the dot product the shared "
            f"energy is {mean['permuted', None]['energy_shared']:.4g} (standard "
            f"{standard['energy_shared']:.4g})."
        )
    if "learned" in arms:
        said.append(
            f"A free item bias instead of log p leaves {mean['learned', None]['energy_shared']:.4g} "
            f"in the dot product (slope {mean['learned', None]['mean_slope']:.3f})."
        )
    if "frozen" in arms and "ndcg@10" in mean.get(("frozen", 1.0), {}):
        said.append(_cost_words(differences, 1.0, "served with popularity (beta 1)",
                                "the standard model as trained"))
        said.append(_cost_words(differences, 0.0, "served without popularity (beta 0)",
                                "post-hoc subtraction"))
    unseen = int((priors["A"].counts_V == 0).sum())
    said.append(
        f"log p is known from counts: {unseen / priors['A'].num_items:.0%} of the items have no "
        f"event in half A. Exposure was not randomised: no causal reading is meant."
    )
    return said


def _change(before: dict[str, float], after: dict[str, float]) -> str:
    if before["energy_shared"] == 0:
        return "from nothing"
    ratio = after["energy_shared"] / before["energy_shared"]
    if ratio <= 1:
        return f"{1 - ratio:.1%} less"
    return f"{ratio - 1:.1%} MORE" if ratio < 11 else f"{ratio:.3g} times AS MUCH"


def _post_hoc_words(rows, frozen: dict[str, float], post_hoc: dict[str, float]) -> str:
    """Shared energy left by separation and by subtraction, compared over seeds."""
    first, second = (_by_seed(rows, arm, None, "energy_shared") for arm in ("frozen", POST_HOC))
    pair = paired_over_seeds([first[s] for s in first], [second[s] for s in first], "energy_shared")
    numbers = (f"{post_hoc['energy_shared']:.4g} is left by subtraction, "
               f"{frozen['energy_shared']:.4g} by separation")
    if post_hoc["energy_shared"] <= frozen["energy_shared"]:
        return f"Post-hoc subtraction does as well as separation here, or better: {numbers}."
    if not pair.high < 0:
        return (f"Post-hoc subtraction and separation cannot be told apart at this number of "
                f"seeds: {numbers}.")
    return f"Separation leaves less than post-hoc subtraction: {numbers}."


def _test_words(pairs: list[dict[str, Any]], arm: str) -> str:
    worst = {null: max(pair["p_shared"] for pair in pairs
                       if pair["arm"] == arm and pair["null"] == null)
             for null in ("label", "sign")}
    text = (f"Paired permutation tests of E_shared(standard) - E_shared({arm}), the largest p over "
            f"seeds: {worst['label']:.4g} for log p shuffled over items, {worst['sign']:.4g} for "
            "random signs")
    if max(worst.values()) <= 0.05:
        return text + ": the difference is specific to popularity."
    if worst["label"] <= 0.05:
        return text + (": only the first is small, so the difference may come from item norms "
                       "that go with popularity.")
    return text + ": no difference beyond chance is shown."


def _cost_words(differences, weight: float, how: str, against: str) -> str:
    found = {d["metric"]: d for d in differences
             if d["arm"] == "frozen" and d["popularity_weight"] == weight}
    parts = []
    for metric, label, digits in (("nll", "NLL", 3), ("ndcg@10", "NDCG@10", 4),
                                  ("recall_tail@10", "tail recall@10", 4),
                                  ("coverage@10", "coverage@10", 3)):
        if metric in found:
            d = found[metric]
            text = f"{label} {d['mean']:+.{digits}f}"
            if d["low"] is not None:
                text += f" [{d['low']:+.{digits}f}, {d['high']:+.{digits}f}]"
            parts.append(text)
    return f"Frozen {how}, against {against}: " + ", ".join(parts) + "."
