"""Properties of sampled_softmax on a GPU, and, where there is none, of what its CUDA kernels compute: the
host emulation runs the same code, lanes in a loop, behind the same Python.
Values: test_sampled_softmax.py."""

import math

import numpy as np
import ops.test_sampled_softmax as contract
import pytest
import torch
from helpers_device import HALF_AND_SINGLE, HOST_AND_GPU, device_of, gpu
from helpers_softmax import in_dtype, loss_and_gradients
from helpers_softmax import on as moved

import fastpop
from fastpop import _C, ops, popularity
from fastpop.kernels import device as kernel_device
from fastpop.kernels.sampled_softmax import _cuda, reference

make = contract.make


def on(device, inputs):
    """Everything in float32, the floats that the op would make tensors of made here, once."""
    return moved(device, in_dtype(inputs, torch.float32))


@pytest.fixture(params=HOST_AND_GPU)
def device(request, monkeypatch):
    return device_of(request.param, monkeypatch)


def kernel_inputs(device, **options):
    """What the op hands to an implementation, for direct calls."""
    inputs = on(device, make(shape="rows", **options))
    num_rows, num_negatives = inputs["neg_id"].shape
    return reference.Inputs(
        query_BD=inputs["query"],
        item_VD=inputs["items"],
        pos_id_B=inputs["pos_id"],
        prior_weight=inputs["prior_weight"],
        scale=inputs["scale"],
        num_groups=num_rows,
        num_negatives=num_negatives,
        group_size=1,
        neg_id_GK=inputs["neg_id"],
        log_prior_V=inputs["log_prior"],
        log_proposal_V=inputs["log_proposal"],
        logq="standard",
    )


def gradients_of(inputs, needs=(True,) * 5):
    lse_B, pos_logit_B = _cuda.forward(inputs)
    ones_B = torch.ones_like(lse_B)
    return _cuda.backward(inputs, lse_B, pos_logit_B, ones_B, -ones_B, reference.Needs(*needs))


@pytest.mark.parametrize("upstream", [(0, 1), (1, 0), (0, 0)])
def test_each_upstream_gradient_alone(device, upstream):
    inputs = kernel_inputs(device)
    lse_B, pos_logit_B = _cuda.forward(inputs)
    d_lse_B, d_pos_B = (factor * torch.linspace(0, 1, 65, device=device) for factor in upstream)
    given = (inputs, lse_B, pos_logit_B, d_lse_B, d_pos_B, reference.Needs(*[True] * 5))
    got, expected = (module.backward(*given) for module in (_cuda, reference))
    torch.testing.assert_close(got.query_BD, expected.query_BD)
    torch.testing.assert_close(got.scale, expected.scale)
    torch.testing.assert_close(got.prior_weight, expected.prior_weight.to(got.prior_weight.dtype))
    for one, other in zip(got[2:4], expected[2:4]):
        tables = [
            torch.zeros(97, *rows.shape[1:], device=device).index_add_(0, ids, rows.float())
            for ids, rows in ((got.id_n, one), (expected.id_n, other))
        ]
        torch.testing.assert_close(*tables)


@pytest.mark.parametrize("fixed_rows", [True, False])
def test_opcheck(device, fixed_rows):
    inputs = kernel_inputs(device)
    options = (-100, "cuda", False, fixed_rows)
    lse_B, pos_logit_B = _cuda.forward(inputs)
    torch.library.opcheck(torch.ops.fastpop.sampled_softmax_forward.default, (*inputs, *options))
    torch.library.opcheck(
        torch.ops.fastpop.sampled_softmax_backward.default,
        (*inputs, *options, lse_B, pos_logit_B, torch.ones_like(lse_B), torch.ones_like(lse_B), 0b11111),
    )


def test_padding_repeats_the_last_id_with_zeros(device):
    """[33 of 97 items named]: min(B + G K, V) rows, of which the different ids come first."""
    inputs = kernel_inputs(device)
    inputs.neg_id_GK[:] = inputs.neg_id_GK % 20
    inputs.pos_id_B[:] = inputs.pos_id_B % 30
    grads = gradients_of(inputs)
    touched = torch.cat([inputs.pos_id_B, inputs.neg_id_GK.reshape(-1)]).unique()
    assert len(touched) < len(grads.id_n) == 97
    assert torch.equal(grads.id_n[: len(touched)], touched)
    assert (grads.id_n[len(touched) :] == touched[-1]).all()
    assert (grads.item_nD[len(touched) :] == 0).all()
    assert (grads.log_prior_n[len(touched) :] == 0).all()
    assert (grads.item_nD[: len(touched)] != 0).any(1).all()


