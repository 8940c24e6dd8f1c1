"""Energies of a score matrix: in the Gram form, for one that factorises, and tile by tile, for any."""

from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from measuring import DEVICE, judged, zipf_counts
from shapes import ENERGY, Energy

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS
from fastpop.popularity import PopularityPrior

CONTEXTS = 200  # of the check against float64


@lru_cache(maxsize=1)
def arrays_of(shape: Energy):
    """query [C, D] and items [V, D] float32, log p [V] float64."""
    generator = torch.Generator().manual_seed(0)
    query, items = (
        torch.randn(rows, shape.dim, generator=generator).to(DEVICE) for rows in (shape.contexts, shape.items)
    )
    return query, items, PopularityPrior.from_counts(zipf_counts(shape.items)).log_prior_V


def definition(query, items, log_prior, rows=CONTEXTS):
    """(total, direction) by the definition in float64, a block of contexts at a time."""
    query, items = query.double().cpu().numpy(), items.double().cpu().numpy()
    label = log_prior - log_prior.mean()
    label = label / np.linalg.norm(label)
    total = direction = 0.0
    for first in range(0, len(query), rows):
        score = query[first : first + rows] @ items.T
        score -= score.mean(1, keepdims=True)
        total += np.square(score).sum()
        direction += np.square(score @ label).sum()
    return total / len(query), direction / len(query)


def chunked(query, items, log_prior, *, rows):
    """float32, each score read three times and never centred: sums first, then the algebra."""
    label = torch.from_numpy(log_prior - log_prior.mean())
    label = (label / label.norm()).float().to(DEVICE)
    total = direction = 0.0
    for first in range(0, len(query), rows):
        score = query[first : first + rows] @ items.T
        squares, sums = torch.linalg.vector_norm(score, dim=1).double().square(), score.sum(1).double()
        total += (squares - sums.square() / len(items)).sum().item()
        direction += (score @ label).double().square().sum().item()
    return total / len(query), direction / len(query)


def ours(query, items, log_prior, *, form, impl, soft_cap=None):
    found = ops.score_energy(query, items, log_prior, form=form, impl=impl, soft_cap=soft_cap)
    return found.total, found.direction


def tiles(query, items, log_prior):
    found = ops.streamed_score_energy(
        lambda context, item: query[context] @ items[item].T, len(query), log_prior
    )
    return found.total, found.direction


CONTENDERS = {
    **{
        f"fastpop {impl}, Gram form": partial(ours, form="gram", impl=impl)
        for impl in IMPLEMENTATIONS["score_energy"]
    },
    **{
        f"fastpop {impl}, every score": partial(ours, form="streamed", impl=impl)
        for impl in ("cpu", "triton")
    },
    "fastpop, tiles of a callback": tiles,
    **{f"torch eager, {rows} rows at a time": partial(chunked, rows=rows) for rows in (64, 256, 1024)},
    "numpy float64, by the definition": definition,
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", ENERGY, ids=str)
def test_score_energy(shape, contender, measure):
    query, items, log_prior = arrays_of(shape)
    function = CONTENDERS[contender]
    few = query[:CONTEXTS], items, log_prior
    with judged(contender):
        error = float(np.abs(np.divide(function(*few), definition(*few)) - 1).max())
        assert error < 1e-4, error
    facts = (
        {}
        if "Gram" in contender
        else {"work": 2 * shape.contexts * shape.items * shape.dim, "ceiling": "gemm_float32"}
    )
    measure(
        contender,
        shape,
        lambda: function(query, items, log_prior),
        error=error,
        light=lambda: function(query[:2048], items, log_prior),
        **facts,
    )
