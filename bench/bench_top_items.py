"""Exact top items with seen items left out."""

from functools import partial

import pytest
import torch
from shapes import TOP_ITEMS

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS


def matmul_topk(query, items, k, offsets, seen, rows=256):
    found = []
    for first in range(0, len(query), rows):
        score = query[first : first + rows] @ items.T
        low, high = int(offsets[first]), int(offsets[min(first + rows, len(query))])
        row = torch.repeat_interleave(
            torch.arange(len(score)), offsets[first : first + len(score) + 1].diff())
        score[row, seen[low:high]] = -torch.inf
        found.append(score.topk(k).indices)
    return torch.cat(found)


def ours(query, items, k, offsets, seen, *, impl):
    return ops.top_items(query, items, k, exclude_offsets=offsets, exclude_item=seen, impl=impl)[0]


CONTENDERS = {
    **{f"fastpop {impl}": partial(ours, impl=impl) for impl in IMPLEMENTATIONS["top_items"]},
    "torch matmul and topk, chunked": matmul_topk,
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", TOP_ITEMS, ids=str)
def test_top_items(shape, contender, generator, measure):
    queries, items, dim, k = shape
    query, table = (torch.randn(n, dim, generator=generator) for n in (queries, items))
    seen = torch.randint(items, (queries * 20,), generator=generator)
    offsets = torch.arange(0, queries * 20 + 1, 20)
    function = CONTENDERS[contender]
    few = query[:32], table, k, offsets[:33], seen[:640]
    assert torch.equal(function(*few), matmul_topk(*few))
    measure(contender, shape, lambda: function(query, table, k, offsets, seen), rounds=3)
