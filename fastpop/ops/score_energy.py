"""How much of a score matrix lies along log popularity, without forming the matrix."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.kernels.score_energy.reference import (
    GramStream,
    ScoreEnergy,
    gram_energies,
    tile_energies,
)

__all__ = ["GramStream", "ScoreEnergy", "score_energy", "streamed_score_energy"]


def weights(argument: str, value: Any, num_contexts: int) -> np.ndarray:
    """Context weights [C]: finite, >= 0, not all zero; ones for None."""
    if value is None:
        return np.ones(num_contexts)
    weight_C = checks.float_array(argument, value, 1)
    checks.shape(argument, weight_C, (num_contexts,))
    if (weight_C < 0).any():
        at = int(np.argmax(weight_C < 0))
        raise checks.wrong(argument, "weights >= 0", f"={weight_C[at]:g} at position {at}")
    if num_contexts and weight_C.sum() == 0:
        raise checks.wrong(argument, "at least one weight > 0", "=all zero")
    return weight_C


def score_energy(
    query: Any, items: Any, log_prior: Any, *, bias: Any = None, scale: float = 1.0,
    context_weight: Any = None, centring: str = "uniform",
) -> ScoreEnergy:
    """numpy: S = scale * query @ items.T + bias; S -= S.mean(1, keepdims=True)
              t = S @ b; total, direction, shared = w @ (S**2).sum(1), w @ t**2, (w @ t)**2

    with b the unit vector along centred log_prior and w the weights over their sum.

    Args:
        query: [C, D] real, numpy or torch; read in chunks, reduced in float64.
        items: [V, D] real. bias: [V] real or None, nats.
        log_prior: [V] real, nats; a constant added to it changes nothing.
        scale: multiplies the dot product only.
        context_weight: [C] >= 0, None for uniform.
        centring: "uniform" (scores minus their mean over items) or "prior" (minus their mean
            under the prior; log_prior must then be the log of a law).
    Returns:
        ScoreEnergy, float64.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got; a uniform prior has
            no direction and raises.
    Cost: O((C + V) D²), O(D²) memory beyond the inputs and a float64 item table.
    Source: arXiv:2606.21275.
    """
    item_VD = checks.float_array("items", items, 2)
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    checks.shape("log_prior", log_prior_V, (len(item_VD),))
    bias_V = None if bias is None else checks.float_array("bias", bias, 1)
    if bias_V is not None:
        checks.shape("bias", bias_V, (len(item_VD),))
    checks.number("scale", scale)
    checks.one_of("centring", centring, ("uniform", "prior"))
    checks.shape("query", query, ("C", item_VD.shape[1]))
    if len(query) == 0:
        raise checks.wrong("query", "at least one context", query)
    weight_C = weights("context_weight", context_weight, len(query))
    stream = GramStream(item_VD.shape[1]).add(query, weight_C)
    if not np.isfinite(stream.scatter_DD).all():
        raise checks.wrong("query", "finite numbers", "=nan or inf")
    centring_V = None
    if centring == "prior":
        centring_V = np.exp(log_prior_V - log_prior_V.max())
        centring_V /= centring_V.sum()
    return gram_energies(
        stream.mean_D, stream.covariance, item_VD, bias_V, float(scale), log_prior_V, centring_V
    )


def streamed_score_energy(
    score_tile: Callable[[slice, slice], Any], num_contexts: int, log_prior: Any, *,
    context_weight: Any = None, rows: int = 256, columns: int = 8192,
) -> ScoreEnergy:
    """score_energy of scores that do not factorise (cosine, capped, MLP), a tile at a time.

    Args:
        score_tile: called with (contexts, items), two slices; returns their scores, numpy or
            torch [rows, columns]. Called once for every tile, contexts outer.
        num_contexts: C. log_prior: [V], nats. context_weight: [C] >= 0, None for uniform.
        rows, columns: the tile; only one is alive at a time.
    Returns:
        ScoreEnergy, float64, uniform centring.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got.
    Cost: one evaluation of every score; O(rows * columns + C) memory.
    """
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    checks.number("num_contexts", num_contexts, least=1, integer=True)
    checks.number("rows", rows, least=1, integer=True)
    checks.number("columns", columns, least=1, integer=True)
    weight_C = weights("context_weight", context_weight, num_contexts)

    def checked_tile(context: slice, item: slice) -> Any:
        tile = score_tile(context, item)
        checks.shape("score_tile(...)", tile, (context.stop - context.start,
                                               item.stop - item.start))
        return tile

    energy = tile_energies(checked_tile, num_contexts, log_prior_V, weight_C, rows, columns)
    if not np.isfinite(energy.total):
        raise checks.wrong("score_tile(...)", "finite scores", "=nan or inf")
    return energy
