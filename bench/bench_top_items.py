"""Exact top items with seen items left out."""

from functools import lru_cache, partial

import pytest
import torch
from measuring import DEVICE, judged
from shapes import TOP_ITEMS, TopItems

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS

ROWS = 64  # of the check against float64


@lru_cache(maxsize=1)
def arrays_of(shape: TopItems):
    """query [B, D], items [V, D], offsets [B + 1] and ids [M] of seen items."""
    generator = torch.Generator().manual_seed(0)
    query, items = (
        torch.randn(rows, shape.dim, generator=generator).to(DEVICE) for rows in (shape.rows, shape.items)
    )
    seen = torch.randint(shape.items, (shape.rows * shape.seen,), generator=generator).to(DEVICE)
    offsets = torch.arange(0, shape.rows * shape.seen + 1, shape.seen, device=DEVICE)
    return query, items, offsets, seen


def matmul_topk(query, items, k, offsets, seen, *, rows):
    found = []
    for first in range(0, len(query), rows):
        score = query[first : first + rows] @ items.T
        ends = offsets[first : first + len(score) + 1]
        row = torch.repeat_interleave(torch.arange(len(score), device=query.device), ends.diff())
        score[row, seen[int(ends[0]) : int(ends[-1])]] = -torch.inf
        found.append(score.topk(k).indices)
    return torch.cat(found)


def ours(query, items, k, offsets, seen, *, impl):
    return ops.top_items(query, items, k, exclude_offsets=offsets, exclude_item=seen, impl=impl)[0]


CONTENDERS = {
    **{f"fastpop {impl}": partial(ours, impl=impl) for impl in IMPLEMENTATIONS["top_items"]},
    **{f"torch matmul and topk, {rows} rows": partial(matmul_topk, rows=rows) for rows in (64, 256, 1024)},
}


def check(item_BK, query, items, offsets, seen) -> float:
    """Largest amount by which a listed item's float64 score is below what its place could have."""
    score = query.double() @ items.double().T
    row = torch.repeat_interleave(torch.arange(len(query), device=DEVICE), offsets.diff())
    score[row, seen] = -torch.inf
    best = score.topk(item_BK.shape[1]).values
    error = (best - score.gather(1, item_BK)).abs().max().item()
    assert error < 1e-4, error
    assert all(len(row.unique()) == len(row) for row in item_BK)
    return error


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", TOP_ITEMS, ids=str)
def test_top_items(shape, contender, measure):
    query, items, offsets, seen = arrays_of(shape)
    function = CONTENDERS[contender]
    few = query[:ROWS], items, offsets[: ROWS + 1], seen[: ROWS * shape.seen]
    with judged(contender):
        error = check(function(*few[:2], shape.k, *few[2:]), *few)
    measure(
        contender,
        shape,
        lambda: function(query, items, shape.k, offsets, seen),
        error=error,
        work=2 * shape.rows * shape.items * shape.dim,
        ceiling="gemm_float32",
    )
