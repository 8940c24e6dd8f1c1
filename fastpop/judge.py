"""`fastpop.evaluate`, `fastpop.audit` and `fastpop.recommend`: of anybody's model.

A model is one of
    a TrainResult, or the folder of a run;
    (query, items) or (query, items, bias): tables [U, D], [V, D] and [V], rows by user and by item;
    a `fastpop.types.DotModel`: an object, a torch module say, with queries(cases) -> [C, D] and
        items() -> [V, D] (and item_bias() -> [V], scale() -> float, where it has them);
    a function of Cases that gives [C, V] scores.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fastpop import checks, diagnostics, evaluation
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.diagnostics import Audit
from fastpop.diagnostics.moments import is_nested_numbers
from fastpop.evaluation import DotScores, Evaluation, Recommendations
from fastpop.evaluation.models import Tables, as_model, is_model, scores_of
from fastpop.evaluation.positions import scores_in_chunks
from fastpop.training import TrainResult, load


def evaluate(model: Any, cases: Any = "test", **options: Any) -> Evaluation:
    """Rank every item for every case, and average the usual metrics.

    Args:
        model: see the top of `fastpop.judge`. Also DotScores, a [C, V] matrix, or a baseline's scores,
            which are of these cases.
        cases: `fastpop.data.Cases`; of a run also "test" or "valid", a part of its split.
        options: as in `fastpop.evaluation.evaluate` (counts, ks, metrics, candidates, ...). Of a run also
            popularity_weight and personal_weight, and counts are those of its training events.
    Returns: Evaluation.
    Raises: TypeError, ValueError: says the argument, the expected and the got.
    Cost: 4 C V D FLOPs for what scores by a dot product, without writing scores down; else the function's
        own, and O(C V).
    """
    model = opened(model)
    if isinstance(model, TrainResult):
        return model.evaluate(cases, **options)
    _need_cases(cases)
    return evaluation.evaluate(scores_of(model, cases), cases, **options)


def recommend(
    model: Any,
    cases: Any = None,
    k: int = 10,
    *,
    histories: Any = None,
    log: Interactions | None = None,
    exclude_seen: bool = True,
    candidates: Any = None,
    allow: Any = None,
    deny: Any = None,
    titles: Any = None,
    unknown: str = "warn",
    **weights: Any,
) -> Recommendations:
    """The k best items of each case.

    Args:
        model: see the top of `fastpop.judge`.
        cases: of a run, ids of its log's users. Of others: ids of `log`'s users, whose events are then
            the histories; without a log, rows of the user table; or Cases. Beside `histories`, their names.
        k: no more than the catalogue are given.
        histories: lists of item ids of a run's log or of `log`, oldest first, of anybody. A run serves one
            without a known item log p alone (`TrainResult.recommend`); another model is asked as it is.
        log: gives users and items their ids; without it both are places in the tables.
        exclude_seen: leave out items of the case's history, where it has one.
        candidates: a list of items for each case: rank only these. allow, deny: items, or a mask [V] of
            bools, for all cases. Ids of the log, or else places.
        titles: a table of items, as `fastpop.data.read_titles` takes it; one that has none of the catalogue's
            is an error.
        unknown: "warn", "error" or "ignore" item ids that the log does not have.
        weights: of a run, popularity_weight, personal_weight and log_p.
    Returns: Recommendations.
    Raises: TypeError, ValueError: says the argument, the expected and the got.
    Warns: UserWarning for item ids that the log does not have, and where some items have no title.
    Cost: 2 C V D FLOPs for what scores by a dot product, without writing scores down; with candidates 2 D for
        each; else the function's own, and O(C V).
    """
    model = opened(model)
    given: dict[str, Any] = {
        "histories": histories,
        "exclude_seen": exclude_seen,
        "candidates": candidates,
        "allow": allow,
        "deny": deny,
        "titles": titles,
        "unknown": unknown,
    }
    if isinstance(model, TrainResult):
        if log is not None:
            raise checks.wrong("log", "None: a run has its own", log)
        return model.recommend(cases, k, **given, **weights)
    if weights:
        raise checks.wrong_type(min(weights), "a run, whose weight it is", model)
    if cases is None and histories is None:
        raise checks.wrong("cases", "users, rows or Cases, or histories=", None)
    return evaluation.recommend(model, cases, k, log=log, **given)


def audit(query: Any, items: Any = None, counts: Any = None, *, cases: Any = None, **options: Any) -> Audit:
    """How much of a model's score lies along log p, and is that more than for log p shuffled over items?

    Args:
        query: a model (see the top of `fastpop.judge`); or, with `items`, the contexts' vectors [C, D].
        items: [V, D], beside vectors; None beside a model.
        counts: [V] training events of each item; None for a run, which has its own.
        cases: the contexts that a model is asked for, `fastpop.data.Cases`. None: of a run its training
            events, of tables every user once.
        options: as in `fastpop.diagnostics.audit` (permutations, null, strata, subset, ...); of a run as in
            `TrainResult.audit`.
    Returns: Audit.
    Raises: TypeError, ValueError: says the argument, the expected and the got.
    Warns: as `fastpop.diagnostics.audit`.
    Cost: as `fastpop.diagnostics.audit`. A function of cases has no D: its [C, V] float64 scores are written
        down, and D is the smaller of C and V.
    """
    is_folder = isinstance(query, (str, Path)) and counts is None
    if items is not None and (is_folder or isinstance(query, TrainResult) or is_model(query)):
        raise checks.wrong_type("items", "None beside a model; counts= and cases= by name", items)
    if items is not None or _is_arrays(query):
        if cases is not None:
            raise checks.wrong("cases", "None beside vectors, which are of contexts already", cases)
        if items is None:
            raise checks.wrong_type("items", "[V, D] beside vectors of contexts, which are no model", items)
        return diagnostics.audit(query, items, counts, **options)
    model = opened(query)
    if isinstance(model, TrainResult):
        for name, value in (("counts", counts), ("cases", cases)):
            if value is not None:
                raise checks.wrong(name, "None: a run is audited by its training events", value)
        return model.audit(**options)
    if counts is None:
        raise checks.wrong_type("counts", "[V] training events of each item", counts)
    if cases is None and isinstance(model, Tables):
        bias = model.bias
        return diagnostics.audit(model.query, model.table, counts, bias=bias, **options)
    _need_cases(cases)
    scores = scores_of(model, cases)
    if isinstance(scores, DotScores):
        return diagnostics.audit(
            scores.query, scores.items, counts, bias=scores.bias, scale=scores.scale, **options
        )
    return diagnostics.audit(*_factors(scores, cases), counts, **options)


def opened(model: Any) -> Any:
    """The result of a folder, tables of a pair, any other model as it is."""
    if isinstance(model, (str, Path)):
        return load(model)
    return model if isinstance(model, TrainResult) else as_model(model)


def _need_cases(cases: Any) -> None:
    if not isinstance(cases, Cases):
        raise checks.wrong_type("cases", "fastpop.data.Cases, for a model that is no run", cases)


def _is_arrays(query: Any) -> bool:
    return hasattr(query, "dtype") or is_nested_numbers(query)


def _factors(scores: Any, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """(query [C, D], items [V, D]) whose products are these scores: the scores themselves and an identity."""
    score_CV = np.empty((cases.num_cases, cases.num_items))
    for start, stop, score_BV in scores_in_chunks(scores, cases.num_cases, cases.num_items):
        score_CV[start:stop] = score_BV.cpu().numpy()
    if cases.num_cases < cases.num_items:
        return np.eye(cases.num_cases), score_CV.T
    return score_CV, np.eye(cases.num_items)
