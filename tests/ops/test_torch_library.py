"""The ops as torch operators: opcheck, torch.compile without a graph break, autocast, modules."""

import copy
import math
import re

import numpy as np
import pytest
import torch

import fastpop
from fastpop import ops, popularity
from fastpop.ops._full_softmax_op import Inputs as FullInputs
from fastpop.ops._full_softmax_op import Options as FullOptions
from fastpop.ops._sampled_softmax_op import Inputs as SampledInputs
from fastpop.ops._sampled_softmax_op import Options as SampledOptions

ALL_NEEDED = 0b11111


def leaves(rows=65, items=97, dim=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, dim, generator=generator, requires_grad=True)
    table = torch.randn(items, dim, generator=generator, requires_grad=True)
    log_prior = torch.randn(items, generator=generator, requires_grad=True)
    return query, table, torch.randint(items, (rows,), generator=generator), log_prior


def operator_inputs(fixed_rows: bool, draw: bool, dtype=torch.float32) -> tuple:
    query, table, pos_id, log_prior = leaves()
    query, table = (one.detach().to(dtype).requires_grad_() for one in (query, table))
    proposal = popularity.power(np.arange(1, 98), 0.5)
    given = fastpop.Draw(proposal, 1, 2, 33, 16)
    ids, drawn = given.tensor(65), (proposal.table_on("cpu"), given.counter_on("cpu"))
    negatives = dict(zip(("table_V2", "counter_2"), drawn)) if draw else {"neg_id_GK": ids}
    inputs = SampledInputs(
        query_BD=query,
        item_VD=table,
        pos_id_B=pos_id,
        prior_weight=torch.tensor(0.7, requires_grad=True),
        scale=torch.tensor(1.3, requires_grad=True),
        num_groups=5,
        num_negatives=33,
        group_size=16,
        log_prior_V=log_prior,
        log_proposal_V=proposal.log_proposal_on("cpu"),
        logq="standard",
        **negatives,
    )
    return (*inputs, *SampledOptions(-100, "auto", False, fixed_rows))


