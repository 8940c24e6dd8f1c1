"""The contract of full_softmax: op x implementation x case x dtype against fp64."""

import math
from functools import cache, partial

import helpers_budget
import pytest
import torch
from helpers_device import HALF_AND_SINGLE, device_of, runs_of, unsupported_is_skipped
from helpers_softmax import (
    assert_as_exact_as_reference,
    dense_full_losses,
    implementations_here,
    in_dtype,
    loss_and_gradients,
    on_device,
)

from fastpop import ops
from fastpop.kernels.full_softmax import reference

IMPLS = implementations_here("full_softmax")


def make(rows=65, items=97, dim=24, *, seed=0, spread=0.4, **options):
    generator = torch.Generator().manual_seed(seed)
    prior = torch.rand(items, generator=generator, dtype=torch.float64) + 0.01
    return {
        "query": spread * torch.randn(rows, dim, generator=generator, dtype=torch.float64),
        "items": spread * torch.randn(items, dim, generator=generator, dtype=torch.float64),
        "pos_id": torch.randint(items, (rows,), generator=generator),
        "log_prior": (prior / prior.sum()).log(),
        "scale": torch.tensor(1.3, dtype=torch.float64),
        "prior_weight": torch.tensor(0.7, dtype=torch.float64),
        **options,
    }


