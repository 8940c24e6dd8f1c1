"""Few ids of many items: a step goes over none of the others, with the gradients of the specification."""

import numpy as np
import pytest
import torch

from fastpop import _C, ops
from fastpop.kernels import native
from fastpop.ops import Draw
from fastpop.popularity import uniform

ITEMS = 200_000  # more than 400 for each id below: the ids are sorted, not marked


@pytest.mark.parametrize("num_items", [100, ITEMS, 2**31 - 1])
@pytest.mark.parametrize("spread", [5, None])
def test_ids_come_sorted_and_once(num_items, spread):
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, num_items if spread is None else spread, 70))
    index = _C.RowIndex(num_items=num_items, num_ids=0 if num_items == ITEMS else 70)
    for part in (ids[:30], ids[30:]):
        index.add(ids=native.address(part), num=len(part), threads=2)
    index.finish()
    found = torch.empty(len(index), dtype=torch.int64)
    index.write_ids(native.address(found))
    assert torch.equal(found, ids.unique())


def test_nothing_is_an_index_of_none():
    index = _C.RowIndex(num_items=ITEMS, num_ids=0)
    index.finish()
    assert len(index) == 0


@pytest.mark.parametrize("draws", [False, True])
def test_gradients_are_those_of_the_specification(draws):
    generator = torch.Generator().manual_seed(0)
    proposal = uniform(ITEMS)
    query = torch.randn(9, 6, generator=generator)
    items = torch.randn(ITEMS, 6, generator=generator)
    pos_id = torch.randint(ITEMS, (9,), generator=generator)
    pos_id[3] = pos_id[5]
    draw = Draw(proposal, 3, 4, 40)
    neg_id = draw if draws else draw.tensor(1, "cpu")[0]
    log_q = proposal.log_proposal_on("cpu")
    found = {}
    for impl in ("cpu", "reference"):
        q, e = query.clone().requires_grad_(), items.clone().requires_grad_()
        options = {
            "log_prior": log_q,
            "log_proposal": log_q,
            "sparse_grad": True,
            "impl": impl,
            "reduction": "mean",
        }
        loss = ops.sampled_softmax(q, e, pos_id, neg_id, **options)
        loss.backward()
        found[impl] = loss.detach(), q.grad, e.grad.coalesce().indices(), e.grad.coalesce().values()
    for got, expected in zip(found["cpu"], found["reference"], strict=True):
        torch.testing.assert_close(got, expected)
    assert len(found["cpu"][3]) == len(torch.cat([pos_id, draw.tensor(1, "cpu")[0].view(-1)]).unique())
