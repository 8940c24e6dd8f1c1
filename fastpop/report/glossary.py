"""What each number means, in one line; keys as in `fastpop.report.schema`.

Metrics and diagnostics say it themselves (`fastpop.evaluation.Metric`), whoever registered them.
"""

import math
from typing import Any

from fastpop import registry

TERMS = {
    "energy_total": (
        "Total energy",
        "Mean squared length of a context's scores after centring over items, "
        "nats². Everything the scores say about items.",
    ),
    "energy_direction": (
        "Popularity energy",
        "The part of the total that lies along log p, nats². Shared plus heterogeneous.",
    ),
    "energy_shared": (
        "Context-shared energy",
        "The part along log p that is the same for every context, nats²: popularity sitting in the scores.",
    ),
    "energy_heterogeneous": (
        "Heterogeneous energy",
        "The part along log p that differs between contexts, nats²: "
        "how much some users follow popularity more than others.",
    ),
    "energy_off_direction": (
        "Energy off log p",
        "Total minus popularity energy, nats²: what the scores say that log p has "
        "no part in. A model that loses energy along log p and as much off it has only shrunk.",
    ),
    "fraction_direction": ("Popularity share", "Popularity energy / total energy."),
    "fraction_shared": ("Shared share", "Context-shared energy / total energy."),
    "chance_level": (
        "Chance level",
        "1/(V-1): the popularity share of a direction that has nothing to do with the scores, on average.",
    ),
    "slope_no_unit": (
        "Slope",
        "Mean slope of the scores on log p, in the scores' own unit: only logits have one of "
        "which 1 and 0 mean something.",
    ),
    "correlation": (
        "Correlation",
        "Of an item's mean score with log p, over items, -1 to 1. Has no unit, so it can "
        "be read for any scores.",
    ),
    "slope": (
        "Slope",
        "Mean slope of the scores on log p. 1: the scores contain log p once; "
        "0: popularity is outside the scores.",
    ),
    "slope_std": ("Slope spread", "Standard deviation of that slope over contexts."),
    "amplitude": (
        "Amplitude",
        "|slope| of the arm / |slope| of standard. The ratio of energies is its "
        "square, which makes small changes look large.",
    ),
    "cos2_change": (
        "cos² of the change",
        "How much of what changed in the mean score, from standard to this arm, lies "
        "along log p: 1 all of it, 0 none.",
    ),
    "epoch": ("Epochs", "The epoch that the arm was read at."),
    "reduction_shared": (
        "Reduction",
        "1 - context-shared energy / that of standard. Describes; is not a test: "
        "chance alone can come near 1.",
    ),
    "p_value_direction": (
        "p (direction)",
        "Share of permutations of log p over items whose popularity energy is at "
        "least the observed one, (1 + count)/(draws + 1). Never 0: at its floor, 1/(draws + 1), no draw "
        "came up to the data.",
    ),
    "p_value_shared": ("p (shared)", "The same for the context-shared energy."),
    "p_value_sign_direction": (
        "p (direction, signs)",
        "The same with random signs of centred log p instead of permuted "
        "labels: it keeps the sizes item by item, so norms tied to popularity do not fool it.",
    ),
    "p_value_sign_shared": ("p (shared, signs)", "The same for the context-shared energy."),
    "energy_shared_b": (
        "Shared energy, other half",
        "Context-shared energy along log p of events that no arm trained on.",
    ),
    "slope_b": ("Slope, other half", "Slope on log p of events that no arm trained on."),
    "auc_shown": (
        "AUC, shown items",
        "Chance that a liked item scores above one that was not, among items "
        "shown at random, over all cases together; ties by halves.",
    ),
    "ndcg_shown": ("NDCG, shown items", "NDCG where only the items that were shown at random are ranked."),
    "r1_items": (
        "R1, items",
        "Share of the variance of the item table, centred, along its first principal axis.",
    ),
    "r1_scores": ("R1, scores", "The same of the scores, centred over items: 1 is one ranking for all."),
    "effective_rank_items": (
        "Effective rank, items",
        "exp(entropy) of the variance shares of the item table's principal axes.",
    ),
    "effective_rank_scores": ("Effective rank, scores", "The same of the scores."),
    "cosine_items": (
        "Cosine, items",
        "Mean cosine between two items, centred: 0 without a common direction.",
    ),
    "pc1_items": ("PC1, items", "|correlation| of the items' first principal component with log p."),
}


def term(key: str) -> tuple[str, str]:
    """(name, definition) of a key such as "ndcg@10", or "isotropy, scores", one of several numbers of a
    diagnostic; ("", "") where none is known."""
    whole, _, k = key.partition("@")
    stem, comma, which = whole.partition(", ")
    part = _part(stem)
    name, text = TERMS.get(stem, ("", "")) if part is None else (part.label or stem, part.definition)
    name = f"{name}{comma}{which}" if name else name
    return (f"{name}@{k}" if k and name else name), text


def bounds(key: str) -> tuple[float, float]:
    """What a number can be: as its metric or diagnostic says; shares 0..1, cosines -1..1, others anything."""
    stem = key.partition("@")[0].partition(", ")[0]
    part = _part(stem)
    if part is not None:
        return part.bounds
    if stem == "cosine_items":
        return -1.0, 1.0
    if stem.startswith(("energy", "effective_rank")) or stem in ("amplitude", "epoch"):
        return 0.0, math.inf
    if stem.startswith(("fraction", "p_value", "r1_", "pc1_")) or stem in (
        "auc_shown",
        "ndcg_shown",
        "cos2_change",
        "chance_level",
    ):
        return 0.0, 1.0
    return -math.inf, math.inf


def _part(stem: str) -> Any:
    """The registered metric or diagnostic of that name, None for other numbers of experiments and audits."""
    if stem in TERMS:
        return None
    return registry.all_of("metric").get(stem) or registry.all_of("diagnostic").get(stem)
