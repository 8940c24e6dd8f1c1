"""Where the targets of cases stand: from dense scores in chunks, or streamed over the catalogue."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import bars, checks, ops
from fastpop.data import columns
from fastpop.data.csr import Csr
from fastpop.evaluation.dot_scores import DotScores
from fastpop.ops.target_ranks import ranks_or_nan
from fastpop.ops.top_items import best_columns

# A float32 score, its masked copy, the exponentials of the NLL, three masks, rounded up.
_BYTES_PER_SCORE = 24
MEMORY = 256 << 20  # bytes of scores that are written down at once
# Scores of a chunk that are not written down: about a second's work.
_STREAMED_SCORES = 1 << 31


@dataclass(frozen=True)
class Problem:
    """What is ranked: C cases over V items."""

    num_cases: int
    num_items: int
    target: Csr  # the events, repeats and all
    pair: Csr  # the distinct targets of each case, ascending
    seen: Csr | None  # left out of the ranking, but for the targets
    allowed: Csr | None  # rank only these, and the targets
    k: int  # items a list
    logits: bool


@dataclass(frozen=True)
class Positions:
    """What metrics are made of.

    ahead: [pairs] other items before each target, ties by halves; targets of the case do not count.
    others: [C] how many items those are out of. top: [C, k] items, -1 where none is left.
    nll: [events] nats, or None. pool: (score, case * V + item) of everything listed, where lists are given.
    """

    ahead: np.ndarray
    others: np.ndarray
    top: np.ndarray
    nll: np.ndarray | None
    pool: tuple[np.ndarray, np.ndarray] | None


def dense_positions(
    score: Callable[[slice], Any], problem: Problem, chunk_size: int | None, memory_limit: int, device: str
) -> Positions:
    """From [b, V] scores of a chunk of cases at a time."""
    ahead, others = np.empty(len(problem.pair.item)), np.empty(problem.num_cases)
    nll = np.empty(len(problem.target.item)) if problem.logits else None
    pool_score: list[np.ndarray] = []
    pool_pair: list[np.ndarray] = []
    top = np.empty((problem.num_cases, problem.k), np.int64)
    chunks = scores_in_chunks(score, problem.num_cases, problem.num_items, chunk_size, memory_limit, device)
    for start, stop, score_BV in chunks:
        pairs, row, item = _rows(problem.pair, start, stop, device)
        rankable_BV = _rankable(score_BV, problem.seen, problem.allowed, row, item, start, stop)
        top[start:stop] = _top(score_BV, rankable_BV, problem.k)
        if problem.allowed is not None:
            in_row, in_item = rankable_BV.nonzero(as_tuple=True)
            pool_score.append(score_BV[in_row, in_item].cpu().numpy())
            pool_pair.append(((in_row + start) * problem.num_items + in_item).cpu().numpy())
        rankable_BV[row, item] = False
        others[start:stop] = _count(rankable_BV).cpu().numpy()
        ahead[pairs] = _ahead(score_BV, rankable_BV, row, score_BV[row, item]).cpu().numpy()
        if nll is not None:
            places, row, item = _rows(problem.target, start, stop, device)
            nll[places] = _nll(score_BV, row, item).cpu().numpy()
    pool = None
    if problem.allowed is not None:
        pool = np.concatenate(pool_score), np.concatenate(pool_pair)
    return Positions(ahead, others, top, nll, pool)


def scores_in_chunks(
    score: Callable[[slice], Any],
    num_cases: int,
    num_items: int,
    chunk_size: int | None = None,
    memory_limit: int = MEMORY,
    device: str = "cpu",
) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop, [b, V] scores) of all cases, as many at a time as fit the limit (bytes)."""
    if chunk_size is None:
        chunk_size = max(1, int(memory_limit) // (_BYTES_PER_SCORE * num_items))
    argument = getattr(score, "argument", "score(slice)")
    for start, stop in chunks(num_cases, chunk_size):
        yield start, stop, _scores(score(slice(start, stop)), argument, start, stop, num_items, device)


def streamed_positions(score: DotScores, problem: Problem, chunk_size: int | None) -> Positions:
    """From dot products that are compared where they are made: no [b, V] exists.

    Two passes over the catalogue: the lists (ops.top_items), and the targets' ranks with the
    log-sum-exp (ops.target_ranks).
    """
    num_cases, num_items = problem.num_cases, problem.num_items
    if chunk_size is None:
        chunk_size = streamed_chunk(num_items)
    ahead, own = (np.empty(len(problem.pair.item)) for _ in range(2))
    others, lse = np.empty(num_cases), np.empty(num_cases)
    top = np.empty((num_cases, problem.k), np.int64)
    for start, stop in chunks(num_cases, chunk_size):
        pair_key = problem.pair.part(start, stop).keys(num_items)
        left_out = pair_key  # of the ranks: a case's targets do not count against each other
        unlisted = pair_key[:0]  # of the lists, where targets stay
        if problem.seen is not None:
            seen_key = columns.distinct(problem.seen.part(start, stop).keys(num_items))
            left_out = columns.distinct(np.concatenate([seen_key, pair_key]))
            unlisted = np.setdiff1d(seen_key, pair_key, assume_unique=True)
        shape = (stop - start, num_items)
        others[start:stop] = num_items - np.bincount(left_out // num_items, minlength=stop - start)
        some = score.keywords(slice(start, stop))
        found = ranks_or_nan(
            **some, **_lists(pair_key, *shape, "target"), **_lists(left_out, *shape, "exclude")
        )
        bad = (~(found.lse < torch.inf)).nonzero()
        if bad.shape[0]:
            row = int(bad[0, 0])
            text = f"{found.lse[row].item()} in case {start + row}"
            raise checks.wrong("score", "real numbers or -inf", text=text)
        ids, _ = ops.top_items(k=problem.k, **some, **_lists(unlisted, *shape, "exclude"))
        top[start:stop] = ids.cpu().numpy()
        pairs = problem.pair.places(start, stop)
        ahead[pairs] = (found.greater.double() + found.equal.double() / 2).cpu().numpy()
        own[pairs] = found.score.cpu().numpy()
        lse[start:stop] = found.lse.cpu().numpy()
    nll = None
    if problem.logits:
        event_key = problem.target.keys(num_items)
        own = own[np.searchsorted(problem.pair.keys(num_items), event_key)]
        with np.errstate(invalid="ignore"):  # -inf - -inf, where everything is ruled out
            nll = np.where(own == -np.inf, np.inf, lse[event_key // num_items] - own)
    return Positions(ahead, others, top, nll, None)


def streamed_chunk(num_items: int) -> int:
    """Cases at once, where no scores are written down."""
    return max(256, _STREAMED_SCORES // num_items)


def chunks(num_cases: int, size: int, label: str = "ranking") -> Iterator[tuple[int, int]]:
    """Of the cases, with a bar that says how long the rest takes: a small one first, after which it knows."""
    first = max(1, size // 4)  # of fewer a case costs more
    with bars.progress_bar(num_cases, label, delay=2.0) as bar:
        for start in [*range(0, min(num_cases, 1)), *range(first, num_cases, size)]:
            stop = min(start + (size if start else first), num_cases)
            yield start, stop
            bar.update(stop - start)


def _lists(key: np.ndarray, num_cases: int, num_items: int, name: str) -> dict[str, Any]:
    """Ascending keys as the ops take lists."""
    offsets = np.searchsorted(key, np.arange(num_cases + 1) * num_items)
    return {f"{name}_offsets": offsets, f"{name}_item": key % num_items}


def _ahead(score_BV: Tensor, other_BV: Tensor, row: Tensor, own: Tensor) -> Tensor:
    """For each target: non-relevant items with a greater score, plus half of those that tie."""
    if len(row) == 0:
        return torch.empty(0, dtype=torch.float64)
    if len(row) > 16 * len(score_BV):
        # Many targets a case: sort each row once. No score is +inf, so what is left out goes last.
        sorted_BV = score_BV.masked_fill(~other_BV, torch.inf).sort(1).values
        size_B = _count(other_BV)
        out = torch.empty(len(row), dtype=torch.float64, device=row.device)
        edges = torch.searchsorted(row, torch.arange(len(score_BV) + 1, device=row.device)).tolist()
        for b, place in enumerate(map(slice, edges, edges[1:])):
            line = sorted_BV[b, : size_B[b]].contiguous()
            low = torch.searchsorted(line, own[place].contiguous())
            high = torch.searchsorted(line, own[place].contiguous(), right=True)
            out[place] = (size_B[b] - high).double() + (high - low).double() / 2
        return out
    out = torch.empty(len(row), dtype=torch.float64, device=row.device)
    # The n-th targets of all cases together: [b, V] work at a time.
    first = torch.searchsorted(row, row)
    nth = torch.arange(len(row), device=row.device) - first
    for n in range(int(nth.max()) + 1):
        chosen = (nth == n).nonzero()[:, 0]
        rows = row[chosen]
        whole = len(rows) == len(score_BV)
        score = score_BV if whole else score_BV[rows]
        other = other_BV if whole else other_BV[rows]
        mine = own[chosen, None]
        greater = _count((score > mine) & other)
        ties = _count((score == mine) & other)
        out[chosen] = greater.double() + ties.double() / 2
    return out


def _count(mask_BV: Tensor) -> Tensor:
    """mask_BV.sum(1); on the CPU by numpy, which counts booleans a hundred times faster."""
    if mask_BV.device.type != "cpu":
        return mask_BV.sum(1)
    return torch.tensor([np.count_nonzero(mask_V) for mask_V in mask_BV.numpy()])


def _nll(score_BV: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """logsumexp(scores) - own score, nats; +inf for a target that the scores rule out."""
    lse_B = torch.logsumexp(score_BV, dim=1).double()
    own = score_BV[row, item].double()
    return torch.where(own == -torch.inf, torch.inf, lse_B[row] - own)


def _top(score_BV: Tensor, rankable_BV: Tensor, k: int) -> np.ndarray:
    item_id, best = best_columns(score_BV.masked_fill(~rankable_BV, -torch.inf), k)
    return item_id.masked_fill_(best == -torch.inf, -1).cpu().numpy()


def _rankable(
    score_BV: Tensor, seen: Any, allowed: Any, row: Tensor, item: Tensor, start: int, stop: int
) -> Tensor:
    """True where an item takes part in the ranking of a case; targets always do."""
    rankable_BV = torch.full(score_BV.shape, allowed is None, device=score_BV.device)
    if allowed is not None:
        _, rows, items = _rows(allowed, start, stop, score_BV.device)
        rankable_BV[rows, items] = True
    if seen is not None:
        _, rows, items = _rows(seen, start, stop, score_BV.device)
        rankable_BV[rows, items] = False
    rankable_BV[row, item] = True
    return rankable_BV


def _scores(got: Any, argument: str, start: int, stop: int, num_items: int, device: Any) -> Tensor:
    """[b, V] float32 or float64 on `device`, free of NaN and +inf. argument: what gave them."""
    if not isinstance(got, (Tensor, np.ndarray)):
        raise checks.wrong_type(argument, "a torch tensor or numpy array", got)
    checks.shape(argument, got, (stop - start, num_items))
    if isinstance(got, np.ndarray) and not got.flags.writeable:
        got = got.copy()  # torch warns of arrays that it could write to and must not
    score_BV = torch.as_tensor(got).detach().to(device)
    if score_BV.dtype not in (torch.float32, torch.float64):
        half = score_BV.dtype in (torch.float16, torch.bfloat16)
        score_BV = score_BV.to(torch.float32 if half else torch.float64)
    largest_B = score_BV.amax(1)  # NaN wins
    bad = (largest_B.isnan() | (largest_B == torch.inf)).nonzero()
    if bad.shape[0]:
        row = int(bad[0, 0])
        text = f"{largest_B[row].item()} in case {start + row}"
        raise checks.wrong(argument, "real numbers or -inf", text=text)
    return score_BV


def _rows(rows: Csr, start: int, stop: int, device: Any) -> tuple[slice, Tensor, Tensor]:
    """(places in the flat array, row within the chunk, item) of the cases start..stop."""
    some = rows.part(start, stop)
    row, item = some.row_of_each(), some.item.astype(np.int64)
    return (
        rows.places(start, stop),
        torch.as_tensor(row, device=device),
        torch.as_tensor(item, device=device),
    )
