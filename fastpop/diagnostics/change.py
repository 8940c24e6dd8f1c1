"""How much of what changed between two models is popularity."""

from typing import Any

import numpy as np

from fastpop import checks
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.stats import popularity_direction

# Mean scores of equal models differ by rounding, 1e-16 of what they were summed from.
DUST = 1e-10


def change_along(before: ScoreMoments, after: ScoreMoments, log_prior: Any) -> float:
    """numpy: d = after.mean_score() - before.mean_score(); (d @ b)**2 / (d @ d)

    with b the unit vector along centred log_prior: cos² of the angle between the change of the mean
    score and log p, the share of the squared change that is popularity. 1 when a multiple of log p
    was added or taken away and nothing else; 1 / (V - 1) on average for a change that has nothing to
    do with log p. A reduction of the energy along log p says little where this is small: then the
    scores changed as a whole.

    Args:
        before, after: over the same V items, each mean over its own contexts and weights.
        log_prior: [V] nats.
    Returns:
        in [0, 1]; NaN where the mean score did not change: by less than 1e-10 of its terms.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got; a uniform log_prior has
            no direction.
    Cost: O(V D).
    """
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    for name, moments in (("before", before), ("after", after)):
        if not isinstance(moments, ScoreMoments):
            raise checks.wrong_type(name, "a ScoreMoments", moments)
        if moments.num_items != len(log_prior_V):
            raise checks.wrong(
                name, f"{len(log_prior_V)} items, as log_prior", text=f"{moments.num_items} items"
            )
    b_V, _ = popularity_direction(log_prior_V)
    before_V, after_V = before.mean_score(), after.mean_score()
    change_V = after_V - before_V
    square = float(np.square(change_V).sum())
    terms = np.linalg.norm(before_V) + np.linalg.norm(after_V)
    if square <= (DUST * terms) ** 2:
        return float("nan")
    return min(1.0, float(b_V @ change_V) ** 2 / square)
