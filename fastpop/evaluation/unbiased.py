"""Ranking metrics of all relevant pairs, from targets that were seen with known propensities.

A target's place in a case's list does not hang on which targets are seen, so a sum over all relevant pairs is
on average the sum over the seen ones with 1/p.
"""

import math
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.evaluation.metric import Known, Metric, ratio

SOURCE = "Yang et al., RecSys 2018"


class _Weighted(Metric):
    needs = ("propensity",)
    section = "unbiased"

    def parts(self, known: Known, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([C] sum of gain/p, [C] sum of 1/p); gain [pairs] in the order of `known.targets`."""
        assert known.pair_propensity is not None
        case = known.targets[""].case
        # Targets are sorted within their case; what comes with pairs is not.
        inverse = 1 / known.pair_propensity[np.lexsort((known.ahead, known.pair_case))]
        return (
            np.bincount(case, gain * inverse, known.num_cases),
            np.bincount(case, inverse, known.num_cases),
        )


class _OfPairs(_Weighted):
    def size(self, known: Known) -> np.ndarray:
        return self.parts(known, np.zeros(len(known.ahead)))[1]


def _hits(known: Known, k: int) -> np.ndarray:
    return known.targets[""].hit(k).astype(float)


def _gains(known: Known, k: int) -> np.ndarray:
    return _hits(known, k) / np.log2(1 + known.targets[""].position)


class IpsPrecision(_Weighted):
    name = "ips_precision"
    label = "IPS precision"
    definition = "Relevant items among the first k, seen or not, divided by k: hits weighted by 1/propensity."
    formula = "Σ over hits 1/p ÷ k"
    source = SOURCE
    bounds = (0.0, math.inf)

    def value(self, known: Known, k: int) -> Any:
        return self.parts(known, _hits(known, k))[0] / k  # 0 in a case without a target, too


class IpsDcg(_Weighted):
    name = "ips_dcg"
    label = "IPS DCG"
    definition = (
        "Gain 1/log2(1 + position) of all relevant items among the first k, weighted by 1/propensity."
    )
    formula = "Σ over hits 1/(p log2(1 + position))"
    source = SOURCE
    bounds = (0.0, math.inf)

    def value(self, known: Known, k: int) -> Any:
        return self.parts(known, _gains(known, k))[0]


class SnipsRecall(_OfPairs):
    name = "snips_recall"
    label = "SNIPS recall"
    definition = "Share of all relevant (case, item) pairs among the first k; propensities up to a factor."
    formula = "Σ over hits 1/p ÷ Σ over targets 1/p, sums over all cases"
    source = SOURCE

    def value(self, known: Known, k: int) -> Any:
        return ratio(*self.parts(known, _hits(known, k)))


class SnipsDcg(_OfPairs):
    name = "snips_dcg"
    label = "SNIPS DCG"
    definition = "Mean gain of a relevant (case, item) pair: 1/log2(1 + position) in the first k, else 0."
    formula = "Σ over hits 1/(p log2(1 + position)) ÷ Σ over targets 1/p, sums over all cases"
    source = SOURCE

    def value(self, known: Known, k: int) -> Any:
        return ratio(*self.parts(known, _gains(known, k)))


class PropensityEss(Metric):
    name = "propensity_ess"
    label = "Effective targets"
    definition = "How many targets of equal propensity would be as sure as these."
    formula = "(Σ 1/p)² ÷ Σ 1/p², over targets"
    source = "Kish 1965"
    bounds = (0.0, math.inf)
    at_k = False
    per_case = False
    needs = ("propensity",)
    section = "unbiased"

    def value(self, known: Known, k: int) -> Any:
        assert known.pair_propensity is not None
        inverse = 1 / known.pair_propensity
        return float(inverse.sum() ** 2 / (inverse @ inverse)) if len(inverse) else math.nan


def propensity_of(
    propensity: Any, pair_case: np.ndarray, pair_item: np.ndarray, num_items: int
) -> np.ndarray:
    """[pairs] from [V] of items, or from a function of (case [n], item [n]). Raises ValueError, TypeError."""
    if callable(propensity):
        pair = checks.float_array("propensity(case, item)", propensity(pair_case, pair_item), 1)
        checks.shape("propensity(case, item)", pair, (len(pair_item),))
    else:
        item_V = checks.float_array("propensity", propensity, 1, by_item=True)
        checks.shape("propensity", item_V, (num_items,))
        pair = item_V[pair_item]
    bad = (pair <= 0) | (pair > 1 + 1e-12)
    if bad.any():
        at = int(bad.argmax())
        raise checks.wrong(
            "propensity",
            "probabilities in (0, 1] of the targets",
            text=f"{pair[at]:g} of item {pair_item[at]}",
        )
    return pair


UNBIASED: tuple[Metric, ...] = (IpsPrecision(), IpsDcg(), SnipsRecall(), SnipsDcg(), PropensityEss())
