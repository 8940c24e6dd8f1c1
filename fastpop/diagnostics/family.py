"""Many tests of one stream of draws: p-values that hold for all of them together."""

from collections.abc import Mapping

import numpy as np

from fastpop import checks
from fastpop.diagnostics.significance import TIE, PermutationTest


def family_wise(tests: Mapping[str, PermutationTest]) -> dict[str, float]:
    """name -> p adjusted for the largest of all: the chance of a single false rejection stays below a level.

    Step-down max-T: statistics are standardised by the mean and variance of their null (the exact ones where
    known, otherwise those of the draws and the observed together), and one is compared with the largest of
    those that are no larger than it, draw by draw.

    tests: of the same draws, as `audit_many` gives them (same permutations, seed, null and strata).
    Raises: ValueError where they have no draws or different numbers of them, or a null that does not vary.
    Source: Westfall & Young 1993, algorithm 4.1; + 1 of Phipson & Smyth 2010.
    """
    if not isinstance(tests, Mapping) or not tests:
        raise checks.wrong_type("tests", "a dict of name to PermutationTest", tests)
    sizes = {name: test.num_permutations for name, test in tests.items()}
    if len(set(sizes.values())) > 1 or not min(sizes.values()):
        raise checks.wrong("tests", "the same permutations for all, at least one", sizes)
    if len({test.kind for test in tests.values()}) > 1:
        raise checks.wrong("tests", "one null", [test.kind for test in tests.values()])
    names, rows = list(tests), [_standardised(name, test) for name, test in tests.items()]
    observed_M, drawn_MP = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    order = np.argsort(-observed_M, kind="stable")
    largest_MP = np.maximum.accumulate(drawn_MP[order][::-1])[::-1]  # of it and all that stand below it
    near_M1 = (observed_M[order] - TIE * (1 + np.abs(observed_M[order])))[:, None]
    p_M = (1 + (largest_MP >= near_M1).sum(axis=1)) / (drawn_MP.shape[1] + 1)
    p_M = np.maximum.accumulate(p_M)
    return {names[at]: float(p) for at, p in sorted(zip(order, p_M))}


def _standardised(name: str, test: PermutationTest) -> tuple[float, np.ndarray]:
    everything = np.append(test.null_P, test.observed)
    mean = everything.mean() if test.null_mean is None else test.null_mean
    variance = everything.var() if test.null_variance is None else test.null_variance
    if not variance > 0:
        raise checks.wrong(f"tests[{name!r}]", "a null that varies", text=f"variance {variance:g}")
    return (test.observed - mean) / variance**0.5, (test.null_P - mean) / variance**0.5
