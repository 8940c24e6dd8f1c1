"""Whether log p has a direction at all, and what it gets by chance."""

import numpy as np

from fastpop.popularity.prior import PopularityPrior
from fastpop.stats import popularity_direction

LEAST_SPREAD = 0.05  # nats, root mean square over items


def weak_direction(prior: PopularityPrior, items: np.ndarray | None = None) -> str | None:
    """Why the direction of log p over `items` (all where None) is noise, in a sentence; None where it
    is not.

    Rules: a fitted alpha at an end of its range (`PopularityPrior.at_bound`; the lower one only where
    there are unseen items, whose log p then hangs on it), or log p that differs between items by less
    than 0.05 nats in root mean square, ||H log p|| / sqrt(V). No test and no share along such a
    direction means anything, whatever its p-value is.
    """
    counts_V = prior.counts_V if items is None else prior.counts_V[items]
    log_p_V = prior.log_prior_V if items is None else prior.log_prior_V[items]
    if prior.at_bound == "upper":
        return (
            "log p has no direction here: its alpha ran to the largest that is tried, since the "
            "counts differ by no more than chance would make them"
        )
    unseen = int((counts_V < max(prior.min_count, 1)).sum())
    if prior.at_bound == "lower" and unseen:
        return (
            f"log p has no direction of its own here: its alpha ran to the least that is tried, as "
            f"no item was seen just once, and where the {unseen:,} unseen items stand hangs on it"
        )
    spread = float(log_p_V.std())
    if spread < LEAST_SPREAD:
        return (
            f"log p has no direction here: it differs between items by {spread:.2g} nats (root mean "
            f"square), less than {LEAST_SPREAD}"
        )
    return None


def chance_under_p(prior_V: np.ndarray, log_prior_V: np.ndarray) -> float:
    """Mean E_dir / mean E_tot, both centred under p, over all relabellings of the items' scores.

    With b centred log p over its norm, B its sum: ||b - B p||² / (V - 2 + V Σ p²); 1/(V - 1) for the
    uniform centring. Where a few items hold most events it is far above that: the scores of those few
    are then taken from all others', which alike log p sets apart.
    """
    b_V, _ = popularity_direction(log_prior_V, prior_V)
    num_items = len(b_V)
    along = float(np.square(b_V - b_V.sum() * prior_V).sum())
    return along / (num_items - 2 + num_items * float(prior_V @ prior_V))
