"""Permutations of the popularity-direction energy."""

from functools import partial

import numpy as np
import pytest
from conftest import zipf_counts
from shapes import PERMUTATION

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS
from fastpop.popularity import PopularityPrior


def scipy_test(labels, items, permutations):
    from scipy.stats import permutation_test

    return permutation_test((labels,), lambda x: np.square(x @ items).sum(), vectorized=False,
                            permutation_type="pairings", n_resamples=permutations,
                            alternative="greater", random_state=0).null_distribution


CONTENDERS = {
    **{f"fastpop {impl}": partial(ops.permutation, impl=impl) for impl in IMPLEMENTATIONS["permutation"]
       if impl != "reference"},
    "scipy.stats.permutation_test": scipy_test,
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", PERMUTATION, ids=str)
def test_permutation(shape, contender, measure):
    items, dim, permutations = shape
    prior = PopularityPrior.from_counts(zipf_counts(items))
    labels = prior.log_prior_V - prior.log_prior_V.mean()
    table = np.random.default_rng(0).normal(size=(items, dim))
    function = CONTENDERS[contender]
    if contender.startswith("fastpop"):
        slow = ops.permutation(labels, table, 2, impl="reference")
        np.testing.assert_allclose(function(labels, table, 2), slow, rtol=1e-8, atol=1e-8)
    measure(contender, shape, lambda: function(labels, table, permutations), rounds=3)
