"""Rows that no model needs: what any recommender has to beat on the same cases."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fastpop import evaluation
from fastpop.data import ids
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.diagnostics import ScoreMoments
from fastpop.experiments.one_arm import Judged, K
from fastpop.experiments.shown import Shown, judge_scores
from fastpop.popularity import PopularityPrior, recency_counts
from fastpop.popularity.temporal import DAY


def reference_rows(
    judged: Judged,
    test: Cases | None,
    shown: Shown | None,
    rated: Interactions | None,
    *,
    smoothing: Any,
    mask_seen: bool,
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """(values by name, what the report says of them).

    Popularity is that of half A, as for the arms. Recency and steps are counted on all that is known when
    a case is asked, since counting anew is what they are for; only the half-life is half A's.

    test, shown: the cases that the arms were judged on. rated: the training part with ratings for weights,
    or None.
    """
    train, known = judged.train, judged.known
    facts: dict[str, Any] = {}
    log_probability_V = PopularityPrior.from_counts(judged.counts_V, smoothing=smoothing).log_prior_V
    rows: dict[str, dict[str, float]] = {"popularity": _energies(log_probability_V, judged.log_prior_V)}

    def judge(name: str, score: Any, cases: Cases, logits: bool) -> None:
        found = evaluation.evaluate(
            score, cases, counts=judged.counts_V, ks=(K,), mask_seen=mask_seen, logits=logits
        )
        rows.setdefault(name, {}).update(found.metrics)

    if test is not None:
        judge("popularity", _of_distribution(log_probability_V, test.num_cases), test, True)
        if test.time is not None and train.time is not None and train.time.min() < train.time.max():
            recent = recency_counts(train)
            facts["half_life_days"] = recent.half_life / DAY
            judge(
                "recency",
                evaluation.recency_scorer(known, test, half_life=recent.half_life, alpha=recent.alpha),
                test,
                True,
            )
        if known.has_order:
            judge("markov", evaluation.markov_scorer(known, test), test, False)
    if shown is not None:
        rows["popularity"] |= judge_scores(_of_distribution(log_probability_V, shown.cases.num_cases), shown)
        if rated is not None:
            rows["item-mean"] = judge_scores(_item_mean(rated, train), shown)
    return rows, facts


def _item_mean(rated: Interactions, train: Interactions) -> Any:
    """The scorer of mean ratings, over the catalogue of `train`; ratings of other items are left out."""
    item_V = ids.find(train.item_ids, np.asarray(rated.item_ids))
    item = item_V[np.asarray(rated.item)]
    known = item >= 0
    return evaluation.item_mean_scorer(
        SimpleNamespace(item=item[known], num_items=train.num_items), np.asarray(rated.weight)[known]
    )


def _of_distribution(log_probability_V: np.ndarray, num_cases: int) -> evaluation.DotScores:
    """log of a distribution of items as everybody's score; it streams as a model's does."""
    log_probability = torch.tensor(log_probability_V, dtype=torch.float32)
    return evaluation.DotScores(
        torch.zeros(num_cases, 1), torch.zeros(len(log_probability), 1), log_probability
    )


def _energies(log_probability_V: np.ndarray, log_prior_V: np.ndarray) -> dict[str, float]:
    """Of a score that is the same for every context."""
    moments = ScoreMoments(
        np.zeros(1), np.zeros((1, 1)), np.zeros((len(log_probability_V), 1)), log_probability_V
    )
    energy = moments.energy(log_prior_V)
    return {
        "energy_total": energy.total,
        "energy_direction": energy.direction,
        "energy_off_direction": energy.off_direction,
        "energy_shared": energy.shared,
        "slope": energy.slope_mean,
    }
