"""Exact full ranking: every item is scored, users x items never exist."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.data import columns
from fastpop.evaluation import popularity_bias
from fastpop.evaluation.dot_scores import DotScores
from fastpop.evaluation.popularity_bias import GROUPS
from fastpop.evaluation.positions import Problem, dense_positions, streamed_positions
from fastpop.evaluation.result import Evaluation, weighted_mean

Score = Callable[[slice], Any] | DotScores | Any  # any other: a [C, V] matrix


def evaluate(
    score: Score, cases: Any, *, counts: Any = None, ks: Sequence[int] = (10, 20),
    mask_seen: bool | None = None, candidates: tuple[Any, Any] | None = None,
    weight: Any = None, logits: bool = True, num_items: int | None = None,
    chunk_size: int | None = None, memory_limit: int = 256 << 20, device: str = "cpu",
) -> Evaluation:
    """Rank every item for every case and average the usual metrics.

    With a case's relevant set T (distinct targets) and the rankable items N outside T, the j-th
    best target stands at  position_j = j + #{i in N: s_i > s} + #{i in N: s_i = s} / 2,
    which for one target is 1 + #greater + #ties/2. A target is hit at k when fewer than k items
    stand before it, ties by halves: position < k + 1 (a tie that straddles the edge is a hit).

    Args:
        score: DotScores, which are ranked without writing them down; or any function that is called
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
        candidates: (offsets [C+1], item [M]): rank only these items, and the targets, per case.
            A case without target is then legal: it has no value of its own, but its candidates
            count among the negatives of `pooled_auc`, the AUC over all (case, item) pairs.
        weight: [C] >= 0, weights of the cases in every mean. None: ones.
        logits: False for scores that are no logits: no NLL.
        num_items: V; None takes cases.num_items.
        chunk_size: cases scored at once. None: as many as fit memory_limit (bytes).
        device: where ranking happens; scores are moved there. DotScores are ranked where they
            are, but for candidates.
    Returns:
        Evaluation. NLL and perplexity are over the unmasked catalogue, mean over target events.
    Raises:
        ValueError: wrong shape, a case without target, NaN or +inf scores (names the case).
    Cost: DotScores: 4 C V D FLOPs, some MiB. A function, or lists of candidates: its own, and O(C V) per
        distinct target slot (a sort per case instead where targets are many); memory_limit bytes
        beyond the inputs and O(C) results.
    Source: metric definitions and their sources are in docs/metrics.md.
    """
    for name in ("num_cases", "num_items", "target_offsets", "history_offsets"):
        if not hasattr(cases, name):
            raise checks.wrong_type("cases", "fastpop.data.Cases", cases)
    if isinstance(ks, (int, np.integer, str)):
        raise checks.wrong_type("ks", "a list of list lengths", ks)
    num_items = cases.num_items if num_items is None else num_items
    checks.number("num_items", num_items, least=1, integer=True)
    ks = tuple(sorted(set(ks)))
    if not ks:
        raise checks.wrong("ks", "at least one k", ks)
    for k in ks:
        checks.number("ks", k, least=1, integer=True)
    num_cases = int(cases.num_cases)
    if num_cases == 0:
        raise checks.wrong("cases", "at least one case", "=none")
    history = _csr("cases.history", cases.history_offsets, cases.history_item, num_cases, num_items)
    target = _csr("cases.target", cases.target_offsets, cases.target_item, num_cases, num_items)
    if candidates is None and (np.diff(target[0]) == 0).any():
        case = int((np.diff(target[0]) == 0).argmax())
        raise checks.wrong("cases", "at least one target in every case", f"=none in case {case}")
    allowed = None
    if candidates is not None:
        allowed = _csr("candidates", candidates[0], candidates[1], num_cases, num_items)
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
        checks.number("chunk_size", chunk_size, least=1, integer=True)

    # Distinct (case, item) pairs for ranking; the events themselves, repeats and all, for NLL.
    event_case = np.repeat(np.arange(num_cases), np.diff(target[0]))
    pair = np.unique(event_case * num_items + target[1])
    pair_case, pair_item = pair // num_items, pair % num_items
    pair_offsets = np.searchsorted(pair_case, np.arange(num_cases + 1))
    problem = Problem(
        num_cases, num_items, target, (pair_offsets, pair_item), history if mask_seen else None, allowed,
        min(ks[-1], num_items), logits)
    if not isinstance(score, DotScores) and not callable(score):
        score = _of_matrix(score, num_cases, num_items)
    if isinstance(score, DotScores):
        checks.shape("score.query", score.query, (num_cases, "D"))
        checks.shape("score.items", score.items, (num_items, "D"))
    if isinstance(score, DotScores) and allowed is None:
        found = streamed_positions(score, problem, chunk_size)
    else:
        found = dense_positions(score, problem, chunk_size, memory_limit, device)

    per_case = _metrics(pair_case, found.ahead, num_cases, ks)
    with np.errstate(invalid="ignore", divide="ignore"):
        missed = np.bincount(pair_case, found.ahead, num_cases) / np.diff(pair_offsets)  # a mean
        per_case["auc"] = np.where(found.others > 0, 1 - missed / found.others, np.nan)
    events = {"nll": np.diff(target[0])}
    event_nll = found.nll
    if event_nll is not None:
        total = np.bincount(event_case, event_nll, num_cases)
        per_case["nll"] = _ratio(total, events["nll"])

    shares: dict[str, float] = {}
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # name -> members among pairs, events
    if counts_V is not None:
        group_V = popularity_bias.item_groups(counts_V)
        for number, name in enumerate(GROUPS):
            parts[name] = group_V[pair_item] == number, group_V[target[1]] == number
    if not mask_seen:
        repeat = (_in_history(history, (pair_offsets, pair_item), num_items),
                  _in_history(history, target, num_items))
        parts["repeat"], parts["new"] = repeat, (~repeat[0], ~repeat[1])
    for name, (of_pairs, of_events) in parts.items():
        part = _metrics(pair_case[of_pairs], found.ahead[of_pairs], num_cases, ks)
        for k in ks:
            per_case[f"recall_{name}@{k}"] = part[f"recall@{k}"]
            per_case[f"ndcg_{name}@{k}"] = part[f"ndcg@{k}"]
        event_weight = weight_C[event_case]
        shares[f"target_share_{name}"] = float(
            (event_weight * of_events).sum() / event_weight.sum()
        )
        if event_nll is not None and name in ("repeat", "new"):
            size = np.bincount(event_case[of_events], minlength=num_cases)
            total = np.bincount(event_case[of_events], event_nll[of_events], num_cases)
            events[f"nll_{name}"] = size
            per_case[f"nll_{name}"] = _ratio(total, size)

    exposure, catalogue = {}, {}
    top = found.top
    for k in ks:
        exposure[k] = popularity_bias.exposure_counts(top[:, :k], num_items)
        catalogue[f"coverage@{k}"] = popularity_bias.coverage(exposure[k])
        if exposure[k].any():
            catalogue[f"gini@{k}"] = popularity_bias.gini(exposure[k])
        if counts_V is not None:
            per_case[f"arp@{k}"] = popularity_bias.average_popularity(top[:, :k], counts_V)
            per_case[f"aplt@{k}"] = popularity_bias.long_tail_share(top[:, :k], counts_V)
            per_case[f"novelty@{k}"] = popularity_bias.novelty(top[:, :k], counts_V)
            catalogue[f"popularity_correlation@{k}"] = popularity_bias.popularity_correlation(
                exposure[k], counts_V
            )

    metrics = {
        name: weighted_mean(value, weight_C * events.get(name, 1))
        for name, value in per_case.items()
    }
    if logits:
        metrics["perplexity"] = math.exp(metrics["nll"]) if metrics["nll"] < 709 else math.inf
    if found.pool is not None:
        metrics["pooled_auc"] = _auc(found.pool[0], np.isin(found.pool[1], pair))
    metrics |= catalogue | shares
    return Evaluation(
        metrics=metrics, per_case=per_case, ks=ks, events=events, case_weight=weight_C,
        exposure=exposure, cases_key=_key(num_items, target),
        rule=_rule(num_items, mask_seen, allowed is not None, logits, counts_V is not None),
    )


def _of_matrix(score: Any, num_cases: int, num_items: int) -> Callable[[slice], Any]:
    """Scores that stand in a [C, V] matrix."""
    matrix_CV = checks.array_like("score", score)
    checks.real_array("score", matrix_CV)
    checks.shape("score", matrix_CV, (num_cases, num_items))
    return lambda rows: matrix_CV[rows]


def _metrics(
    case: np.ndarray, ahead: np.ndarray, num_cases: int, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """Per-case values from `ahead`, the non-relevant items before each target (ties by halves)."""
    order = np.lexsort((ahead, case))
    case, ahead = case[order], ahead[order]
    size = np.bincount(case, minlength=num_cases)
    first = np.cumsum(size) - size
    nth = np.arange(len(case)) - first[case] + 1  # 1 for the best target of its case
    position = nth + ahead
    best = np.full(num_cases, np.nan)
    best[case[nth == 1]] = position[nth == 1]
    gain = 1 / np.log2(1 + position)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(2 + np.arange(size.max(initial=0))))])
    none = size == 0
    out: dict[str, np.ndarray] = {}
    for k in ks:
        hit = position < k + 1

        def total(value: np.ndarray, hit: np.ndarray = hit) -> np.ndarray:
            return np.bincount(case[hit], value[hit], num_cases)

        hits = total(np.ones(len(case)))
        short = np.minimum(size, k)
        out[f"hr@{k}"] = np.where(none, np.nan, hits > 0)
        out[f"recall@{k}"] = _ratio(hits, size)
        out[f"precision@{k}"] = np.where(none, np.nan, hits / k)
        out[f"ndcg@{k}"] = _ratio(total(gain), ideal[short])
        out[f"mrr@{k}"] = np.where(none, np.nan, np.where(best < k + 1, 1 / best, 0.0))
        out[f"map@{k}"] = _ratio(total(nth / position), short)
    out["rank"] = best
    return out


def _auc(score: np.ndarray, relevant: np.ndarray) -> float:
    """P(a relevant pair scores above another) + P(equal) / 2, from mid-ranks. NaN without both."""
    good, bad = int(relevant.sum()), int((~relevant).sum())
    if good == 0 or bad == 0:
        return math.nan
    rank = popularity_bias.mid_rank(score)
    return float((rank[relevant].sum() - good * (good + 1) / 2) / (good * bad))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _csr(
    argument: str, offsets: Any, item: Any, num_cases: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    offsets, item = (np.asarray(one) if isinstance(one, np.ndarray) else checks.int_array(argument, one)
                     for one in (offsets, item))
    if offsets.dtype.kind not in "iu" or item.dtype.kind not in "iu":
        raise checks.wrong_type(argument, "integer offsets and items", item)
    checks.shape(f"{argument} offsets", offsets, (num_cases + 1,))
    if offsets[0] != 0 or offsets[-1] != len(item) or (np.diff(offsets) < 0).any():
        raise checks.wrong(f"{argument} offsets", f"non-decreasing from 0 to {len(item)}", offsets)
    checks.ids_in_range(f"{argument} items", item, num_items)
    narrow = item.dtype.kind == "u" and item.dtype.itemsize < 8  # as an opened log holds them
    return offsets.astype(np.int64), item if narrow else item.astype(np.int64)


def _in_history(
    history: tuple[np.ndarray, np.ndarray], listed: tuple[np.ndarray, np.ndarray], num_items: int
) -> np.ndarray:
    """bool, aligned with listed[1]: whether the case's history has the item."""
    found = np.zeros(len(listed[1]), bool)
    for cases, _ in columns.user_pieces(history[0] + listed[0]):
        seen, asked = (
            np.repeat(np.arange(cases.stop - cases.start),
                      np.diff(offsets[cases.start : cases.stop + 1])) * num_items
            + item[offsets[cases.start] : offsets[cases.stop]]
            for offsets, item in (history, listed)
        )
        found[listed[0][cases.start] : listed[0][cases.stop]] = np.isin(asked, seen)
    return found


def _key(num_items: int, target: tuple[np.ndarray, np.ndarray]) -> str:
    digest = hashlib.blake2b(str(num_items).encode(), digest_size=16)
    for part in target:
        digest.update(np.ascontiguousarray(part, np.int64).tobytes())
    return digest.hexdigest()


def _rule(num_items: int, mask_seen: bool, listed: bool, logits: bool, grouped: bool) -> str:
    words = [
        "ranking of the given candidates and the targets" if listed
        else f"full ranking of {num_items:,} items",
        "seen items masked except the targets" if mask_seen else "seen items not masked",
        "position = 1 + greater + ties/2 among non-relevant items, hit when position < k + 1",
    ]
    if logits:
        words.append("NLL over the unmasked catalogue, mean over target events, nats")
    if grouped:
        words.append("head/mid/tail = items with the first 20/next 60/last 20 % of training events")
    return "; ".join(words)
