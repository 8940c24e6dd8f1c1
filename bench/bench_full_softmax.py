"""Full softmax with log p, forward and backward."""

from functools import partial

import pytest
import torch
from shapes import FULL

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS


def eager(query, items, pos_id, log_prior):
    return torch.nn.functional.cross_entropy(query @ items.T + log_prior, pos_id, reduction="none")


CONTENDERS = {
    **{f"fastpop {impl}": partial(ops.full_softmax, impl=impl)
       for impl in IMPLEMENTATIONS["full_softmax"]},
    "torch eager": eager,
    "torch.compile": "compile",
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", FULL, ids=str)
def test_full_softmax(shape, contender, generator, measure):
    given = {
        "query": 0.3 * torch.randn(shape.rows, shape.dim, generator=generator),
        "items": 0.3 * torch.randn(shape.items, shape.dim, generator=generator),
        "pos_id": torch.randint(shape.items, (shape.rows,), generator=generator),
        "log_prior": torch.randn(shape.items, generator=generator) - 10,
    }
    function = CONTENDERS[contender]
    if function == "compile":
        function = torch.compile(eager)
    few = dict(given, query=given["query"][:64], pos_id=given["pos_id"][:64])
    wide = {name: value if name == "pos_id" else value.double() for name, value in few.items()}
    error = (function(**few).double() - eager(**wide)).abs().max().item()
    assert error < 1e-4, error
    query, items = given["query"].requires_grad_(), given["items"].requires_grad_()

    def step():
        query.grad = items.grad = None
        function(**given).mean().backward()

    measure(contender, shape, step, rounds=3, error=error)
