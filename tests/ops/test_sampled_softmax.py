"""The contract of sampled_softmax: op x implementation x case x dtype against fp64."""

import math
import os
from functools import cache, partial
from typing import NamedTuple

import helpers_budget
import numpy as np
import pytest
import torch
from helpers_device import HALF_AND_SINGLE, device_of, runs_of, unsupported_is_skipped
from helpers_softmax import (
    assert_as_exact_as_reference,
    dense_sampled_losses,
    implementations_here,
    in_dtype,
    loss_and_gradients,
    on_device,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from ops import cases_of_rows

import fastpop
from fastpop import ops, popularity
from fastpop.kernels.sampled_softmax import reference

IMPLS = implementations_here("sampled_softmax")
WIDEST = {"reference": torch.float64}


def widest(inputs: dict, impl: str) -> dict:
    return in_dtype(inputs, WIDEST.get(impl, torch.float32))


def make(rows=65, items=97, dim=24, negatives=33, *, shape="shared", seed=0, spread=0.4, **options):
    generator = torch.Generator().manual_seed(seed)
    neg_shape = {"shared": (negatives,), "rows": (rows, negatives), "groups": (-(-rows // 16), negatives)}[
        shape
    ]
    if shape == "groups":
        options["group_size"] = 16
    prior = torch.rand(items, generator=generator, dtype=torch.float64) + 0.01
    proposal = torch.rand(items, generator=generator, dtype=torch.float64) + 0.1
    return {
        "query": spread * torch.randn(rows, dim, generator=generator, dtype=torch.float64),
        "items": spread * torch.randn(items, dim, generator=generator, dtype=torch.float64),
        "pos_id": torch.randint(items, (rows,), generator=generator),
        "neg_id": torch.randint(items, neg_shape, generator=generator),
        "log_prior": (prior / prior.sum()).log(),
        "log_proposal": (proposal / proposal.sum()).log(),
        "scale": torch.tensor(1.3, dtype=torch.float64),
        "prior_weight": torch.tensor(0.7, dtype=torch.float64),
        **options,
    }


def with_hits(**options):
    inputs = make(**options)
    if inputs["neg_id"].ndim == 1:
        inputs["neg_id"][:5] = inputs["pos_id"][:5]
    else:
        rows = inputs["neg_id"].shape[0]
        inputs["neg_id"][:, 0] = inputs["pos_id"][:rows]
    return inputs


def removed(inputs, ids):
    """The inputs without some items; what their rows hold must not matter."""
    inputs["log_prior"][ids] = -math.inf
    inputs["items"][ids] = math.nan
    return inputs


def with_removed_items(inputs=None):
    inputs = removed(make() if inputs is None else inputs, slice(None, None, 5))
    inputs["pos_id"] = inputs["pos_id"] // 5 * 5 + 1
    inputs["pos_id"][inputs["pos_id"] >= 97] = 1
    inputs["pos_id"][3] = 10  # a removed positive
    return inputs


def with_everything_removed_but_one():
    inputs = removed(make(), torch.arange(97) != 7)
    inputs["pos_id"][:] = 7
    return inputs


def non_contiguous():
    inputs = make()
    inputs["query"] = inputs["query"].repeat(1, 2)[:, ::2]
    inputs["items"] = inputs["items"].T.contiguous().T
    inputs["pos_id"] = inputs["pos_id"].repeat_interleave(2)[::2]
    inputs["neg_id"] = inputs["neg_id"].repeat_interleave(2)[::2]
    return inputs


def some_ignored():
    inputs = make()
    inputs["pos_id"][::3] = -100
    return inputs


def in_batch():
    inputs = make(rows=64)
    inputs["neg_id"] = torch.cat([inputs["pos_id"], inputs["neg_id"]])
    inputs["exclude_diagonal"] = True
    return inputs


def with_draw(group_size=None, **options):
    inputs = make(**options)
    proposal = popularity.power(np.arange(1, 1 + len(inputs["items"])), 0.7)
    return inputs | {
        "neg_id": fastpop.Draw(proposal, 3, 7, inputs["neg_id"].shape[-1], group_size),
        "log_proposal": torch.from_numpy(proposal.log_proposal_V.copy()),
    }


def drawn(inputs):
    """The inputs with the ids that a Draw stands for."""
    draw = inputs["neg_id"]
    if not isinstance(draw, fastpop.Draw):
        return inputs
    ids = torch.from_numpy(draw.ids(len(inputs["query"])))
    return inputs | (
        {"neg_id": ids[0]} if draw.group_size is None else {"neg_id": ids, "group_size": draw.group_size}
    )


def dense_losses(**inputs):
    """The dense oracle; a Draw stands for its ids."""
    return dense_sampled_losses(**drawn(inputs))


def running_bounds(inputs, loss):
    return helpers_budget.gradients(candidates(inputs), inputs, loss, absolute=True)


def candidates(inputs):
    return helpers_budget.sampled(drawn(inputs))


# The processor's chunks have some hundred negatives, the interpreter's tiles 32: there a tenth is as many
# tiles, ragged too, in a tenth of the time.
FEWER = 10 if os.environ.get("TRITON_INTERPRET") == "1" else 1
CASES = {
    "tile exact: 64 rows, 64 negatives, D 32": lambda: make(64, 128, 32, 64),
    "ragged rows, negatives and dimension": make,
    "one negative": lambda: make(negatives=1),
    "one item in the catalogue": lambda: make(items=1),
    "empty batch": lambda: make(rows=0),
    "all rows ignored": lambda: make() | {"pos_id": torch.full((65,), -100)},
    "some rows ignored": some_ignored,
    "positives among negatives, kept": with_hits,
    "positives among negatives, dropped": lambda: with_hits(accidental_hits="drop"),
    "positives among negatives, corrected": lambda: with_hits(logq="corrected"),
    "every negative dropped": lambda: make(items=1, logq="corrected"),
    "no correction": lambda: make(logq="none"),
    "no correction, hits dropped": lambda: with_hits(logq="none", accidental_hits="drop"),
    "repeated negatives": lambda: make() | {"neg_id": torch.full((33,), 5)},
    "a set for each row": lambda: with_hits(shape="rows", accidental_hits="drop"),
    "a set for each row, corrected": lambda: with_hits(shape="rows", logq="corrected"),
    "a set for each group, last group ragged": lambda: make(shape="groups"),
    "a set for each group, corrected": lambda: with_hits(shape="groups", logq="corrected"),
    "in-batch: diagonal excluded": in_batch,
    "in-batch, corrected": lambda: in_batch() | {"logq": "corrected"},
    "removed items, one of them a positive": with_removed_items,
    "removed items, whole vectors of dimensions": lambda: with_removed_items(make(dim=32)),
    "removed items, a set for each group": lambda: with_removed_items(make(shape="groups")),
    "removed items, a set for each row": lambda: with_removed_items(make(shape="rows")),
    "in-batch, removed items": lambda: with_removed_items(in_batch()),
    "removed items, drawn inside": lambda: with_removed_items(with_draw(16)),
    "a negative weight removes the same items": lambda: (
        with_removed_items() | {"prior_weight": torch.tensor(-0.7, dtype=torch.float64)}
    ),
    "a group's negatives all removed": lambda: (
        removed(make(shape="groups"), slice(9, 97))
        | {"neg_id": torch.arange(60, 93).expand(5, -1), "pos_id": torch.arange(65) % 9}
    ),
    "everything removed but the positive": with_everything_removed_but_one,
    "no prior": lambda: make() | {"log_prior": None, "prior_weight": 1.0},
    "weight 0 ignores a prior of -inf": lambda: (
        make(prior_weight=0.0) | {"log_prior": torch.full((97,), -math.inf, dtype=torch.float64)}
    ),
    "drawn inside, shared": with_draw,
    "drawn inside, a set for each group": lambda: with_draw(16),
    "drawn inside, a set for each row": lambda: with_draw(1),
    "drawn inside, corrected": lambda: with_draw(16) | {"logq": "corrected"},
    "chunks of negatives, ragged; many repeats": lambda: with_hits(
        rows=130, items=700 // FEWER, dim=40, negatives=1500 // FEWER, accidental_hits="drop"
    ),
    "chunks of negatives, few repeats": lambda: make(rows=77, items=50_000, dim=9, negatives=1300 // FEWER),
    "groups of many negatives": lambda: make(
        rows=70, items=3_000, dim=65, negatives=900 // FEWER, shape="groups"
    ),
    "one row": lambda: make(rows=1),
    "one dimension": lambda: make(dim=1),
    "logits of 80": lambda: make(spread=4.0),
    "non-contiguous inputs": non_contiguous,
}
CASES |= cases_of_rows.each_with_a_set_for_each_row(CASES) | cases_of_rows.more(make, with_hits, with_draw)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("impl", "dtype", "where"), runs_of("sampled_softmax"), ids=str)
def test_values_and_gradients(monkeypatch, impl, dtype, where, case):
    device = device_of(where, monkeypatch)
    with unsupported_is_skipped("sampled_softmax", impl):
        check_contract(impl, dtype, case, device)


VECTORS = ("log_prior", "log_proposal", "scale", "prior_weight")
GRADIENTS = ("query", "items", "log_prior", "scale", "prior_weight")


class Answers(NamedTuple):
    """What a case has to come to, from the dense oracle."""

    truth: torch.Tensor  # losses in float64
    plain: torch.Tensor  # losses in float32 (float64 where the case is)
    budget: helpers_budget.Budget


def wide_of(dtype):
    return dtype if dtype == torch.float64 else torch.float32


@cache
def question(dtype, case):
    """A case's inputs, rows at dtype, and those that have gradients."""
    inputs = {
        name: (
            value.to(wide_of(dtype) if name in VECTORS else dtype)
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else value
        )
        for name, value in CASES[case]().items()
    }
    wanted = tuple(name for name in GRADIENTS if isinstance(inputs[name], torch.Tensor))
    if isinstance(inputs["prior_weight"], float) and inputs["prior_weight"] == 0:
        wanted = tuple(name for name in wanted if name != "log_prior")
    return inputs, wanted


@cache
def answers(dtype, case):
    """Once for all implementations, paths and numbers of threads."""
    inputs, wanted = question(dtype, case)
    truth, truth_grads = loss_and_gradients(dense_losses, in_dtype(inputs, torch.float64), wanted)
    plain, plain_grads = loss_and_gradients(dense_losses, in_dtype(inputs, wide_of(dtype)), wanted)
    bound = running_bounds(inputs, truth) if len(truth) else {}
    return Answers(truth, plain, helpers_budget.Budget(plain_grads, truth_grads, bound))


def check_contract(impl, dtype, case, device="cpu"):
    inputs, wanted = question(dtype, case)
    wide = wide_of(dtype)
    # First, so that what is not taken costs no truth.
    op = on_device(device, partial(ops.sampled_softmax, impl=impl))
    loss, grads = loss_and_gradients(op, inputs, wanted)
    truth, plain, budget = answers(dtype, case)
    largest = 100.0 if case == "logits of 80" else 10.0

    assert loss.dtype == wide
    assert loss.shape == (len(inputs["query"]),)
    if len(loss) == 0:
        assert op(**inputs, reduction="mean").item() == 0
        return
    assert_as_exact_as_reference(loss, plain, truth, wide, "loss", largest)
    dtypes = {name: inputs[name].dtype for name in wanted}
    budget.check(grads, dtypes)
    # Gradients of rows alone may be made another way.
    budget.check(loss_and_gradients(op, inputs, ("query", "items"))[1], dtypes)
    # And in one pass, where the reduction is the op's own.
    weight = torch.arange(1, len(loss) + 1, dtype=wide)
    weight = torch.where(torch.isfinite(truth), weight / weight.sum(), 0)
    one_pass = inputs | {"row_weight": weight, "reduction": "sum"}
    total, grads = loss_and_gradients(op, one_pass, wanted)
    expected = [(torch.where(weight > 0, rows, 0) * weight).sum() for rows in (plain, truth.double())]
    assert_as_exact_as_reference(total, *expected, wide, "weighted loss", largest)
    budget.check(grads, dtypes)
    budget.check(loss_and_gradients(op, one_pass, ("query", "items"))[1], dtypes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_backward_that_is_wrong_is_noticed(dtype):
    """By every case whose gradients it changes at all."""
    noticed = helpers_budget.noticed_by(CASES, dtype, dense_losses, candidates)
    assert min(noticed.values()) >= 34


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


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl not in WIDEST])
def test_fp64_is_refused_by_name(impl):
    with pytest.raises(NotImplementedError, match=f"{impl}: query is float64"):
        ops.sampled_softmax(**make(), impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("frozen", ["query", "items", "log_prior", "scale", "prior_weight"])
def test_each_input_frozen_in_turn_leaves_the_others_their_gradients(impl, reduction, frozen):
    inputs = widest(make(), impl)
    names = ("query", "items", "log_prior", "scale", "prior_weight")

    def op(**given):
        loss = ops.sampled_softmax(**given, impl=impl, reduction=reduction)
        return loss.reshape(-1)

    _, everything = loss_and_gradients(op, inputs, names)
    others = tuple(name for name in names if name != frozen)
    _, some = loss_and_gradients(op, inputs, others)
    for name in others:
        torch.testing.assert_close(some[name], everything[name], rtol=0, atol=0)


@pytest.mark.parametrize("shape", ["shared", "rows", "groups"])
def test_tiles_change_nothing(monkeypatch, shape):
    inputs = with_hits(shape=shape, accidental_hits="drop")
    wanted = ("query", "items", "log_prior", "scale")
    whole, whole_grads = loss_and_gradients(ops.sampled_softmax, inputs, wanted)
    monkeypatch.setattr(reference, "TILE_NUMBERS", 40)
    tiled, tiled_grads = loss_and_gradients(ops.sampled_softmax, inputs, wanted)
    torch.testing.assert_close(tiled, whole, rtol=1e-13, atol=1e-13)
    for name in wanted:
        torch.testing.assert_close(tiled_grads[name], whole_grads[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("impl", IMPLS)
def test_negatives_that_are_the_catalogue_give_the_full_softmax(impl):
    """K draws of a uniform q, each item once: sum exp(z - log q) over the draws, plus the positive
    a second time; dropping the hit makes it exact."""
    inputs = widest(make(items=50), impl)
    uniform = torch.full((50,), -math.log(50), dtype=inputs["query"].dtype)
    got = ops.sampled_softmax(
        **inputs | {"neg_id": torch.arange(50), "log_proposal": uniform, "accidental_hits": "drop"}, impl=impl
    )
    full = ops.full_softmax(
        inputs["query"],
        inputs["items"],
        inputs["pos_id"],
        log_prior=inputs["log_prior"],
        prior_weight=0.7,
        scale=1.3,
    )
    torch.testing.assert_close(got, full)


@pytest.mark.parametrize("impl", IMPLS)
@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-50, 50), seed=st.integers(0, 2**16), logq=st.sampled_from(["standard", "none"]))
def test_a_constant_in_the_prior_or_the_proposal_changes_nothing(impl, shift, seed, logq):
    inputs = widest(make(seed=seed, logq=logq), impl) | {"prior_weight": 1.0}
    before = ops.sampled_softmax(**inputs, impl=impl)
    after = ops.sampled_softmax(
        **inputs | {"log_prior": inputs["log_prior"] + shift, "log_proposal": inputs["log_proposal"] - shift},
        impl=impl,
    )
    exact = 1e-10 if impl in WIDEST else 2e-5  # shifts of 50 beside losses of 5, in fp32
    torch.testing.assert_close(after, before, rtol=exact, atol=exact)


def test_a_dropped_hit_is_no_phantom_negative_of_logit_zero():
    """Adding -8 to every logit must not change the loss of rows that hit."""
    inputs = with_hits(accidental_hits="drop", logq="none") | {"prior_weight": 1.0}
    before = ops.sampled_softmax(**inputs)
    after = ops.sampled_softmax(**inputs | {"log_prior": inputs["log_prior"] - 8})
    torch.testing.assert_close(after, before)


def test_temperature_does_not_touch_prior_or_correction():
    inputs = make()
    zero = torch.zeros_like(inputs["query"])
    a = ops.sampled_softmax(**inputs | {"query": zero, "scale": 1.0})
    b = ops.sampled_softmax(**inputs | {"query": zero, "scale": 17.0})
    torch.testing.assert_close(a, b)


def test_the_correction_has_the_right_sign():
    """E over draws of the corrected negative mass is the full mass, whatever q is."""
    inputs = make(rows=4, items=12)
    proposal = popularity.power(np.arange(1, 13), 1.0)
    neg_id = torch.from_numpy(proposal.sample(0, 0, 200_000))
    inputs |= {
        "neg_id": neg_id,
        "log_proposal": torch.from_numpy(proposal.log_proposal_V.copy()),
        "logq": "corrected",
    }
    full = ops.full_softmax(
        inputs["query"],
        inputs["items"],
        inputs["pos_id"],
        log_prior=inputs["log_prior"],
        prior_weight=0.7,
        scale=1.3,
    )
    torch.testing.assert_close(ops.sampled_softmax(**inputs), full, rtol=0.02, atol=0)
    wrong = inputs | {"log_proposal": -inputs["log_proposal"]}
    assert not torch.allclose(ops.sampled_softmax(**wrong), full, rtol=0.1)


def test_standard_mode_learns_log_p_of_i_given_c():
    """At the optimum of the expected loss the scores are log p(i|c) up to a constant, q any distribution."""
    target = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64)
    proposal = popularity.power([1, 2, 3, 4, 10], 1.0)
    log_q = torch.from_numpy(proposal.log_proposal_V.copy())
    score = torch.zeros(5, 1, dtype=torch.float64, requires_grad=True)
    one = torch.ones(5, 1, dtype=torch.float64)
    optimizer = torch.optim.Adam([score], lr=0.05)
    for step in range(500):
        neg_id = torch.from_numpy(proposal.sample(1, step, 4000))
        optimizer.zero_grad()
        ops.sampled_softmax(
            one, score, torch.arange(5), neg_id, log_proposal=log_q, row_weight=target, reduction="sum"
        ).backward()
        optimizer.step()
    learned = torch.log_softmax(score[:, 0].detach(), 0)
    torch.testing.assert_close(learned, target.log(), rtol=0, atol=0.05)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions_weights_and_ignored_rows(reduction):
    inputs = some_ignored()
    weight = torch.linspace(0, 2, 65, dtype=torch.float64)
    rows = dense_sampled_losses(**inputs, row_weight=weight)
    got = ops.sampled_softmax(**inputs, row_weight=weight, reduction=reduction)
    counted = weight[inputs["pos_id"] != -100].sum()
    torch.testing.assert_close(got, rows.sum() / counted if reduction == "mean" else rows.sum())


def test_mean_over_no_rows_is_zero():
    inputs = make() | {"pos_id": torch.full((65,), -100)}
    assert ops.sampled_softmax(**inputs, reduction="mean").item() == 0
    assert ops.sampled_softmax(**make(rows=0), reduction="mean").item() == 0


def test_a_weight_of_zero_silences_an_infinite_loss():
    inputs = with_removed_items()
    weight = torch.ones(65, dtype=torch.float64)
    weight[3] = 0
    assert torch.isfinite(ops.sampled_softmax(**inputs, row_weight=weight, reduction="mean"))


@pytest.mark.parametrize("shape", ["shared", "groups"])
def test_several_positives_are_the_mean_of_their_losses(shape):
    inputs = make(shape=shape)
    several = torch.stack(
        [inputs["pos_id"], (inputs["pos_id"] + 3) % 97, torch.full_like(inputs["pos_id"], -100)], 1
    )
    several[0] = -100
    got = ops.sampled_softmax(**inputs | {"pos_id": several})
    one = ops.sampled_softmax(**inputs)
    two = ops.sampled_softmax(**inputs | {"pos_id": several[:, 1]})
    expected = (one + two) / 2
    expected[0] = 0
    torch.testing.assert_close(got, expected)


def test_sparse_gradients_are_sorted_unique_rows_with_the_dense_values():
    inputs = with_hits() | {"sparse_grad": True}
    items = inputs["items"].clone().requires_grad_()
    log_prior = inputs["log_prior"].clone().requires_grad_()
    ops.sampled_softmax(**inputs | {"items": items, "log_prior": log_prior}, reduction="sum").backward()
    assert items.grad.is_sparse
    assert log_prior.grad.is_sparse
    ids = items.grad._indices()[0]
    assert torch.equal(ids, ids.unique())
    touched = torch.cat([inputs["pos_id"], inputs["neg_id"]]).unique()
    assert torch.equal(ids, touched)
    dense = inputs["items"].clone().requires_grad_()
    ops.sampled_softmax(**inputs | {"items": dense, "sparse_grad": False}, reduction="sum").backward()
    torch.testing.assert_close(items.grad.to_dense(), dense.grad)


def test_ids_above_two_to_the_24_are_exact():
    num_items = 2**24 + 64
    items = torch.zeros(num_items, 1)
    items[-1], items[-2] = 3.0, -1.0
    loss = ops.sampled_softmax(
        torch.ones(1, 1), items, torch.tensor([num_items - 1]), torch.tensor([num_items - 2]), logq="none"
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-4)), abs=1e-6)
    items.requires_grad_()
    ops.sampled_softmax(
        torch.ones(1, 1),
        items,
        torch.tensor([num_items - 1]),
        torch.tensor([num_items - 2]),
        logq="none",
        sparse_grad=True,
        reduction="sum",
    ).backward()
    assert items.grad._indices()[0].tolist() == [num_items - 2, num_items - 1]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_draw_is_the_ids_it_stands_for(impl):
    inputs = widest(make(rows=40, logq="standard"), impl)
    proposal = popularity.power(np.arange(1, 98), 0.5)
    draw = fastpop.Draw(proposal, seed=3, step=7, num_negatives=20, group_size=16)
    given = {name: inputs[name] for name in ("query", "items", "pos_id", "log_prior", "scale")}
    a = ops.sampled_softmax(neg_id=draw, **given, impl=impl)
    b = ops.sampled_softmax(
        neg_id=torch.from_numpy(draw.ids(40)),
        group_size=16,
        log_proposal=torch.from_numpy(proposal.log_proposal_V.copy()),
        **given,
        impl=impl,
    )
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match="neg_id: expected a Draw over 97 items"):
        ops.sampled_softmax(neg_id=fastpop.Draw(popularity.uniform(98), 0, 0, 4), **given)
    in_a_tensor = fastpop.Draw(proposal, 3, torch.tensor(7), 20, 16)
    assert torch.equal(ops.sampled_softmax(neg_id=in_a_tensor, **given, impl=impl), a)


