"""Shared draws that repeat each other are one candidate in Triton: test_triton.py runs this file under the
interpreter. Fresh memory is NaN here, so that nothing unwritten can be read unnoticed."""

import importlib

import numpy as np
import pytest
import torch

import fastpop
from fastpop import ops, popularity
from fastpop.kernels.sampled_softmax import _triton, _triton_pack
from fastpop.kernels.sampled_softmax.reference import Inputs

ITEMS, DIM = 97, 24
WEIGHTS = {
    "popular": np.arange(1.0, ITEMS + 1) ** 3,
    "one item": np.eye(ITEMS)[5] + 1e-8,
    "two items": np.eye(ITEMS)[5] + np.eye(ITEMS)[96] + 1e-8,
    "even": np.ones(ITEMS),
}


@pytest.fixture(autouse=True)
def fresh_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def merging(monkeypatch):
    """Whatever the sizes; gives the counts of candidates that were packed."""
    op = importlib.import_module("fastpop.ops.sampled_softmax")
    monkeypatch.setattr(op, "LEAST_SAVED", dict.fromkeys((2, 4, 8), 0))
    counts, real = [], _triton.pack

    def packed(*given, **named):
        found = real(*given, **named)
        counts.append(None if found.num_different is None else int(found.num_different))
        return found

    monkeypatch.setattr(_triton, "pack", packed)
    return counts


def found(impl, dtype, draw, rows=70, **options):
    """The loss, and the gradients of query, items, log p, its weight and the scale."""
    generator = torch.Generator().manual_seed(0)
    query, items = (0.4 * torch.randn(n, DIM, generator=generator).double() for n in (rows, ITEMS))
    pos_id = torch.randint(ITEMS, (rows,), generator=generator)
    log_prior = torch.randn(ITEMS, generator=generator, dtype=torch.float64)
    log_prior[-2] = -torch.inf
    weight, scale = torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)
    query, items = query.to(torch.bfloat16).double(), items.to(torch.bfloat16).double()
    given = [one.to(dtype).requires_grad_() for one in (query, items)]
    wide = torch.promote_types(dtype, torch.float32)
    given += [one.to(wide).requires_grad_() for one in (log_prior, weight, scale)]
    query, items, *others = given
    options |= dict(zip(("log_prior", "prior_weight", "scale"), others))
    pos_id[pos_id == ITEMS - 2] = 0
    loss = ops.sampled_softmax(query, items, pos_id, draw, impl=impl, **options)
    upstream = torch.linspace(0.5, 1.5, loss.numel(), dtype=loss.dtype).view(loss.shape)
    return [loss.detach(), *torch.autograd.grad(loss, given, upstream)]


def distinct_of(draw):
    return len(set(draw.ids(1)[0].tolist()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    "options",
    [
        {"accidental_hits": "drop", "sparse_grad": True},
        {"logq": "corrected", "reduction": "mean"},
        {"logq": "none", "reduction": "sum"},
    ],
    ids=str,
)
def test_values_and_gradients_are_those_of_every_draw(merging, options, weights, dtype):
    draw = fastpop.Draw(popularity.Proposal.from_weights(WEIGHTS[weights]), 1, 4, 130)
    expected = found("reference", torch.float64, draw, **options)
    merging.clear()
    got = found("triton", dtype, draw, **options)
    assert set(merging) == {distinct_of(draw)}
    exact = 2e-5 if dtype == torch.float32 else 2e-2
    for one, want in zip(got, expected):
        if one.is_sparse:
            ids = one._indices()[0]
            assert (ids[1:] >= ids[:-1]).all()
            assert set(ids.tolist()) == set(want.coalesce().indices()[0].tolist())
        one, want = one.to_dense().double(), want.to_dense()
        assert torch.isfinite(one).all()
        assert (one - want).abs().max() <= exact * max(want.abs().max(), 1)


@pytest.mark.parametrize("draws", [1, 32, 33, 255, 256, 257, 1100])
def test_ids_in_order_their_places_and_how_many_there_are(draws):
    draw = fastpop.Draw(popularity.power(WEIGHTS["popular"], 0.5), 3, 9, draws)
    query = torch.zeros(1, DIM)
    inputs = Inputs(
        query,
        torch.zeros(ITEMS, DIM),
        torch.zeros(1, dtype=torch.int64),
        torch.ones(()),
        torch.ones(()),
        1,
        draws,
        1,
        table_V2=draw.proposal.table_on("cpu"),
        counter_2=draw.counter_on("cpu"),
        merge_repeats=True,
    )
    assert _triton_pack.merges(inputs)
    id_K, first_K, count = _triton_pack.merged(inputs)
    ids, first = np.unique(np.sort(draw.ids(1)[0]), return_index=True)
    assert count.tolist() == [len(ids)]
    assert id_K.tolist() == sorted(draw.ids(1)[0].tolist())
    assert first_K[: len(ids) + 1].tolist() == [*first.tolist(), draws]
    changes = {"num_groups": 2, "merge_repeats": False, "table_V2": None, "exclude_diagonal": True}
    for name, other in changes.items():
        assert not _triton_pack.merges(inputs._replace(**{name: other}))


def test_bitwise_repeatable_and_without_rows(merging):
    draw = fastpop.Draw(popularity.power(WEIGHTS["popular"]), 1, 4, 130)
    for one, again in zip(*(found("triton", torch.float32, draw, reduction="sum") for _ in range(2))):
        assert torch.equal(one, again)
    nothing = found("triton", torch.float32, draw, rows=0, reduction="sum")
    assert nothing[0] == 0
    assert not nothing[2].any()
