"""Energies of a factorised score matrix."""

import numpy as np
import pytest
from conftest import zipf_counts
from shapes import ENERGY

from fastpop import ops
from fastpop.popularity import PopularityPrior


def dense(query, items, log_prior, rows=1000):
    """The definition, a block of contexts at a time: total and direction energy."""
    label = log_prior - log_prior.mean()
    label = label / np.linalg.norm(label)
    total = direction = 0.0
    for first in range(0, len(query), rows):
        score = query[first : first + rows] @ items.T
        score -= score.mean(1, keepdims=True)
        total += np.square(score).sum()
        direction += np.square(score @ label).sum()
    return total / len(query), direction / len(query)


def gram(query, items, log_prior):
    found = ops.score_energy(query, items, log_prior)
    return found.total, found.direction


CONTENDERS = {"fastpop Gram form": gram, "numpy, chunked dense": dense}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", ENERGY, ids=str)
def test_score_energy(shape, contender, measure):
    contexts, items, dim = shape
    rng = np.random.default_rng(0)
    query, table = rng.normal(size=(contexts, dim)), rng.normal(size=(items, dim))
    log_prior = PopularityPrior.from_counts(zipf_counts(items)).log_prior_V
    few = query[:200], table, log_prior
    np.testing.assert_allclose(CONTENDERS[contender](*few), dense(*few), rtol=1e-9)
    measure(contender, shape, lambda: CONTENDERS[contender](query, table, log_prior),
            rounds=3 if contender.startswith("fastpop") else 1)