@pytest.mark.parametrize("impl", IMPLS)
def test_the_log_sum_exp_comes_with_its_gradient(impl):
    inputs = widest(make(rows=70), impl)
    query = inputs["query"].clone().requires_grad_()
    loss, lse = ops.sampled_softmax(**inputs | {"query": query}, reduction="mean", return_lse=True, impl=impl)
    (loss + 1e-2 * lse.square().mean()).backward()
    dense = inputs["query"].clone().requires_grad_()
    given = inputs | {"query": dense}
    rows = dense_sampled_losses(**given)
    own = given["scale"] * (dense * given["items"][given["pos_id"]]).sum(1)
    own = own + 0.7 * given["log_prior"][given["pos_id"]] - given["log_proposal"][given["pos_id"]]
    (rows.mean() + 1e-2 * (rows + own).square().mean()).backward()
    torch.testing.assert_close(query.grad, dense.grad)


# A kernel on a device cannot raise without making the host wait.
@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "triton"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_prior_or_distribution_at_a_touched_item_is_an_error(impl, bad):
    inputs = widest(make(), impl)
    item = int(inputs["neg_id"][4])
    inputs["log_prior"][item] = bad
    with pytest.raises(ValueError, match=rf"log_prior: .* none NaN; got {bad} at position {item}"):
        ops.sampled_softmax(**inputs, impl=impl)
    inputs = widest(make(logq="corrected"), impl)
    inputs["log_proposal"][item] = -math.inf
    with pytest.raises(ValueError, match=rf"every id in neg_id: .* got -inf for item {item}"):
        ops.sampled_softmax(**inputs, impl=impl)


