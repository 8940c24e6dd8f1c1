"""A full risk, the mean loss over all pairs (user, item), from the pairs that were seen.

A pair with loss d is seen with probability p, apart from the others. Means of what was seen lean towards
what is shown; each of these estimators is a sum over the seen with 1/p, and says its variance.
Sources: Horvitz & Thompson 1952; Hájek 1971; Schnabel et al., ICML 2016 (IPS, SNIPS); Wang et al., ICML
2019 (doubly robust); Saito et al., WSDM 2020 (implicit feedback).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.propensity.models import check_propensity


@dataclass(frozen=True)
class RiskEstimate:
    """A mean loss over all pairs.

    method: "naive", "ips", "snips", "dr" or "implicit". value: the estimate. variance: an estimate of its
    variance over what happens to be seen, with the propensities taken as known. num_seen: pairs summed.
    effective_size: (Σ 1/p)² / Σ 1/p², how many pairs of equal weight would be as sure. clipped: the share of
    them whose propensity was raised to `clip`, which biases the estimate.
    """

    method: str
    value: float
    variance: float
    num_seen: int
    effective_size: float
    clipped: float

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.variance)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """value ± z standard errors, by the normal approximation."""
        checks.number("confidence", confidence, gt=0)
        if confidence >= 1:
            raise checks.wrong("confidence", "a number in (0, 1)", confidence)
        reach = NormalDist().inv_cdf(0.5 + confidence / 2) * self.standard_error
        return self.value - reach, self.value + reach


def naive_risk(loss: Any) -> RiskEstimate:
    """The mean loss of what was seen: biased unless all pairs are seen alike. loss: [N], N >= 2."""
    loss_N = _losses(loss, least=2)
    return RiskEstimate(
        "naive", float(loss_N.mean()), float(loss_N.var(ddof=1) / len(loss_N)), len(loss_N), len(loss_N), 0.0
    )


def ips_risk(loss: Any, propensity: Any, num_pairs: int, *, clip: float = 0.0) -> RiskEstimate:
    """Σ loss/p / num_pairs over the pairs seen. Unbiased with true propensities and no clip.

    Args:
        loss: [N] of the pairs seen. propensity: [N] in (0, 1].
        num_pairs: all pairs, seen or not. clip: propensities below it are raised to it.
    Returns: its variance is Σ (1 - p)/p² loss² / num_pairs², unbiased where pairs are seen independently.
    Raises: ValueError, TypeError.
    """
    loss_N, propensity_N, clipped = _seen(loss, propensity, clip)
    _pairs(num_pairs, len(loss_N))
    value = float((loss_N / propensity_N).sum()) / num_pairs
    return _estimate("ips", value, loss_N, propensity_N, num_pairs, clipped)


def snips_risk(loss: Any, propensity: Any, *, clip: float = 0.0) -> RiskEstimate:
    """Σ loss/p / Σ 1/p: moves with the loss by any constant, and needs propensities up to a factor only.

    loss, propensity, clip: as in `ips_risk`. Consistent, biased by O(1/N). Its variance is the linearised
    one, that of IPS of loss - value over Σ 1/p pairs.
    """
    loss_N, propensity_N, clipped = _seen(loss, propensity, clip)
    inverse_N = 1 / propensity_N
    total = float(inverse_N.sum())
    value = float(loss_N @ inverse_N) / total
    return _estimate("snips", value, loss_N - value, propensity_N, total, clipped)


def doubly_robust_risk(
    loss: Any, imputed: Any, propensity: Any, imputed_mean: float, num_pairs: int, *, clip: float = 0.0
) -> RiskEstimate:
    """imputed_mean + Σ (loss - imputed)/p / num_pairs: unbiased where the propensities are right, or the
    imputed losses are right on average given what is seen.

    Args:
        loss, propensity, num_pairs, clip: as in `ips_risk`.
        imputed: [N] what a model says that the losses of the pairs seen are.
        imputed_mean: the mean of what it says over all pairs.
    """
    loss_N, propensity_N, clipped = _seen(loss, propensity, clip)
    _pairs(num_pairs, len(loss_N))
    imputed_N = checks.float_array("imputed", imputed, 1)
    checks.shape("imputed", imputed_N, (len(loss_N),))
    checks.number("imputed_mean", imputed_mean)
    error_N = loss_N - imputed_N
    value = float(imputed_mean) + float((error_N / propensity_N).sum()) / num_pairs
    return _estimate("dr", value, error_N, propensity_N, num_pairs, clipped)


def implicit_risk(
    positive_loss: Any,
    negative_loss: Any,
    propensity: Any,
    negative_mean: float,
    num_pairs: int,
    *,
    clip: float = 0.0,
) -> RiskEstimate:
    """The mean of r d1 + (1 - r) d0 over all pairs, r their relevance, from clicks alone.

    A click needs relevance and exposure, P(click) = r p; no click is no verdict. So
    negative_mean + Σ over clicks of (d1 - d0)/p / num_pairs, unbiased with true propensities.

    Args:
        positive_loss, negative_loss: [N] d1 and d0 of the pairs clicked. propensity: [N] of their exposure.
        negative_mean: the mean of d0 over all pairs. num_pairs, clip: as in `ips_risk`.
    Returns: its variance is Σ ((d1 - d0)/p)² / num_pairs²: how relevant a clicked pair is cannot be known,
        so it is on average no less than the true one.
    """
    positive_N, propensity_N, clipped = _seen(positive_loss, propensity, clip)
    _pairs(num_pairs, len(positive_N))
    negative_N = checks.float_array("negative_loss", negative_loss, 1)
    checks.shape("negative_loss", negative_N, (len(positive_N),))
    checks.number("negative_mean", negative_mean)
    part_N = (positive_N - negative_N) / propensity_N
    return RiskEstimate(
        "implicit",
        float(negative_mean) + float(part_N.sum()) / num_pairs,
        float(part_N @ part_N) / num_pairs**2,
        len(part_N),
        effective_size(propensity_N),
        clipped,
    )


def effective_size(propensity_N: np.ndarray) -> float:
    """(Σ 1/p)² / Σ 1/p² (Kish 1965); 0 of none."""
    inverse_N = 1 / propensity_N
    return float(inverse_N.sum() ** 2 / (inverse_N @ inverse_N)) if len(inverse_N) else 0.0


def _estimate(
    method: str, value: float, part_N: np.ndarray, propensity_N: np.ndarray, total: float, clipped: float
) -> RiskEstimate:
    variance = float(((1 - propensity_N) * np.square(part_N / propensity_N)).sum()) / total**2
    return RiskEstimate(method, value, variance, len(part_N), effective_size(propensity_N), clipped)


def _losses(loss: Any, least: int = 1) -> np.ndarray:
    loss_N = checks.float_array("loss", loss, 1)
    if len(loss_N) < least:
        raise checks.wrong("loss", f"at least {least} of the pairs seen", loss_N)
    return loss_N


def _seen(loss: Any, propensity: Any, clip: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(losses, clipped propensities, the share that was clipped)."""
    loss_N = _losses(loss)
    propensity_N = check_propensity("propensity", propensity, len(loss_N), clip)
    clipped = 0.0 if clip == 0 else float(np.mean(checks.float_array("propensity", propensity, 1) < clip))
    return loss_N, propensity_N, clipped


def _pairs(num_pairs: int, num_seen: int) -> None:
    checks.number("num_pairs", num_pairs, ge=max(num_seen, 1), integer=True)
