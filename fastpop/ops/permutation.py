"""Label permutations reduced to the few numbers that permutation tests need."""

from typing import Any, Literal

import numpy as np

from fastpop import checks
from fastpop.kernels.permutation.reference import Inputs
from fastpop.ops import _dispatch
from fastpop.types import Impl

Null = Literal["label", "stratified", "sign"]


def permutation(
    labels: Any,
    items: Any,
    num_permutations: int,
    *,
    seed: int = 0,
    null: Null = "label",
    strata: Any = None,
    first: int = 0,
    impl: Impl = "auto",
    threads: int | None = None,
) -> np.ndarray:
    """numpy: stack([permuted(labels, k) @ items for k in range(first, first + P)])

    A linear statistic xᵀy or a quadratic one yᵀ Z M Zᵀ y of permuted labels y is a function of
    the projections yᵀZ, so several statistics, and several models, can share permutations: the
    k-th permutation depends on (seed, k) and on the labels and strata, on nothing else.

    Args:
        labels: [V] real, what is permuted over items.
        items: [V, R] real, one row per item.
        num_permutations: P >= 0.
        seed: integer >= 0 of the counter-based stream.
        null: "label" permutes over all items, "stratified" within `strata`, "sign" multiplies
            each label by a random sign.
        strata: [V] integers, for "stratified" only.
        first: index of the first permutation, so that a run can be continued.
        impl: "auto" (numba), "cpu" (numba) or "reference" (numpy, for reading and tests).
        threads: worker threads of numba, all cores by default; the result is bitwise the same.
    Returns:
        [P, R] float64.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got.
        NotImplementedError: a named implementation does not take these inputs, or does not exist; says why.
    Cost a permutation: 2*m*R FLOPs, m = items that do not carry the most common label
        (V / 2 for "sign"); memory, per thread, 16 to 256 permutations of 2 or 4 bytes for each
        item outside the frequent labels (all items where no label is frequent).
    """
    label_V = checks.float_array("labels", labels, 1)
    item_VR = checks.float_array("items", items, 2)
    checks.shape("items", item_VR, (len(label_V), "R"))
    if len(label_V) < 2:
        raise checks.wrong("labels", "at least 2 items", label_V)
    checks.number("num_permutations", num_permutations, ge=0, integer=True)
    checks.number("seed", seed, ge=0, le=2**64 - 1, integer=True)
    checks.number("first", first, ge=0, le=2**62, integer=True)
    checks.one_of("null", null, ("label", "stratified", "sign"))
    if threads is not None:
        checks.number("threads", threads, ge=1, integer=True)
    stratum_V = None
    if (null == "stratified") != (strata is not None):
        raise checks.wrong("strata", "integers [V] with null='stratified', and only there", strata)
    if strata is not None:
        stratum_V = checks.array_like("strata", strata)
        stratum_V = stratum_V.detach().cpu().numpy() if hasattr(stratum_V, "detach") else stratum_V
        if stratum_V.dtype.kind not in "iu":
            raise checks.wrong_type("strata", "integers [V]", stratum_V)
        checks.shape("strata", stratum_V, (len(label_V),))

    inputs = Inputs(label_V, item_VR, int(num_permutations), int(seed), stratum_V, null, int(first), threads)
    return _dispatch.choose("permutation", impl, "cpu", inputs).forward(inputs)