def test_gradients_of_the_reference_in_fp64():
    inputs = with_hits(rows=5, items=9, dim=3, negatives=6, accidental_hits="drop")
    leaves = [
        inputs[name].clone().requires_grad_()
        for name in ("query", "items", "log_prior", "scale", "prior_weight")
    ]

    def function(query, items, log_prior, scale, prior_weight):
        return ops.sampled_softmax(
            **inputs
            | {
                "query": query,
                "items": items,
                "log_prior": log_prior,
                "scale": scale,
                "prior_weight": prior_weight,
            }
        )

    assert torch.autograd.gradcheck(function, leaves)


def test_bitwise_repeatable():
    inputs = in_dtype(make(rows=500, items=300, negatives=200), torch.float32)
    first = loss_and_gradients(ops.sampled_softmax, inputs, ("query", "items"))
    second = loss_and_gradients(ops.sampled_softmax, inputs, ("query", "items"))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("shape", ["shared", "groups", "drawn"])
def test_autocast_multiplies_rounded_rows_and_gives_float32_gradients(path, impl, shape):
    """What a table cast to bfloat16 would give, of the rows that are read alone; its gradient is not rounded.
    The last row is not a number, and nobody reads it."""
    inputs = in_dtype(make(shape="groups" if shape == "groups" else "shared"), torch.float32)
    inputs |= {"scale": inputs["scale"].item(), "prior_weight": inputs["prior_weight"].item(), "impl": impl}
    if shape == "drawn":
        proposal = popularity.power(np.arange(97, 1, -1), 0.5)
        inputs |= {"neg_id": fastpop.Draw(proposal, 3, 4, 33), "log_proposal": None}
        for name in ("items", "log_prior"):
            inputs[name] = inputs[name][:96]
        inputs["pos_id"] = inputs["pos_id"] % 96
    names = ("query", "items", "log_prior")
    found = []
    for autocast in (True, False):
        leaves = {name: inputs[name].clone().requires_grad_() for name in names}
        given = inputs | leaves
        if not autocast:
            half = {name: leaves[name].bfloat16() for name in ("query", "items")}
            given |= half
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = ops.sampled_softmax(**given, reduction="sum")
        loss.backward()
        found.append((loss.detach(), {name: leaf.grad for name, leaf in leaves.items()}))
    (loss, grads), (expected, expected_grads) = found
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert loss.dtype == torch.float32
    for name in names:
        assert grads[name].dtype == torch.float32
        eps = 2.0**-8 if name != "log_prior" else 1e-5  # what the cast table's gradient is rounded to
        torch.testing.assert_close(grads[name], expected_grads[name], rtol=eps, atol=1e-5)
    assert not torch.equal(grads["items"], grads["items"].bfloat16().float())


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_without_autocast_and_for_rows_of_their_own_mixed_dtypes_meet_in_what_holds_both(impl):
    inputs = in_dtype(make(), torch.float32) | {"impl": impl}
    half = inputs | {"query": inputs["query"].bfloat16()}
    wide = inputs | {"query": inputs["query"].bfloat16().float()}
    torch.testing.assert_close(ops.sampled_softmax(**half), ops.sampled_softmax(**wide), rtol=1e-6, atol=1e-6)
    inputs = in_dtype(make(shape="rows"), torch.float32) | {"impl": impl}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ops.sampled_softmax(**inputs)
    half = inputs | {"query": inputs["query"].bfloat16()}
    torch.testing.assert_close(loss, ops.sampled_softmax(**half), rtol=1e-6, atol=1e-6)


def test_rounded_rows_are_refused_by_their_own_ids():
    inputs = in_dtype(make(), torch.float32)
    inputs["log_prior"][inputs["neg_id"][5]] = math.nan
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ValueError, match=f"log_prior: .* got nan at position {int(inputs['neg_id'][5])}$"),
    ):
        ops.sampled_softmax(**inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sure_row_has_probability_one_however_large_its_logits(path, dtype):
    """Forward and backward make one logit of the same bits. The sure item of row i is i, its positive is
    i + 1; so each item gets 1 - 1."""
    generator = torch.Generator().manual_seed(0)
    query = (4 * torch.randn(65, 96, generator=generator)).to(dtype)  # own logits near 1500, others near 0
    log_prior = torch.zeros(65, requires_grad=True)
    ops.sampled_softmax(
        query,
        query,
        torch.arange(65).roll(-1),
        torch.arange(65),
        log_prior=log_prior,
        logq="none",
        accidental_hits="drop",
        impl="cpu",
    ).sum().backward()
    assert log_prior.grad.abs().max() <= 4 * torch.finfo(torch.float32).eps
