"""Weights 1/p of training events, so that what is trained on counts as if all had been shown alike."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks
from fastpop.propensity.models import check_propensity

if TYPE_CHECKING:
    from fastpop.data import Interactions


def inverse_weights(propensity: Any, *, clip: float = 0.0) -> np.ndarray:
    """1/p over its mean, float64 [N]: of mean 1, so that learning rates keep their meaning.

    propensity: [N] in (0, 1] of the events. clip: those below it are raised to it.
    Raises: ValueError, TypeError.
    """
    propensity_N = checks.float_array("propensity", propensity, 1)
    inverse_N = 1 / check_propensity("propensity", propensity_N, len(propensity_N), clip)
    return inverse_N / inverse_N.mean() if len(inverse_N) else inverse_N


def weighted(log: "Interactions", propensity: Any, *, clip: float = 0.0) -> "Interactions":
    """The log with its events' weights times 1/p: losses and counts, so also log p, are of these weights.

    propensity: [N] of the events, in the order of log.item (for one an item, propensity_V[log.item]).
    clip: as in `inverse_weights`.
    Raises: ValueError, TypeError.
    """
    propensity_N = checks.float_array("propensity", propensity, 1)
    checks.shape("propensity", propensity_N, (log.num_events,))
    inverse_N = inverse_weights(propensity_N, clip=clip)
    own_N = 1.0 if log.weight is None else log.weight
    return replace(log, weight=inverse_N * own_N, facts={**log.facts, "propensity_clip": float(clip)})
