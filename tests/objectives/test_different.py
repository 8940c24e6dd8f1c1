"""Different ids of a device that is not waited for: what is left out changes nothing but the rounding."""

import sys

import pytest
import torch
from helpers_losses import PLAIN, built, rows

from fastpop import registry, regularizers
from fastpop.objectives import candidates, different, shortlist

EXACT = {"rtol": 0, "atol": 1e-12}


def grads(value, *of):
    return [value.detach(), *torch.autograd.grad(value, of)]


def test_all_ids_in_order_with_those_that_come_again_marked():
    id_R = torch.tensor([7, 2, 7, 5, 2, 7])
    id_U, place_R, again_U = different.marked(id_R)
    assert id_U.tolist() == [2, 2, 5, 7, 7, 7]
    assert again_U.tolist() == [False, True, False, False, True, True]
    assert place_R.tolist() == [3, 0, 3, 2, 0, 3]
    once = different.different_ids(id_R)
    assert once.again_U is None
    assert torch.equal(once.id_U, id_U[~again_U])
    assert torch.equal(once.id_U[once.place_R], id_R)
    assert [len(one) for one in different.marked(id_R[:0])] == [0, 0, 0]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_shortlist_has_each_item_once_on_a_device_too(monkeypatch, sparse):
    query, items, pos_id = rows(12, 9, 6)
    assert len(pos_id.unique()) < 12
    query.requires_grad_()
    items.requires_grad_()
    terms = PLAIN | {
        "log_prior": torch.linspace(-3, -1, 9, dtype=torch.float64, requires_grad=True),
        "scale": torch.tensor(2.0, dtype=torch.float64, requires_grad=True),
        "row_weight": torch.arange(12.0),
    }
    of = query, items, terms["log_prior"], terms["scale"]
    loss = built("partitioned_softmax", 9, sparse=sparse)
    here = grads(loss(query, items, pos_id, **terms), *of)
    monkeypatch.setattr(shortlist, "different_ids", different.marked)
    there = grads(loss(query, items, pos_id, **terms), *of)
    for mine, theirs in zip(there, here):
        torch.testing.assert_close(mine.to_dense(), theirs.to_dense(), **EXACT)
    if sparse:  # no other row is touched
        assert set(there[2]._indices()[0].tolist()) == set(pos_id.tolist())


def test_simgcl_contrasts_each_item_once_on_a_device_too(monkeypatch):
    query, items, pos_id = rows(12, 9, 6)
    items.requires_grad_()
    module = registry.made("regularizer", regularizers.SimGCL(noise=0.0)).build(
        regularizers.RegularizerInputs(9, 6, 0, False)
    )
    here = grads(module(query, items, pos_id, None), items)
    monkeypatch.setattr(sys.modules[regularizers.contrast.__module__], "different_ids", different.marked)
    for mine, theirs in zip(grads(module(query, items, pos_id, None), items), here):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 5])
def test_a_square_without_its_diagonal(num_rows):
    square = torch.arange(num_rows**2).view(num_rows, num_rows)
    found = candidates.without_diagonal(square)
    assert found.tolist() == [
        [one for at, one in enumerate(row) if at != number] for number, row in enumerate(square.tolist())
    ]
