"""Exact full ranking, popularity bias of the lists, paired comparisons, baselines.

`evaluate(score, cases)` takes any callable that scores a slice of cases, so a model, a baseline or
somebody else's matrix are measured by one rule. `DotScores` are ranked while they are made. `scores_of`
makes either of anybody's model.
"""

from fastpop import registry
from fastpop.evaluation.baselines import (
    ease_scorer,
    item_mean_scorer,
    markov_scorer,
    popularity_scorer,
    recency_scorer,
)
from fastpop.evaluation.ddc import ddc
from fastpop.evaluation.dot_scores import DotScores
from fastpop.evaluation.injected import injected_scorer
from fastpop.evaluation.metric import Known, Metric, Targets, find_metric
from fastpop.evaluation.models import CaseScores, Tables, scores_of
from fastpop.evaluation.paired import PairedInterval, compare_paired, paired_over_seeds
from fastpop.evaluation.popularity_bias import gini, item_groups, lorenz_curve
from fastpop.evaluation.ppmi import ppmi_scorer
from fastpop.evaluation.ranking import OURS, evaluate, predicted_seconds
from fastpop.evaluation.recommendations import Recommendations, recommend
from fastpop.evaluation.reference import OURS as REFERENCES
from fastpop.evaluation.reference import Reference
from fastpop.evaluation.result import Evaluation
from fastpop.stats import mean_interval

__all__ = [
    "CaseScores",
    "DotScores",
    "Evaluation",
    "Known",
    "Metric",
    "PairedInterval",
    "Recommendations",
    "Reference",
    "Tables",
    "Targets",
    "compare_paired",
    "ddc",
    "ease_scorer",
    "evaluate",
    "find_metric",
    "gini",
    "injected_scorer",
    "item_groups",
    "item_mean_scorer",
    "lorenz_curve",
    "markov_scorer",
    "mean_interval",
    "paired_over_seeds",
    "popularity_scorer",
    "ppmi_scorer",
    "predicted_seconds",
    "recency_scorer",
    "recommend",
    "scores_of",
]

registry.ours("metric", *OURS)
registry.ours("reference", *REFERENCES)
