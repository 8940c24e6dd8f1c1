"""Permutations of the popularity-direction energy: the test's null distribution."""

from functools import lru_cache, partial

import numpy as np
import pytest
from measuring import zipf_counts
from shapes import PERMUTATION, Permutation

from fastpop import ops
from fastpop.diagnostics import ScoreMoments, audit_many
from fastpop.ops._dispatch import IMPLEMENTATIONS
from fastpop.popularity import PopularityPrior


@lru_cache(maxsize=1)
def arrays_of(shape: Permutation) -> tuple[np.ndarray, np.ndarray]:
    """Centred log p [V] of Zipf counts, and an item table [V, D]."""
    log_prior_V = PopularityPrior.from_counts(zipf_counts(shape.items)).log_prior_V
    return (log_prior_V - log_prior_V.mean(), np.random.default_rng(0).normal(size=(shape.items, shape.dim)))


def ours(label_V, item_VD, permutations, *, impl):
    return np.square(ops.permutation(label_V, item_VD, permutations, impl=impl)).sum(1)


def numpy_way(label_V, item_VD, permutations):
    rng = np.random.default_rng(0)
    return np.array([np.square(rng.permutation(label_V) @ item_VD).sum() for _ in range(permutations)])


def scipy_way(label_V, item_VD, permutations):
    from scipy.stats import permutation_test

    return permutation_test(
        (label_V,),
        lambda x: np.square(x @ item_VD).sum(),
        vectorized=False,
        permutation_type="pairings",
        n_resamples=permutations,
        alternative="greater",
        random_state=0,
    ).null_distribution


def audit_way(label_V, item_VD, permutations):
    """What `fastpop.audit` makes of the moments of scores: two statistics a permutation and their exact
    nulls. Of one context along each dimension the directional one is this one, but for what no draw has."""
    moments = ScoreMoments.of(np.eye(item_VD.shape[1]), item_VD)
    test = audit_many({"scores": moments}, label_V, permutations=permutations).direction["scores"]
    return test.null_P * (label_V @ label_V) * item_VD.shape[1]


CONTENDERS = {
    **{f"fastpop {impl}": partial(ours, impl=impl) for impl in IMPLEMENTATIONS["permutation"]},
    "fastpop.diagnostics.audit_many": audit_way,
    "scipy.stats.permutation_test": scipy_way,
    "numpy, one at a time": numpy_way,
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", PERMUTATION, ids=str)
def test_permutation(shape, contender, measure):
    label_V, item_VD = arrays_of(shape)
    function = CONTENDERS[contender]
    if contender == "fastpop reference" and shape.items > 10_000:
        pytest.skip("fastpop reference: a Python step an item, for reading; minutes at this shape")
    # The mean over all permutations is known: |y|² |Z - mean Z|² / (V - 1).
    found = function(label_V, item_VD, 50)
    exact = (label_V @ label_V) * np.square(item_VD - item_VD.mean(0)).sum() / (shape.items - 1)
    assert abs(found.mean() - exact) < 6 * found.std() / np.sqrt(50)
    facts = {}
    if contender.startswith("fastpop"):
        truth = ours(label_V, item_VD, 2, impl="reference")
        facts["error"] = float(np.abs(found[:2] / truth - 1).max())
        assert facts["error"] < 1e-9
    measure(
        contender,
        shape,
        lambda: function(label_V, item_VD, shape.permutations),
        light=lambda: function(label_V, item_VD, 50),
        **facts,
    )