@pytest.mark.parametrize("draw", [False, True], ids=["ids", "drawn inside"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_opcheck_of_sampled_softmax(draw, dtype):
    inputs = operator_inputs(True, draw, dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    torch.library.opcheck(torch.ops.fastpop.sampled_softmax_forward.default, inputs)
    torch.library.opcheck(
        torch.ops.fastpop.sampled_softmax_loss.default, (*inputs, torch.rand(65, dtype=wide), ALL_NEEDED)
    )
    plain = [one.detach() if isinstance(one, torch.Tensor) else one for one in inputs]
    lse_B, pos_logit_B = torch.ops.fastpop.sampled_softmax_forward(*plain)
    upstream = (lse_B, pos_logit_B, torch.rand(65, dtype=wide), torch.rand(65, dtype=wide), ALL_NEEDED)
    for fixed_rows in (True, False):
        plain[-1] = fixed_rows
        torch.library.opcheck(torch.ops.fastpop.sampled_softmax_backward.default, (*plain, *upstream))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_opcheck_of_full_softmax(dtype):
    query, table, pos_id, log_prior = leaves()
    query, table = (one.detach().to(dtype).requires_grad_() for one in (query, table))
    one, zero = (torch.tensor(value, requires_grad=True) for value in (1.0, 0.5))
    inputs = (
        *FullInputs(
            query_BD=query,
            item_VD=table,
            pos_id_B=pos_id,
            prior_weight=zero,
            scale=one,
            log_prior_V=log_prior,
        ),
        *FullOptions(-100, "auto", True),
    )
    torch.library.opcheck(torch.ops.fastpop.full_softmax_forward.default, inputs)
    plain = [value.detach() if isinstance(value, torch.Tensor) else value for value in inputs]
    lse_B, pos_logit_B = torch.ops.fastpop.full_softmax_forward(*plain)
    upstream = torch.rand(65, dtype=lse_B.dtype)
    torch.library.opcheck(
        torch.ops.fastpop.full_softmax_backward.default,
        (*plain, lse_B, pos_logit_B, upstream, upstream, ALL_NEEDED),
    )


def test_full_softmax_compiles_without_a_graph_break():
    _, _, pos_id, _ = leaves()

    def function(query, table, log_prior):
        return ops.full_softmax(
            query, table, pos_id, log_prior=log_prior, label_smoothing=0.1, reduction="mean"
        )

    plain, traced = leaves(), leaves()
    expected = function(plain[0], plain[1], plain[3])
    got = torch.compile(function, fullgraph=True)(traced[0], traced[1], traced[3])
    torch.testing.assert_close(got, expected)
    expected.backward()
    got.backward()
    for one, other in ((traced[n], plain[n]) for n in (0, 1, 3)):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("sparse_grad", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("draw", [False, True], ids=["ids", "drawn inside"])
def test_sampled_softmax_compiles_without_a_graph_break(draw, reduction, sparse_grad):
    proposal = popularity.power(np.arange(1, 98), 0.5)
    ids = torch.from_numpy(proposal.sample(0, 0, 33))
    _, _, pos_id, _ = leaves()

    def function(query, table, log_prior, step):
        neg_id = fastpop.Draw(proposal, 1, step, 33, 16) if draw else ids
        return ops.sampled_softmax(
            query,
            table,
            pos_id,
            neg_id,
            log_prior=log_prior,
            reduction=reduction,
            log_proposal=None if draw else proposal.log_proposal_on("cpu"),
            sparse_grad=sparse_grad,
        ).mean()

    # one with inductor's code, which takes seconds to make; the others run the same graph as it was traced
    made = (draw, reduction, sparse_grad) == (True, "none", False)
    compiled = torch.compile(function, fullgraph=True, backend="inductor" if made else "aot_eager")
    for step in (torch.tensor(7), torch.tensor(8)):
        plain, traced = leaves(), leaves()
        expected = function(plain[0], plain[1], plain[3], step)
        got = compiled(traced[0], traced[1], traced[3], step)
        torch.testing.assert_close(got, expected)
        expected.backward()
        got.backward()
        for one, other in ((traced[n], plain[n]) for n in (0, 1, 3)):
            torch.testing.assert_close(one.grad.to_dense(), other.grad.to_dense())
        assert traced[1].grad.is_sparse == sparse_grad


def test_a_compiled_graph_holds_several_distributions_and_one_of_them_twice():
    """None is a copy in each step, and what is kept on the side compiles nothing anew."""
    one, two = (popularity.power(np.arange(1, 98), alpha) for alpha in (0.5, 1.0))
    two = copy.deepcopy(two)
    query, table, pos_id, _ = (value.detach() for value in leaves())

    def function(step):
        return torch.stack(
            [
                ops.sampled_softmax(
                    query, table, pos_id, fastpop.Draw(proposal, 1, step + at, 33), reduction="mean"
                )
                for at, proposal in enumerate((one, two, one))
            ]
        )

    torch._dynamo.reset()
    graphs = []
    compiled = torch.compile(
        function, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward
    )
    for step in (torch.tensor(7), torch.tensor(8)):
        assert torch.equal(compiled(step), function(step))
        two.log_proposal_on("cpu", torch.float64)
    (graph,) = graphs
    vectors = [
        node
        for node in graph.graph.nodes
        if node.op in ("placeholder", "get_attr") and "tensors" in node.name
    ]
    assert len(vectors) == 4
    assert all("_dynamo_static_input_type" in node.meta["tensor_dict"] for node in vectors)


def test_a_compiled_op_still_refuses_ids_out_of_range():
    query, table, pos_id, _ = leaves()
    compiled = torch.compile(
        lambda neg_id: ops.sampled_softmax(query, table, pos_id, neg_id, logq="none"), fullgraph=True
    )
    compiled(torch.tensor([3, 96]))
    with pytest.raises(ValueError, match=r"neg_id: expected ids in \[0, 97\); got 97 at position 1"):
        compiled(torch.tensor([3, 97]))


BAD_NUMBERS = {
    "scale": (0.0, "scale: expected a finite number > 0; got 0.0"),
    "prior_weight": (math.nan, "prior_weight: expected a finite number; got nan"),
    "row_weight": (-1.0, "row_weight: expected finite weights >= 0; got -1.0"),
    "log_proposal": (-math.inf, "log_proposal at pos_id: expected finite log q; got -inf"),
}


@pytest.mark.parametrize(
    ("op", "name"),
    [
        *(("sampled", name) for name in BAD_NUMBERS),
        *(("full", name) for name in BAD_NUMBERS if name != "log_proposal"),
    ],
)
def test_a_compiled_op_still_refuses_bad_numbers(op, name):
    query, table, _, log_prior = leaves()
    pos_id = torch.arange(65)
    sampled = {"neg_id": torch.arange(70, 90), "log_proposal": torch.zeros(97)} if op == "sampled" else {}
    numbers = sampled | {
        "scale": torch.tensor(1.0),
        "prior_weight": torch.tensor(1.0),
        "row_weight": torch.ones(len(query)),
    }
    function = ops.sampled_softmax if op == "sampled" else ops.full_softmax
    compiled = torch.compile(
        lambda numbers: function(query, table, pos_id, log_prior=log_prior, **numbers), fullgraph=True
    )
    torch.testing.assert_close(
        compiled(numbers), function(query, table, pos_id, log_prior=log_prior, **numbers)
    )
    value, message = BAD_NUMBERS[name]
    numbers[name] = numbers[name].clone()
    numbers[name].reshape(-1)[min(64, numbers[name].numel() - 1)] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        compiled(numbers)


def test_checking_numbers_is_an_operator_that_gradients_pass():
    scale = torch.tensor(2.0, requires_grad=True)
    torch.library.opcheck(torch.ops.fastpop.checked.default, (scale, scale, "scale", "a finite number > 0"))
    inputs = leaves()[:3]

    def function(scale):
        return ops.full_softmax(*inputs, scale=scale, reduction="sum")

    got, expected = torch.compile(function, fullgraph=True)(scale), function(scale)
    torch.testing.assert_close(*(torch.autograd.grad(one, scale) for one in (got, expected)))


def test_a_second_derivative_is_refused_not_wrong():
    query, table, pos_id, _ = leaves()
    loss = ops.sampled_softmax(query, table, pos_id, torch.arange(20), logq="none", reduction="mean")
    (grad,) = torch.autograd.grad(loss, query, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), query)


def test_a_loss_that_is_used_twice_gives_its_gradient_twice():
    query, table, pos_id, _ = leaves()
    loss = ops.sampled_softmax(query, table, pos_id, torch.arange(20), logq="none", reduction="mean")
    (once,) = torch.autograd.grad(loss, query, retain_graph=True)
    (twice,) = torch.autograd.grad(2 * loss, query, retain_graph=True)
    torch.testing.assert_close(twice, 2 * once)
    torch.testing.assert_close(torch.autograd.grad(loss, query)[0], once)