def test_only_what_is_needed_is_computed(device):
    inputs = kernel_inputs(device)
    everything = gradients_of(inputs)
    for at, name in enumerate(("query_BD", "item_nD", "log_prior_n", "prior_weight", "scale")):
        grads = gradients_of(inputs, [i == at for i in range(5)])
        for other in ("query_BD", "item_nD", "log_prior_n", "prior_weight", "scale"):
            if other == name:
                assert torch.equal(getattr(grads, name), getattr(everything, name))
            else:
                assert getattr(grads, other) is None


def test_bitwise_repeatable(device):
    inputs = kernel_inputs(device, rows=300, negatives=100)
    first, second = gradients_of(inputs), gradients_of(inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_an_id_out_of_range_is_seen_in_the_loss_and_nowhere_else(device):
    """The public function checks ids on the CPU, on CUDA when asked; the kernel reads no such row."""
    inputs = kernel_inputs(device)
    clean_lse_B, _ = _cuda.forward(inputs)
    clean = gradients_of(inputs)
    inputs.neg_id_GK[3, 5] = 97
    inputs.neg_id_GK[4, 0] = -1
    inputs.pos_id_B[5] = 2**40
    lse_B, _ = _cuda.forward(inputs)
    bad = torch.tensor([3, 4, 5], device=device)
    assert torch.isnan(lse_B[bad]).all()
    rest = torch.ones(65, dtype=torch.bool, device=device)
    rest[bad] = False
    assert torch.equal(lse_B[rest], clean_lse_B[rest])
    grads = gradients_of(inputs)
    assert (grads.query_BD[bad] == 0).all()
    assert torch.equal(grads.query_BD[rest], clean.query_BD[rest])
    assert torch.isfinite(grads.item_nD).all()
    assert int(grads.id_n.min()) >= 0
    assert int(grads.id_n.max()) < 97


def test_a_row_that_is_not_finite_gives_no_gradient_to_the_table(device):
    inputs = kernel_inputs(device)
    inputs.query_BD[2, 0] = math.inf
    inputs.query_BD[6, 1] = math.nan
    grads = gradients_of(inputs)
    assert torch.isfinite(grads.item_nD).all()
    assert torch.isfinite(grads.scale)


def test_ids_above_two_to_the_24_and_offsets_above_two_to_the_31(device):
    num_items, dim = 2**24 + 64, 136
    zeros = torch.from_numpy(np.zeros((num_items, dim), np.float16))  # pages nobody writes cost nothing
    zeros[-1, 0], zeros[-2, 0] = 3.0, -1.0
    items = zeros.to(device).requires_grad_()
    query = torch.zeros(1, dim, device=device)
    query[0, 0] = 1
    last = torch.tensor([num_items - 1], device=device)
    loss = ops.sampled_softmax(
        query, items, last, last[None] - 1, logq="none", impl="cuda", reduction="sum", sparse_grad=True
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-4)), abs=1e-6)
    loss.backward()
    assert items.grad._indices()[0].tolist() == [num_items - 2, num_items - 1]


def test_seed_and_step_are_read_where_they_lie(device):
    """A captured graph replays with another step when the tensor has changed."""
    proposal = popularity.power(np.arange(1, 98), 0.5)
    inputs = on(device, make(rows=40))
    counter_2 = fastpop.Draw(proposal, 2**63 + 5, 7, 50, 1).counter_on(device).clone()
    drawn = kernel_inputs(device, rows=40)._replace(
        neg_id_GK=None,
        table_V2=proposal.table_on(device),
        counter_2=counter_2,
        num_groups=40,
        num_negatives=50,
        query_BD=inputs["query"],
        item_VD=inputs["items"],
        pos_id_B=inputs["pos_id"],
    )
    for step in (7, 2**40 + 1):
        counter_2[1] = step
        neg_id = torch.from_numpy(fastpop.Draw(proposal, 2**63 + 5, step, 50, 1).ids(40)).to(device)
        given = drawn._replace(neg_id_GK=neg_id, table_V2=None, counter_2=None)
        for one, other in zip(_cuda.forward(drawn), _cuda.forward(given)):
            assert torch.equal(one, other)
        for one, other in zip(gradients_of(drawn), gradients_of(given)):
            assert torch.equal(one, other)


