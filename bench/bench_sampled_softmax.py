"""Sampled softmax, forward and backward with the table's gradient, shared negatives."""

from functools import partial

import pytest
import torch
from shapes import SAMPLED

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS


def inputs(shape, generator):
    return {
        "query": 0.3 * torch.randn(shape.rows, shape.dim, generator=generator),
        "items": 0.3 * torch.randn(shape.items, shape.dim, generator=generator),
        "pos_id": torch.randint(shape.items, (shape.rows,), generator=generator),
        "neg_id": torch.randint(shape.items, (shape.negatives,), generator=generator),
        "log_proposal": torch.randn(shape.items, generator=generator) - 10,
    }


def eager(query, items, pos_id, neg_id, log_proposal, *, sparse):
    """What a trainer writes without a fused op."""
    take = torch.nn.functional.embedding
    pos = (query * take(pos_id, items, sparse=sparse)).sum(1) - log_proposal[pos_id]
    neg = query @ take(neg_id, items, sparse=sparse).T - log_proposal[neg_id]
    return torch.logsumexp(torch.cat([pos[:, None], neg], 1), 1) - pos


def error_against_fp64(function, given) -> float:
    few = dict(given, query=given["query"][:64], pos_id=given["pos_id"][:64])
    touched, place = torch.unique(torch.cat([few["pos_id"], few["neg_id"]]), return_inverse=True)
    wide = {"query": few["query"].double(), "items": given["items"][touched].double(),
            "log_proposal": given["log_proposal"][touched].double(),
            "pos_id": place[:64], "neg_id": place[64:]}
    truth = eager(**wide, sparse=False)
    error = (function(**few).double() - truth).abs().max().item()
    assert error < 1e-4, error
    return error


CONTENDERS = {
    **{f"fastpop {impl}": partial(ops.sampled_softmax, sparse_grad=True, impl=impl)
       for impl in IMPLEMENTATIONS["sampled_softmax"]},
    "torch eager, sparse gradient": lambda **given: eager(**given, sparse=True),
    "torch eager, dense gradient": lambda **given: eager(**given, sparse=False),
    "torch.compile, dense gradient": "compile",
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", SAMPLED, ids=str)
def test_sampled_softmax(shape, contender, generator, measure):
    given = inputs(shape, generator)
    function = CONTENDERS[contender]
    if function == "compile":
        function = torch.compile(lambda **words: eager(**words, sparse=False))
    error = error_against_fp64(function, given)
    query, items = given["query"].requires_grad_(), given["items"].requires_grad_()

    def step():
        query.grad = items.grad = None
        function(**given).mean().backward()

    measure(contender, shape, step, error=error)