def with_removed_items():
    inputs = make()
    inputs["log_prior"][::5] = -math.inf
    inputs["items"][::5] = math.nan  # what the rows of removed items hold does not matter
    inputs["pos_id"] = (inputs["pos_id"] // 5 * 5 + 1).clamp(max=96)
    inputs["pos_id"][3] = 10
    return inputs


def some_ignored():
    inputs = make()
    inputs["pos_id"][::3] = -100
    return inputs


def non_contiguous():
    inputs = make()
    inputs["query"] = inputs["query"].repeat(1, 2)[:, ::2]
    inputs["items"] = inputs["items"].T.contiguous().T
    inputs["pos_id"] = inputs["pos_id"].repeat_interleave(2)[::2]
    inputs["log_prior"] = inputs["log_prior"].repeat_interleave(2)[::2]
    return inputs


CASES = {
    "tile exact": lambda: make(64, 128, 32),
    "ragged": make,
    "one item": lambda: make(items=1),
    "empty batch": lambda: make(rows=0),
    "some rows ignored": some_ignored,
    "all rows ignored": lambda: make() | {"pos_id": torch.full((65,), -100)},
    "removed items, one of them a positive": with_removed_items,
    "a negative weight removes the same items": lambda: (
        with_removed_items() | {"prior_weight": torch.tensor(-0.7, dtype=torch.float64)}
    ),
    "no prior": lambda: make() | {"log_prior": None, "prior_weight": 1.0},
    "label smoothing": lambda: make(label_smoothing=0.1),
    "label smoothing with removed items": lambda: (
        with_removed_items() | {"label_smoothing": 0.1, "pos_id": torch.full((65,), 1)}
    ),
    "chunks of items, blocks of rows": lambda: make(150, 1300, 40),
    "rows in blocks: they pass 8 MiB": lambda: make(700, 60, 2000, spread=0.1),
    "one row, one dimension": lambda: make(1, 700, 1),
    "non-contiguous inputs": non_contiguous,
    "logits of 80": lambda: make(spread=4.0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("impl", "dtype", "where"), runs_of("full_softmax"), ids=str)
def test_values_and_gradients(monkeypatch, impl, dtype, where, case):
    device = device_of(where, monkeypatch)
    with unsupported_is_skipped("full_softmax", impl):
        check_contract(impl, dtype, case, device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_backward_that_is_wrong_is_noticed(dtype):
    """By every case whose gradients it changes at all."""
    noticed = helpers_budget.noticed_by(CASES, dtype, dense_full_losses, helpers_budget.full)
    assert min(count for name, count in noticed.items() if "log Q" not in name) >= 12


@pytest.mark.parametrize("threads", [1, 3])
def test_every_path_of_the_processor_on_any_number_of_threads(path, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for case in CASES:
            for dtype in HALF_AND_SINGLE:
                check_contract("cpu", dtype, case)
    finally:
        torch.set_num_threads(before)


def wide_of(dtype):
    return dtype if dtype == torch.float64 else torch.float32


@cache
def question(dtype, case):
    """A case's inputs, rows at dtype, and those that have gradients."""
    inputs = {
        name: (
            value.to(dtype if name in ("query", "items") else wide_of(dtype))
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else value
        )
        for name, value in CASES[case]().items()
    }
    names = ("query", "items", "log_prior", "scale", "prior_weight")
    return inputs, tuple(name for name in names if isinstance(inputs[name], torch.Tensor))


@cache
def answers(dtype, case):
    """Losses in float64, plain torch's, and what gradients may be off by: once for all implementations,
    paths and numbers of threads."""
    inputs, wanted = question(dtype, case)
    truth, truth_grads = loss_and_gradients(dense_full_losses, in_dtype(inputs, torch.float64), wanted)
    plain, plain_grads = loss_and_gradients(dense_full_losses, in_dtype(inputs, wide_of(dtype)), wanted)
    bound = running_bounds(inputs, truth) if len(truth) else {}
    return truth, plain, helpers_budget.Budget(plain_grads, truth_grads, bound)


def check_contract(impl, dtype, case, device="cpu"):
    inputs, wanted = question(dtype, case)
    wide = wide_of(dtype)
    op = on_device(device, partial(ops.full_softmax, impl=impl))
    got, got_grads = loss_and_gradients(op, inputs, wanted)
    truth, plain, budget = answers(dtype, case)
    assert got.dtype == wide
    if len(got) == 0:
        return
    assert_as_exact_as_reference(got, plain, truth, wide, "loss", 100.0 if case == "logits of 80" else 10.0)
    dtypes = {name: inputs[name].dtype for name in wanted}
    budget.check(got_grads, dtypes)
    # Gradients of rows alone may be made another way.
    budget.check(loss_and_gradients(op, inputs, ("query", "items"))[1], dtypes)


def running_bounds(inputs, loss):
    return helpers_budget.gradients(helpers_budget.full(inputs), inputs, loss, absolute=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_equals_torch_cross_entropy(smoothing):
    inputs = make()
    logit = 1.3 * inputs["query"] @ inputs["items"].T + 0.7 * inputs["log_prior"]
    expected = torch.nn.functional.cross_entropy(logit, inputs["pos_id"], label_smoothing=smoothing)
    got = ops.full_softmax(**inputs, label_smoothing=smoothing, reduction="mean")
    torch.testing.assert_close(got, expected)


def test_tiles_change_nothing(monkeypatch):
    inputs, wanted = make(), ("query", "items", "log_prior", "scale", "prior_weight")
    whole, whole_grads = loss_and_gradients(ops.full_softmax, inputs, wanted)
    monkeypatch.setattr(reference, "TILE_NUMBERS", 200)
    tiled, tiled_grads = loss_and_gradients(ops.full_softmax, inputs, wanted)
    torch.testing.assert_close(tiled, whole, rtol=1e-13, atol=1e-13)
    for name in wanted:
        torch.testing.assert_close(tiled_grads[name], whole_grads[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("frozen", ["query", "items", "log_prior", "scale", "prior_weight"])
def test_each_input_frozen_in_turn_leaves_the_others_their_gradients(impl, frozen):
    inputs = make() if impl == "reference" else in_dtype(make(), torch.float32)
    names = ("query", "items", "log_prior", "scale", "prior_weight")

    def op(**given):
        return ops.full_softmax(**given, impl=impl)

    _, everything = loss_and_gradients(op, inputs, names)
    others = tuple(name for name in names if name != frozen)
    _, some = loss_and_gradients(op, inputs, others)
    for name in others:
        torch.testing.assert_close(some[name], everything[name], rtol=0, atol=0)


# A kernel on a device cannot raise without making the host wait.
@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "triton"])
def test_a_bad_prior_is_an_error(impl):
    inputs = in_dtype(make(), torch.float32)
    inputs["log_prior"][11] = math.nan
    with pytest.raises(ValueError, match=r"log_prior: .* none NaN; got nan at position 11"):
        ops.full_softmax(**inputs, impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
def test_the_log_sum_exp_comes_with_its_gradient(impl):
    inputs = in_dtype(make(), torch.float32)
    query, dense = (inputs["query"].clone().requires_grad_() for _ in range(2))
    loss, lse = ops.full_softmax(**inputs | {"query": query}, reduction="mean", return_lse=True, impl=impl)
    (loss + 1e-2 * lse.square().mean()).backward()
    logit = 1.3 * dense @ inputs["items"].T + 0.7 * inputs["log_prior"]
    expected = torch.nn.functional.cross_entropy(logit, inputs["pos_id"])
    (expected + 1e-2 * logit.logsumexp(1).square().mean()).backward()
    torch.testing.assert_close(query.grad, dense.grad)


def test_probabilities_sum_to_one():
    inputs = make(rows=3, items=20)
    losses = torch.stack([ops.full_softmax(**inputs | {"pos_id": torch.full((3,), i)}) for i in range(20)])
    torch.testing.assert_close((-losses).exp().sum(0), torch.ones(3, dtype=torch.float64))


def test_gradcheck():
    inputs = make(rows=4, items=7, dim=3)
    names = ("query", "items", "log_prior", "scale", "prior_weight")
    leaves = [inputs[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(
        lambda *values: ops.full_softmax(**inputs | dict(zip(names, values)), label_smoothing=0.1), leaves
    )


def test_several_positives_are_the_mean_of_their_losses():
    inputs = make()
    several = torch.stack([inputs["pos_id"], (inputs["pos_id"] + 3) % 97], 1)
    one = ops.full_softmax(**inputs)
    two = ops.full_softmax(**inputs | {"pos_id": several[:, 1]})
    torch.testing.assert_close(ops.full_softmax(**inputs | {"pos_id": several}), (one + two) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: expected a number in [0, 1); got 1.0"),
        ({"pos_id": torch.full((65,), 99)}, "pos_id: expected ids in [0, 97); got 99 at position 0"),
        ({"log_prior": torch.zeros(3)}, "log_prior: expected shape [97]"),
        ({"items": torch.zeros(0, 24, dtype=torch.float64)}, "items: expected at least one item"),
    ],
)
def test_bad_input_gets_one_clear_error(change, message):
    with pytest.raises(ValueError) as caught:
        ops.full_softmax(**make() | change)
    assert message in str(caught.value)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_where_everything_is_removed_losses_are_infinite_and_nothing_moves(impl, label_smoothing):
    nothing = torch.full((97,), -math.inf)
    inputs = in_dtype(make(label_smoothing=label_smoothing, log_prior=nothing), torch.float32)
    loss, grads = loss_and_gradients(partial(ops.full_softmax, impl=impl), inputs, ("query", "items"))
    assert (loss == math.inf).all()
    assert all((grad == 0).all() for grad in grads.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sure_row_has_probability_one_however_large_its_logits(path, dtype):
    """Forward and backward make one logit of the same bits. The sure item of row i is i, its positive is
    i + 1; so each item gets 1 - 1."""
    generator = torch.Generator().manual_seed(0)
    query = (4 * torch.randn(65, 96, generator=generator)).to(dtype)  # own logits near 1500, others near 0
    log_prior = torch.zeros(65, requires_grad=True)
    positive = torch.arange(65).roll(-1)
    ops.full_softmax(query, query, positive, log_prior=log_prior, impl="cpu").sum().backward()
    assert log_prior.grad.abs().max() <= 4 * torch.finfo(torch.float32).eps


def test_the_loss_of_a_sure_positive_is_zero(path):
    """Its logit is the one that lse sums, of the same bits, and so neither loss nor gradient is rounding."""
    query = 4 * torch.randn(65, 96, generator=torch.Generator().manual_seed(0))
    log_prior = torch.zeros(65, requires_grad=True)
    loss = ops.full_softmax(query, query, torch.arange(65), log_prior=log_prior, impl="cpu")
    loss.sum().backward()
    assert (loss == 0).all()
    assert log_prior.grad.abs().max() <= 4 * torch.finfo(torch.float32).eps
