"""Exact ranks and log-likelihoods of held-out targets, seen items left out: what an evaluation needs."""

from functools import lru_cache, partial

import pytest
import torch
from measuring import DEVICE, judged
from shapes import TARGET_RANKS, TargetRanks

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS

ROWS = 64  # of the check against float64


@lru_cache(maxsize=1)
def arrays_of(shape: TargetRanks):
    """query [B, D], items [V, D], target [B], offsets [B + 1] and ids [M] of seen items."""
    generator = torch.Generator().manual_seed(0)
    query, items = (
        torch.randn(rows, shape.dim, generator=generator).to(DEVICE) for rows in (shape.rows, shape.items)
    )
    target = torch.randint(shape.items, (shape.rows,), generator=generator).to(DEVICE)
    seen = torch.randint(shape.items, (shape.rows * shape.seen,), generator=generator).to(DEVICE)
    offsets = torch.arange(0, shape.rows * shape.seen + 1, shape.seen, device=DEVICE)
    return query, items, target, offsets, seen


def counted(score, own):
    return (score > own).sum(1) + (score == own).sum(1) / 2


def log_sum(score):
    return score.logsumexp(1)


def dense(query, items, target, offsets, seen, *, rows, counted=counted, log_sum=log_sum):
    """(items above the target + half of those level with it [B], lse [B]), chunks of dense scores."""
    ahead, lse = [], []
    for first in range(0, len(query), rows):
        score = query[first : first + rows] @ items.T
        at = torch.arange(len(score), device=query.device)
        own = score.gather(1, target[first : first + rows, None])
        lse.append(log_sum(score))
        ends = offsets[first : first + len(score) + 1]
        score[torch.repeat_interleave(at, ends.diff()), seen[int(ends[0]) : int(ends[-1])]] = -torch.inf
        score[at, target[first : first + rows]] = -torch.inf
        ahead.append(counted(score, own))
    return torch.cat(ahead), torch.cat(lse)


def ours(query, items, target, offsets, seen, *, impl):
    places = torch.arange(len(query) + 1, device=query.device)
    found = ops.target_ranks(
        query, items, places, target, exclude_offsets=offsets, exclude_item=seen, impl=impl
    )
    return found.greater + found.equal / 2, found.lse


CONTENDERS = {
    **{f"fastpop {impl}": partial(ours, impl=impl) for impl in IMPLEMENTATIONS["target_ranks"]},
    "torch eager, 64 rows": partial(dense, rows=64),
    **{f"torch.compile, {rows} rows": partial(dense, rows=rows) for rows in (16, 64, 256)},
}


def check(found, query, items, target, offsets, seen) -> float:
    """Largest error of lse; a position may differ by items within rounding of the target's score."""
    ahead_B, lse_B = found
    query, items = query.double(), items.double()
    want_B, want_lse_B = dense(query, items, target, offsets, seen, rows=len(query))
    score = query @ items.T
    near_B = ((score - score.gather(1, target[:, None])).abs() < 1e-4).sum(1)
    assert ((ahead_B - want_B).abs() < near_B).all()
    error = (lse_B - want_lse_B).abs().max().item()
    assert error < 1e-4, error
    return error


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", TARGET_RANKS, ids=str)
def test_target_ranks(shape, contender, measure, request):
    inputs = arrays_of(shape)
    function = CONTENDERS[contender]
    if "compile" in contender:
        compiled = request.getfixturevalue("compiled")
        function = partial(function, counted=compiled(counted), log_sum=compiled(log_sum))
    query, items, target, offsets, seen = inputs
    few = query[:ROWS], items, target[:ROWS], offsets[: ROWS + 1], seen[: ROWS * shape.seen]
    with judged(contender):
        error = check(function(*few), *few)
    measure(
        contender,
        shape,
        lambda: function(*inputs),
        error=error,
        work=2 * shape.rows * shape.items * shape.dim,
        ceiling="gemm_float32",
    )
