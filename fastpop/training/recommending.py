"""Lists of a run's model: for users of the log, for histories of anybody, and of similar items."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fastpop import checks
from fastpop.data.cases import Cases
from fastpop.data.csr import Csr
from fastpop.data.interactions import Interactions
from fastpop.evaluation import DotScores
from fastpop.evaluation.asked import Shown, Unknown, histories_of, shown
from fastpop.evaluation.models import scores_of
from fastpop.evaluation.recommendations import Recommendations, as_recommendations, asked_cases, best_items
from fastpop.model import Recommender, ServedModel
from fastpop.training.new_items import NewItems

if TYPE_CHECKING:
    from fastpop.training.result import TrainResult


def recommend(
    result: "TrainResult",
    served: ServedModel,
    users: Any,
    k: int,
    *,
    histories: Any,
    exclude_seen: bool,
    candidates: Any,
    allow: Any,
    deny: Any,
    new_items: Mapping[Any, Any] | None,
    new_log_p: Any,
    titles: Any,
    unknown: str,
) -> Recommendations:
    """See `TrainResult.recommend`. served: the result's model at two weights."""
    checks.number("k", k, ge=1, integer=True)
    log = result.log
    new = None if new_items is None else NewItems.of(result, new_items, new_log_p)
    strange = Unknown(unknown, new=frozenset() if new is None else frozenset(new.ids))
    if histories is None:
        wanted, cases = _cases_of_users(result, users)
    else:
        wanted, cases = _cases_of_histories(result, histories, users, strange)
    kept = shown(
        candidates, allow, deny, num_cases=cases.num_cases, num_items=log.num_items, log=log, unknown=strange
    )
    strange.tell()
    k = min(k, log.num_items)
    ids, best = np.empty((cases.num_cases, k), np.int64), np.empty((cases.num_cases, k), np.float32)
    fresh = np.empty((cases.num_cases, 0 if new is None else len(new.ids)), np.float32)
    cold_C = cases.history_rows.lengths() == 0
    if histories is None:  # the encoder reads each of them: that was checked
        cold_C[:] = False
    for rows, some in ((np.flatnonzero(~cold_C), served), (np.flatnonzero(cold_C), None)):
        if rows.size == 0:
            continue
        asked = cases if rows.size == cases.num_cases else cases.take(rows)
        scores = scores_of(some, asked) if some else _without_history(result, served, asked)
        seen = asked.history_rows if exclude_seen else None
        ids[rows], best[rows] = best_items(scores, asked, k, kept.take(rows), seen)
        if new is not None:
            fresh[rows] = new.scores(result, served, scores.query if some else None, rows.size)
    found = as_recommendations(
        wanted,
        ids,
        best,
        log,
        popularity_weight=served.popularity_weight,
        personal_weight=served.personal_weight,
        facts={**strange.counts, "without_history": np.flatnonzero(cold_C).tolist()},
    )
    if new is not None:
        seen_ids = list(histories.values() if isinstance(histories, Mapping) else histories or ())
        fresh[
            ~new.may_show(cases.num_cases, candidates, allow, deny, seen_ids if exclude_seen else [])
        ] = -np.inf
        found = new.among(found, fresh)
    return found if titles is None else found.with_titles(titles, log.item_ids)


def _cases_of_users(result: "TrainResult", users: Any) -> tuple[np.ndarray, Cases]:
    if users is None:
        raise checks.wrong("users", "ids of users of the log, or histories=", None)
    wanted, cases = asked_cases(result.model, users, result.log)
    kept, left_out = readable_cases(result.model, result.split.train, cases)
    if left_out:
        known = np.isin(cases.user, kept.user)
        need = "a training event" if result.model.encoder.reads == "events" else "a history"
        raise checks.wrong(
            "users",
            f"users with {need}, which the encoder {str(result.config.encoder)!r} needs",
            wanted[~known][0],
        )
    return wanted, cases


def _cases_of_histories(
    result: "TrainResult", histories: Any, users: Any, unknown: Unknown
) -> tuple[np.ndarray, Cases]:
    if result.model.encoder.reads == "events":
        raise checks.wrong(
            "histories",
            f"None with the encoder {str(result.config.encoder)!r}, which has a vector for each user of the "
            "log and reads no history",
            text=f"{len(histories):,} histories" if hasattr(histories, "__len__") else None,
        )
    return histories_of(histories, result.log, users, unknown)


def _without_history(result: "TrainResult", served: ServedModel, cases: Cases) -> DotScores:
    """log p alone, or what is learned in its place, at the popularity weight: no query is to be had."""
    if served.popularity_weight == 0:
        raise checks.wrong(
            "popularity_weight",
            "another number than 0 for a history without an item of the log, which log p alone is served",
            served.popularity_weight,
        )
    term_V = result.model.decoder.popularity_term().detach()
    nothing = term_V.new_zeros(cases.num_cases, 1), term_V.new_zeros(len(term_V), 1)
    return DotScores(*nothing, served.popularity_weight * term_V)


def similar_items(
    result: "TrainResult",
    items: Any,
    k: int,
    *,
    popularity_weight: float,
    allow: Any,
    deny: Any,
    titles: Any,
    unknown: str,
) -> Recommendations:
    """See `TrainResult.similar_items`."""
    checks.number("k", k, ge=1, integer=True)
    checks.score_weight("popularity_weight", popularity_weight)
    log, decoder, strange = result.log, result.model.decoder, Unknown(unknown)
    wanted = np.atleast_1d(np.asarray(items))
    places = log.encode_items(wanted)
    kept = shown(None, allow, deny, num_cases=len(places), num_items=log.num_items, log=log, unknown=strange)
    strange.tell()
    unit_VD = _unit(decoder.item_vectors().detach())
    bias_V = popularity_weight * decoder.popularity_term().detach() if popularity_weight else None
    own = Csr.of("items", [[one] for one in places.tolist()])
    cases = Cases.of(own, [[]] * len(places), log.num_items)
    query = unit_VD[torch.tensor(places, device=unit_VD.device)]
    ids, best = best_items(DotScores(query, unit_VD, bias_V), cases, k, Shown(kept.allowed_V), own)
    found = as_recommendations(
        wanted,
        ids,
        best,
        log,
        popularity_weight=popularity_weight,
        asked_for="similar_to",
        facts=strange.counts,
    )
    return found if titles is None else found.with_titles(titles, log.item_ids)


def _unit(item_VD: Tensor) -> Tensor:
    """Rows of length 1, float32 or wider; one of zeros stays."""
    return F.normalize(item_VD.to(torch.promote_types(item_VD.dtype, torch.float32)), dim=1)


def readable(model: Recommender, train: Interactions, cases: Cases) -> np.ndarray:
    """[C] which cases the encoder can answer: a user embedding needs training events, a sequence encoder a
    history."""
    if model.encoder.reads == "events":
        counts_U = np.diff(train.offsets)
        return (cases.user >= 0) & (counts_U[np.maximum(cases.user, 0)] > 0)
    return cases.history_rows.lengths() > 0


def readable_cases(model: Recommender, train: Interactions, cases: Cases) -> tuple[Cases, int]:
    """(cases that the encoder can answer, how many it cannot)."""
    known_C = readable(model, train, cases)
    if known_C.all():
        return cases, 0
    return cases.take(known_C), int((~known_C).sum())
