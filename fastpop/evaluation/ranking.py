"""Exact full ranking: every item is scored, users x items never exist."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.data import columns
from fastpop.data.csr import Csr
from fastpop.evaluation import popularity_bias, sampled
from fastpop.evaluation.accuracy import ACCURACY, SHARES
from fastpop.evaluation.dot_scores import DotScores
from fastpop.evaluation.metric import Known, Metric, Targets, chosen, measure
from fastpop.evaluation.models import of_matrix, scores_of
from fastpop.evaluation.popularity_bias import GROUPS
from fastpop.evaluation.positions import MEMORY, Problem, dense_positions, streamed_positions
from fastpop.evaluation.result import Evaluation
from fastpop.evaluation.shown import SHOWN
from fastpop.evaluation.unbiased import UNBIASED, propensity_of
from fastpop.types import DotModel

OURS = (*ACCURACY, *SHOWN, *SHARES, *UNBIASED)
Score = Callable[[slice], Any] | DotScores | Any  # any other: a [C, V] matrix


def evaluate(
    score: Score,
    cases: Any,
    *,
    counts: Any = None,
    ks: Sequence[int] = (10, 20),
    mask_seen: bool | None = None,
    candidates: Any = None,
    weight: Any = None,
    propensity: Any = None,
    metrics: Iterable[str | Metric] | None = None,
    logits: bool = True,
    num_items: int | None = None,
    chunk_size: int | None = None,
    memory_limit: int = MEMORY,
    device: str = "cpu",
    sample_cases: int | None = None,
    sample_seed: int = 0,
) -> Evaluation:
    """Rank every item for every case and average the usual metrics.

    With a case's relevant set T (distinct targets) and the rankable items N outside T, the j-th
    best target stands at  position_j = j + #{i in N: s_i > s} + #{i in N: s_i = s} / 2,
    which for one target is 1 + #greater + #ties/2. A target is hit at k when fewer than k items
    stand before it, ties by halves: position < k + 1 (a tie that straddles the edge is a hit).

    Args:
        score: DotScores, or a `fastpop.types.DotModel` (queries(cases) and items()), which are ranked
            without writing scores down; or any function that is called
            with slices of case numbers and returns [b, V] real scores, torch or numpy; or the whole
            [C, V] matrix, as an array, a tensor or a frame. -inf says "never"; NaN and +inf are
            errors.
        cases: Cases (history_offsets, history_item, target_offsets, target_item); each case has
            at least one target, unless candidates are given.
        counts: [V] training popularity counts. None leaves out head/mid/tail and popularity bias.
        ks: list lengths, >= 1. Lists are short where fewer items can be ranked.
        mask_seen: leave a case's history out of the ranking, but for the targets. None: True,
            and False when `candidates` are given. False also splits metrics into targets that
            repeat the history and new ones.
        candidates: rank only these items, and the targets, per case: (offsets [C+1], item [M]), a
            `fastpop.data.Csr`, or a list of lists.
            A case without target is then legal: it has no value of its own, but its candidates
            count among the negatives of `pooled_auc`, the AUC over all (case, item) pairs.
        weight: [C] >= 0, weights of the cases in every mean. None: ones.
        propensity: how likely a target was to be seen, in (0, 1]: [V] of items, or a function of (case [n],
            item [n]) that gives [n]. Adds the IPS and SNIPS metrics (docs/metrics.md); clip it yourself.
        metrics: further ones beside ours: names (`fastpop.available("metrics")`), or objects.
        logits: False for scores that are no logits: no NLL.
        num_items: V; None takes cases.num_items.
        chunk_size: cases scored at once. None: as many as fit memory_limit (bytes).
        device: where ranking happens; scores are moved there. DotScores are ranked where they
            are, but for candidates.
        sample_cases: estimate from so many of the cases, drawn without replacement by sample_seed, with
            95 % intervals (`Evaluation.intervals`), and the rule says so; every item is ranked all the same.
            None, or at least as many as there are: all of them, exactly. A function is then asked for
            slices of neighbouring cases, one by one.
    Returns:
        Evaluation. NLL and perplexity are over the unmasked catalogue, mean over target events.
    Raises:
        ValueError: wrong shape, a case without target, NaN or +inf scores (names the case), a metric
            without what it needs.
    Cost: DotScores: 4 C V D FLOPs, some MiB, and some vectors [V]; a bar says how long it will take, and
        `predicted_seconds` before it is begun. A function, or lists of candidates: its own, and O(C V) per
        distinct target slot (a sort per case instead where targets are many); memory_limit bytes
        beyond the inputs and O(C) results.
    Source: metric definitions and their sources are in docs/metrics.md.
    """
    for name in ("num_cases", "num_items", "target_offsets", "history_offsets"):
        if not hasattr(cases, name):
            raise checks.wrong_type("cases", "fastpop.data.Cases", cases)
    if sample_cases is not None:
        options = {
            "counts": counts,
            "ks": ks,
            "mask_seen": mask_seen,
            "candidates": candidates,
            "weight": weight,
            "propensity": propensity,
            "metrics": metrics,
            "logits": logits,
            "num_items": num_items,
            "chunk_size": chunk_size,
            "memory_limit": memory_limit,
            "device": device,
        }
        return sampled.estimate(evaluate, score, cases, sample_cases, sample_seed, options)
    if isinstance(ks, (int, np.integer, str)):
        raise checks.wrong_type("ks", "a list of list lengths", ks)
    num_items = cases.num_items if num_items is None else num_items
    checks.number("num_items", num_items, ge=1, integer=True)
    ks = tuple(sorted(set(ks)))
    if not ks:
        raise checks.wrong("ks", "at least one k", ks)
    for k in ks:
        checks.number("ks", k, ge=1, integer=True)
    num_cases = int(cases.num_cases)
    if num_cases == 0:
        raise checks.wrong("cases", "at least one case", text="none")
    sizes = {"num_rows": num_cases, "num_items": num_items}
    history = Csr.of("cases.history", (cases.history_offsets, cases.history_item), **sizes)
    target = Csr.of("cases.target", (cases.target_offsets, cases.target_item), **sizes)
    if candidates is None and (target.lengths() == 0).any():
        case = int((target.lengths() == 0).argmax())
        raise checks.wrong("cases", "at least one target in every case", text=f"none in case {case}")
    allowed = None if candidates is None else Csr.of("candidates", candidates, **sizes)
    if mask_seen is None:
        mask_seen = candidates is None
    counts_V = None if counts is None else popularity_bias.check_counts(counts, num_items)
    weight_C = np.ones(num_cases)
    if weight is not None:
        weight_C = checks.float_array("weight", weight, 1)
        checks.shape("weight", weight_C, (num_cases,))
        if (weight_C < 0).any() or weight_C.sum() == 0:
            raise checks.wrong("weight", "numbers >= 0, not all zero", weight_C)
    if chunk_size is not None:
        checks.number("chunk_size", chunk_size, ge=1, integer=True)

    given = {
        "counts": counts_V is not None,
        "logits": logits,
        "candidates": allowed is not None,
        "unmasked": not mask_seen,
        "propensity": propensity is not None,
    }
    asked = chosen(metrics, {need for need, there in given.items() if there}, OURS)

    # Distinct (case, item) pairs for ranking; the events themselves, repeats and all, for NLL.
    event_case = target.row_of_each()
    pair = columns.distinct(target.keys(num_items))
    pair_case, pair_item = pair // num_items, pair % num_items
    pairs = Csr(np.searchsorted(pair_case, np.arange(num_cases + 1)), pair_item)
    pair_propensity = None
    if propensity is not None:
        pair_propensity = propensity_of(propensity, pair_case, pair_item, num_items)
    problem = Problem(
        num_cases,
        num_items,
        target,
        pairs,
        history if mask_seen else None,
        allowed,
        min(ks[-1], num_items),
        logits,
    )
    if isinstance(score, DotModel):
        score = scores_of(score, cases)
    if not isinstance(score, DotScores) and not callable(score):
        score = of_matrix(score, num_cases, num_items)
    if isinstance(score, DotScores):
        checks.shape("score.query", score.query, (num_cases, "D"))
        if score.num_items != num_items:
            raise checks.wrong("score.items", f"shape [{num_items}, D]", score.items)
    if isinstance(score, DotScores) and allowed is None:
        found = streamed_positions(score, problem, chunk_size)
    else:
        found = dense_positions(score, problem, chunk_size, memory_limit, device)

    everything = np.ones(len(event_case), bool)
    targets = {"": Targets.of(pair_case, found.ahead, num_cases, everything)}
    members: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of each part among pairs, events
    if counts_V is not None:
        group_V = popularity_bias.item_groups(counts_V)
        for number, name in enumerate(GROUPS):
            members[name] = group_V[pair_item] == number, group_V[target.item] == number
    if not mask_seen:
        repeat = (_in_history(history, pairs, num_items), _in_history(history, target, num_items))
        members["repeat"], members["new"] = repeat, (~repeat[0], ~repeat[1])
    for name, (of_pairs, of_events) in members.items():
        targets[name] = Targets.of(pair_case[of_pairs], found.ahead[of_pairs], num_cases, of_events)
    exposure = {k: popularity_bias.exposure_counts(found.top[:, :k], num_items) for k in ks}
    known = Known(
        num_items=num_items,
        targets=targets,
        pair_case=pair_case,
        ahead=found.ahead,
        others_C=found.others,
        top_CK=found.top,
        exposure=exposure,
        event_case=event_case,
        event_nll=found.nll,
        counts_V=counts_V,
        case_weight_C=weight_C,
        pair_propensity=pair_propensity,
        pool=None if found.pool is None else (found.pool[0], np.isin(found.pool[1], pair)),
    )
    means, per_case, of_each = measure(known, asked, ks)
    return Evaluation(
        metrics=means,
        per_case=per_case,
        ks=ks,
        events={"nll": target.lengths(), **of_each},
        case_weight=weight_C,
        exposure=exposure,
        cases_key=_key(num_items, target),
        rule=_rule(num_items, mask_seen, allowed is not None, logits, counts_V is not None),
    )


def predicted_seconds(score: Score, cases: Any, **options: Any) -> float:
    """Seconds that `evaluate(score, cases, **options)` will take here and now.

    Measured on 32 and then 288 of the cases or more, which have what every case costs apart from what the
    whole costs once; on few cases, on all of them.
    Raises: as `evaluate`.
    """
    return sampled.predicted_seconds(evaluate, score, cases, options)


def _in_history(history: Csr, listed: Csr, num_items: int) -> np.ndarray:
    """bool, aligned with listed.item: whether the case's history has the item."""
    found = np.zeros(len(listed.item), bool)
    for cases, _ in columns.user_pieces(history.offsets + listed.offsets):
        seen, asked = (rows.part(cases.start, cases.stop).keys(num_items) for rows in (history, listed))
        found[listed.places(cases.start, cases.stop)] = np.isin(asked, seen)
    return found


def _key(num_items: int, target: Csr) -> str:
    digest = hashlib.blake2b(str(num_items).encode(), digest_size=16)
    for part in (target.offsets, target.item):
        digest.update(np.ascontiguousarray(part, np.int64).tobytes())
    return digest.hexdigest()


def _rule(num_items: int, mask_seen: bool, listed: bool, logits: bool, grouped: bool) -> str:
    words = [
        "ranking of the given candidates and the targets"
        if listed
        else f"full ranking of {num_items:,} items",
        "seen items masked except the targets" if mask_seen else "seen items not masked",
        "position = 1 + greater + ties/2 among non-relevant items, hit when position < k + 1",
    ]
    if logits:
        words.append("NLL over the unmasked catalogue, mean over target events, nats")
    if grouped:
        words.append("head/mid/tail = items with the first 20/next 60/last 20 % of training events")
    return "; ".join(words)
