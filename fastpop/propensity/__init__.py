"""How likely an event was to be seen, and what a risk is where everything could have been."""

from fastpop.propensity.estimators import (
    RiskEstimate,
    doubly_robust_risk,
    implicit_risk,
    ips_risk,
    naive_risk,
    snips_risk,
)
from fastpop.propensity.models import LogisticPropensity, NaiveBayesPropensity, popularity_propensity
from fastpop.propensity.weights import inverse_weights, weighted

__all__ = [
    "LogisticPropensity",
    "NaiveBayesPropensity",
    "RiskEstimate",
    "doubly_robust_risk",
    "implicit_risk",
    "inverse_weights",
    "ips_risk",
    "naive_risk",
    "popularity_propensity",
    "snips_risk",
    "weighted",
]
