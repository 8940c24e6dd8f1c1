"""log p as one more dimension of two tables of vectors."""

from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from fastpop import checks
from fastpop.popularity import PopularityPrior


@overload
def fold(
    query: np.ndarray,
    items: np.ndarray,
    prior: PopularityPrior | np.ndarray,
    weight: float = 1.0,
    *,
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def fold(
    query: Tensor,
    items: Tensor,
    prior: PopularityPrior | Tensor | np.ndarray,
    weight: float = 1.0,
    *,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]: ...
def fold(query: Any, items: Any, prior: Any, weight: float = 1.0, *, scale: float = 1.0) -> Any:
    """cat([query, weight], 1), cat([scale * items, log p], 1): their dot product is the served score.

    <query', items'[i]> = scale * <query, items[i]> + weight * log p(i), so that whatever takes dot products
    serves a model that was trained with log p outside: an index of nearest neighbours, a server, another
    trainer's validation. Another weight changes the queries alone, another log p one column of items.

    Args:
        query: [..., D] real numbers, numpy or torch.
        items: [V, D], likewise. A row that is no item (padding) is left out by the caller, who says
            items[1:], say: no vector keeps a row out at every weight.
        prior: a PopularityPrior, or [V] log p(i) in nats, finite.
        weight: β, how much of log p is served. scale: inverse temperature.
    Returns:
        ([..., D + 1], [V, D + 1]), torch tensors where query or items are, else numpy; float32, or float64
        where query or items are: in bfloat16 a rare item's log p is off by up to .06 nats. Gradients flow to
        query and items.
    Raises: TypeError or ValueError: the argument, what was expected, what came.
    Cost: a copy of both.
    """
    checks.score_weight("weight", weight)
    checks.number("scale", scale, gt=0)
    is_torch = isinstance(query, Tensor) or isinstance(items, Tensor)
    query, items = _tensor("query", query), _tensor("items", items)
    checks.shape("items", items, ("V", "D"))
    if query.ndim < 1 or query.shape[-1] != items.shape[1]:
        raise checks.wrong("query", f"[..., {items.shape[1]}], of the items' width", query)
    if isinstance(prior, PopularityPrior):
        prior = prior.log_prior_V
    log_prior_V = _tensor("prior", prior)
    checks.shape("prior", log_prior_V, (len(items),))
    bad = (~log_prior_V.isfinite()).nonzero()
    if len(bad):
        at = int(bad[0, 0])
        raise checks.wrong(
            "prior", "finite log p (leave out rows that are no items)", text=f"{log_prior_V[at]} at item {at}"
        )
    folded = with_column(query, float(weight), items, log_prior_V.detach(), scale)
    return folded if is_torch else tuple(one.numpy() for one in folded)


def with_column(
    query: Tensor, last: float, items: Tensor, column_V: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """cat([query, last], -1), cat([scale * items, column], 1), in float32 or wider."""
    dtype = torch.promote_types(torch.promote_types(query.dtype, items.dtype), torch.float32)
    column_V1 = column_V.to(items.device, dtype)[:, None]
    last_1 = torch.full((*query.shape[:-1], 1), last, dtype=dtype, device=query.device)
    return torch.cat([query.to(dtype), last_1], -1), torch.cat([items.to(dtype) * scale, column_V1], 1)


def _tensor(argument: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise checks.wrong_type(argument, "real numbers in floating point", value)
        return value
    array = checks.array_like(argument, value)
    if array.dtype.kind not in "fiu":
        raise checks.wrong_type(argument, "an array of real numbers", array)
    return torch.tensor(array, dtype=torch.float64 if array.dtype == "float64" else torch.float32)
