"""Scorers that a model has to beat: popularity, item Markov counts, EASE, item mean.

Each returns a `score` for `evaluate`: slice of case numbers -> [b, V] torch. At test time `log` is
what is known then (training and validation events), the same events that the histories hold.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import checks
from fastpop.data import columns
from fastpop.data.csr import Csr
from fastpop.evaluation.models import CaseScores
from fastpop.evaluation.popularity_bias import check_counts
from fastpop.evaluation.together import histories, seen_together


def popularity_scorer(counts: Any) -> CaseScores:
    """score = counts, the same for every case. [V] real >= 0."""
    counts_V = torch.as_tensor(check_counts(counts))

    def score(rows: slice) -> Tensor:
        return counts_V.expand(rows.stop - rows.start, -1)

    return CaseScores(score)


def item_mean_scorer(log: Any, value: Any) -> CaseScores:
    """score = mean of `value` (a rating, say) over an item's events; unseen items get the overall
    mean. value [N] real, aligned with log.item."""
    value_N = checks.float_array("value", value, 1)
    checks.shape("value", value_N, (len(log.item),))
    total_V = columns.bincount(log.item, log.num_items, value_N)
    size_V = columns.bincount(log.item, log.num_items)
    mean_V = np.full(log.num_items, value_N.mean())
    np.divide(total_V, size_V, out=mean_V, where=size_V > 0)
    mean = torch.as_tensor(mean_V)

    def score(rows: slice) -> Tensor:
        return mean.expand(rows.stop - rows.start, -1)

    return CaseScores(score)


def recency_scorer(
    log: Any,
    cases: Any,
    *,
    half_life: float | None = None,
    window: float | None = None,
    alpha: float | None = None,
) -> CaseScores:
    """What is popular when a case is asked: counts of the events of `log` before cases.time.

    half_life: seconds in which an event loses half of its weight. window: seconds after which it
    counts no more. One of them, or both. alpha: None scores by the counts; a number by
    log(counts + alpha), whose softmax is their smoothed distribution, so that it has an NLL.
    Raises: ValueError for a log or cases without times.
    Cost: O(N + b V) a chunk of b cases.
    """
    if log.time is None:
        raise checks.wrong("log", "events with times", text="a log without times")
    if cases.time is None:
        raise checks.wrong("cases", "times of the targets", text="cases without times")
    if half_life is None and window is None:
        raise checks.wrong("half_life, window", "at least one of them", text="neither")
    for name, value in (("half_life", half_life), ("window", window), ("alpha", alpha)):
        if value is not None and value != np.inf:
            checks.number(name, value, gt=0)
    order = np.argsort(log.time, kind="stable")
    time, item = np.asarray(log.time, float)[order], np.asarray(log.item)[order].astype(np.int64)

    def counted(events: slice, at: float) -> Any:
        age = at - time[events]
        weight = None if half_life is None else np.exp2(-age / half_life)
        return np.bincount(item[events], weight, log.num_items)

    def score(rows: slice) -> Tensor:
        asked = np.asarray(cases.time[rows], float)
        until = np.searchsorted(time, asked, "left")
        since = np.zeros_like(until) if window is None else np.searchsorted(time, asked - window, "left")
        counted_BV = np.empty((len(asked), log.num_items), np.float32)
        count_V = np.zeros(log.num_items)
        first = last = 0  # events first..last-1 are in count_V, as of `now`
        now = float(time[0]) if len(time) else 0.0
        for row in np.argsort(asked, kind="stable"):
            at = float(asked[row])
            if half_life is not None:
                count_V *= np.exp2((now - at) / half_life)
            now = max(now, at)
            if until[row] > last:
                count_V += counted(slice(last, until[row]), at)
                last = until[row]
            if since[row] > first:
                count_V -= counted(slice(first, since[row]), at)
                first = since[row]
            counted_BV[row] = count_V
        if alpha is not None:
            counted_BV = np.log(np.maximum(counted_BV, 0) + np.float32(alpha))
        return torch.from_numpy(counted_BV)

    return CaseScores(score)


def markov_scorer(log: Any, cases: Any) -> CaseScores:
    """score(c, i) = how often i came right after the last item of c's history, over all users,
    + count(i) / (largest count + 1), which orders equal step counts by popularity.

    Cases without history get popularity alone. O(N log N) to build, O(b V) a chunk.
    """
    _ordered(log)
    key, count = _steps(log)
    offsets = np.searchsorted(key // log.num_items, np.arange(log.num_items + 1))
    after, weight = key % log.num_items, torch.as_tensor(count, dtype=torch.float32)
    count_V = torch.as_tensor(columns.bincount(log.item, log.num_items)).float()
    popularity_V = count_V / (count_V.max() + 1)
    histories = Csr(cases.history_offsets, cases.history_item)

    def score(rows: slice) -> Tensor:
        out = popularity_V.repeat(rows.stop - rows.start, 1)
        for row, case in enumerate(range(rows.start, rows.stop)):
            history = histories.row(case)
            if len(history):
                last = history[-1]
                places = slice(int(offsets[last]), int(offsets[last + 1]))
                out[row, torch.as_tensor(after[places])] += weight[places]
        return out

    return CaseScores(score)


def ease_scorer(log: Any, cases: Any, *, l2: float = 500.0) -> CaseScores:
    """score = X B with B = I - P / diag(P), P = (X'X + l2 I)^-1; X binary, users x items.

    Closed form of the linear autoencoder with zero diagonal. Float32, V x V: 2 V^3 FLOPs and
    about 12 V^2 bytes, so for catalogues up to some ten thousand items.
    Source: Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, eq. 8.
    """
    checks.number("l2", l2, gt=0)
    gram_VV = seen_together(log)
    gram_VV.diagonal().add_(l2)
    weight_VV = torch.cholesky_inverse(torch.linalg.cholesky(gram_VV))
    weight_VV /= -weight_VV.diagonal().clone()
    weight_VV.diagonal().zero_()

    def score(rows: slice) -> Tensor:
        return histories(cases, rows, log.num_items) @ weight_VV

    return CaseScores(score)


def _steps(log: Any) -> tuple[np.ndarray, np.ndarray]:
    """(item * V + next item, ascending; how often), over the events of each user in order."""
    key = count = np.empty(0, np.int64)
    for some, at in columns.user_pieces(log.offsets):
        item = log.item[at].astype(np.int64)
        inside = np.ones(max(len(item) - 1, 0), bool)
        starts = log.offsets[some.start + 1 : some.stop] - at.start
        inside[starts[(starts > 0) & (starts < len(item))] - 1] = False  # no step between users
        step, times = np.unique((item[:-1] * log.num_items + item[1:])[inside], return_counts=True)
        key, back = np.unique(np.concatenate([key, step]), return_inverse=True)
        count = np.bincount(back, np.concatenate([count, times]), len(key)).astype(np.int64)
    return key, count


def _ordered(log: Any) -> None:
    if not getattr(log, "has_order", True):
        raise checks.wrong("log", "a log with a time or an order", text="one that has neither")