@pytest.mark.parametrize("layout", ["transposed", "every second column", "rows apart", "off by 4 bytes"])
def test_any_layout_of_the_table(device, layout):
    inputs = kernel_inputs(device, dim=32)
    items = inputs.item_VD
    laid_out = {
        "transposed": lambda: items.T.contiguous().T,
        "every second column": lambda: items.repeat_interleave(2, 1)[:, ::2],
        "rows apart": lambda: torch.cat([items, items], 1)[:, :32],
        "off by 4 bytes": lambda: torch.cat([items.new_zeros(1), items.reshape(-1)])[1:].view(97, 32),
    }[layout]()
    assert torch.equal(laid_out, items)
    there = inputs._replace(item_VD=laid_out)
    for one, other in zip(_cuda.forward(inputs), _cuda.forward(there)):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    for one, other in zip(gradients_of(inputs), gradients_of(there)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_mixed_dtypes(device):
    inputs = on(device, make(shape="rows"))
    plain = ops.sampled_softmax(**inputs, impl="reference")
    for query_dtype in HALF_AND_SINGLE:
        for item_dtype in HALF_AND_SINGLE:
            mixed = inputs | {
                "query": inputs["query"].to(query_dtype),
                "items": inputs["items"].to(item_dtype),
            }
            rounded = mixed | {"query": mixed["query"].float(), "items": mixed["items"].float()}
            got = ops.sampled_softmax(**mixed, impl="cuda")
            torch.testing.assert_close(got, ops.sampled_softmax(**rounded, impl="reference"))
            assert got.shape == plain.shape


def test_rows_of_one_key_are_one_item(device):
    inputs = on(device, make(shape="rows", dim=8))
    neg_id = torch.randint(5, (65, 33), device=device)
    words = {
        "pos_id": neg_id[:, 0].contiguous(),
        "group_size": 1,
        "neg_id": neg_id,
        "logq": "none",
        "accidental_hits": "drop",
    }
    given = (inputs["query"], inputs["items"][words["pos_id"]], inputs["items"][neg_id])
    got, expected = (ops.gathered_softmax(*given, **words, impl=impl) for impl in ("cuda", "reference"))
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(
        got, ops.gathered_softmax(*given, **words | {"accidental_hits": "keep"}, impl="cuda")
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {
                "query": torch.zeros(65, 24, dtype=torch.float64),
                "items": torch.zeros(97, 24, dtype=torch.float64),
            },
            "cuda: query is float64, these kernels compute in float32",
        ),
        (
            {"neg_id": torch.zeros(33, dtype=torch.int64)},
            "cuda: negatives shared by 65 rows, more than 8; impl='triton' computes these on tensor cores",
        ),
        (
            {"query": torch.zeros(65, 1025), "items": torch.zeros(97, 1025)},
            "cuda: query has 1025 dimensions, these kernels take up to 1024",
        ),
    ],
)
def test_what_it_does_not_take_is_refused_with_the_reason(device, change, reason):
    inputs = on(device, make(shape="rows")) | moved(device, change)
    with pytest.raises(NotImplementedError) as caught:
        ops.sampled_softmax(**inputs, impl="cuda")
    assert reason in str(caught.value)


def test_tensors_on_the_cpu_are_refused():
    reason = "on cpu, not on a CUDA device" if _C.has_cuda else "built without CUDA"
    with pytest.raises(NotImplementedError, match=reason):
        ops.sampled_softmax(**on("cpu", make(shape="rows")), impl="cuda")
    assert kernel_device.where == "cuda"


@pytest.mark.gpu
def test_nothing_waits_for_the_device_and_a_graph_captures_it():
    device = gpu()
    proposal = popularity.power(np.arange(1, 98), 0.5)
    counter_2 = fastpop.Draw(proposal, 3, 7, 50, 1).counter_on(device).clone()
    inputs = kernel_inputs(device)._replace(
        neg_id_GK=None, table_V2=proposal.table_on(device), counter_2=counter_2, num_negatives=50
    )
    expected = [*_cuda.forward(inputs), *gradients_of(inputs)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients_of(inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    counter_2[1] = 8
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = [*_cuda.forward(inputs), *gradients_of(inputs)]
    counter_2[1] = 7
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected))


@pytest.mark.gpu
def test_what_the_gpu_computes_is_what_the_host_emulation_computes(monkeypatch):
    """Sums have the same order on both; exp and log differ by an ulp or two, FMA by less."""
    inputs = kernel_inputs(gpu(), rows=200, dim=64, negatives=100)
    there = [*_cuda.forward(inputs), *gradients_of(inputs)]
    monkeypatch.setattr(kernel_device, "where", "cpu")
    inputs = kernel_inputs("cpu", rows=200, dim=64, negatives=100)
    here = [*_cuda.forward(inputs), *gradients_of(inputs)]
    for one, other in zip(there, here):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-6)


def test_the_log_sum_exp_comes_with_its_gradient(device):
    inputs = on(device, make(shape="rows"))

    def z_loss(impl, **given):
        loss, lse = ops.sampled_softmax(**given, return_lse=True, impl=impl)
        return loss + 1e-2 * lse.square()

    wanted = ("query", "items", "log_prior")
    upstream = {
        impl: loss_and_gradients(
            lambda **given: z_loss(impl, **moved(device, given)).cpu(),  # noqa: B023
            moved("cpu", inputs),
            wanted,
        )
        for impl in ("cuda", "reference")
    }
    torch.testing.assert_close(upstream["cuda"], upstream["reference"])
