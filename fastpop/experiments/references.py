"""Rows that no model needs: what any recommender has to beat on the same cases."""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastpop import checks, evaluation, registry
from fastpop.data import ids
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.diagnostics import ScoreMoments
from fastpop.evaluation import Metric, Reference
from fastpop.experiments.arms import ITEM_MEAN
from fastpop.experiments.further import K
from fastpop.experiments.one_arm import Judged, best_by, some_cases
from fastpop.experiments.shown import Shown, judge_scores
from fastpop.training import TrainConfig

MOST_VALID = 2000  # validation cases that options are chosen by: enough to tell a window of days from another


def asked_for(references: Any, config: TrainConfig) -> list[Reference]:
    """References from names or objects; one with an option `smoothing` has that of log p.

    Raises TypeError, ValueError for what is none, comes twice, or has the name of an arm.
    """
    if isinstance(references, (str, bytes, Reference)) or not isinstance(references, Iterable):
        raise checks.wrong_type("references", "a list of names or references", references)
    given, default = {"smoothing": config.smoothing}, {"smoothing": TrainConfig.smoothing}
    found = [registry.made("reference", one, "references", given, default) for one in references]
    names = list(map(str, found))
    taken = {*registry.all_of("arm"), ITEM_MEAN}
    if len(set(names)) < len(names) or taken.intersection(names):
        raise checks.wrong("references", "different names, and none of an arm", names)
    return found


def reference_rows(
    references: list[Reference],
    judged: Judged,
    test: Cases | None,
    shown: Shown | None,
    rated: Interactions | None,
    config: TrainConfig,
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """(values by name, what was chosen of each that had a choice: its options and by what).

    test, shown: the cases that the arms were judged on. rated: the training part with ratings for weights,
    or None: adds the row of mean ratings.
    """
    rows: dict[str, dict[str, float]] = {}
    chosen: dict[str, Any] = {}
    for reference in references:
        taken, by = _chosen(reference, judged, config)
        if taken is None:
            continue
        name, log = str(reference), _counted(taken, judged, judged.known)
        values: dict[str, float] = {}
        item_V = taken.shared(log)
        if item_V is not None:
            values |= _energies(np.asarray(item_V, float), judged.log_prior_V)
        on_test, on_shown = (
            _can(taken, log, cases) for cases in (test, None if shown is None else shown.cases)
        )
        if on_test or on_shown:
            scorer = taken.fit(log)
        if on_test and test is not None:
            asked = judged.further.of(logits=taken.logits)
            values |= _metrics(taken, scorer(test), test, judged, config, asked)
        if on_shown and shown is not None:
            values |= judge_scores(scorer(shown.cases), shown)
        if values:
            rows[name] = values
            if by:
                chosen[name] = {"options": taken.options(), "by": by}
    if shown is not None and rated is not None:
        rows[ITEM_MEAN] = judge_scores(_item_mean(rated, judged.train), shown)
    return rows, chosen


def _chosen(reference: Reference, judged: Judged, config: TrainConfig) -> tuple[Reference | None, str]:
    """(the candidate that is best on the validation part, what chose it). What the arms' best epochs are
    chosen by decides, where the scores have it, otherwise NDCG. None: the log lacks what the row needs."""
    if not _has(reference, judged.known):
        return None, ""
    candidates = reference.candidates(judged.train)
    if len(candidates) < 2:
        return (candidates[0] if candidates else None), reference.chosen_by
    valid = some_cases(judged.valid, min(config.valid_cases or MOST_VALID, MOST_VALID), config.seed)
    log = _counted(reference, judged, judged.before_valid)
    if valid is None or not _can(reference, log, valid):
        return candidates[0], "nothing: there is no validation part"
    metric = best_by(config) if reference.logits else f"ndcg@{K}"
    sign = -1 if metric == "nll" else 1
    values = [sign * _metrics(one, one.fit(log)(valid), valid, judged, config)[metric] for one in candidates]
    return candidates[int(np.argmax(values))], f"{metric.upper()} on the validation part"


def _metrics(
    reference: Reference,
    score: Any,
    cases: Cases,
    judged: Judged,
    config: TrainConfig,
    further: Sequence[Metric] = (),
) -> dict[str, float]:
    return evaluation.evaluate(
        score,
        cases,
        counts=judged.counts_V,
        ks=(K,),
        mask_seen=config.mask_seen,
        logits=reference.logits,
        metrics=further,
    ).metrics


def _counted(reference: Reference, judged: Judged, known: Interactions) -> Interactions:
    return judged.train if reference.counted == "half" else known


def _has(reference: Reference, log: Interactions) -> bool:
    return (log.time is not None or "time" not in reference.needs) and (
        log.has_order or "order" not in reference.needs
    )


def _can(reference: Reference, log: Interactions, cases: Cases | None) -> bool:
    """Whether the row can be judged on these cases."""
    if cases is None:
        return False
    return _has(reference, log) and (cases.time is not None or "time" not in reference.needs)


def _item_mean(rated: Interactions, train: Interactions) -> Any:
    """The scorer of mean ratings, over the catalogue of `train`; ratings of other items are left out."""
    item_V = ids.find(train.item_ids, np.asarray(rated.item_ids))
    item = item_V[np.asarray(rated.item)]
    known = item >= 0
    return evaluation.item_mean_scorer(
        SimpleNamespace(item=item[known], num_items=train.num_items), np.asarray(rated.weight)[known]
    )


def _energies(item_V: np.ndarray, log_prior_V: np.ndarray) -> dict[str, float]:
    """Of a score that is the same for every context."""
    moments = ScoreMoments(np.zeros(1), np.zeros((1, 1)), np.zeros((len(item_V), 1)), item_V)
    energy = moments.energy(log_prior_V)
    return {
        "energy_total": energy.total,
        "energy_direction": energy.direction,
        "energy_off_direction": energy.off_direction,
        "energy_shared": energy.shared,
        "slope": energy.slope_mean,
    }
