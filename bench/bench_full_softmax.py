"""Full softmax with log p, forward and backward."""

from dataclasses import dataclass
from functools import lru_cache, partial

import pytest
import torch
from measuring import DEVICE, judged, peer
from shapes import FULL, Softmax
from softmax_gate import check
from torch import Tensor
from torch.nn import functional

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS


@dataclass(frozen=True)
class Case:
    query: Tensor  # [B, D]
    items: Tensor  # [V, D]
    pos_id: Tensor  # [B]
    log_prior: Tensor  # [V]
    loss_B: Tensor  # the truth, float64
    query_grad: Tensor
    touched: Tensor  # all items
    items_grad: Tensor


@lru_cache(maxsize=1)
def case_of(shape: Softmax) -> Case:
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, shape.dtype)
    query = (0.3 * torch.randn(shape.rows, shape.dim, generator=generator)).to(DEVICE, dtype)
    items = (0.3 * torch.randn(shape.items, shape.dim, generator=generator)).to(DEVICE, dtype)
    pos_id = torch.randint(shape.items, (shape.rows,), generator=generator).to(DEVICE)
    log_prior = torch.randn(shape.items, generator=generator).log_softmax(0).to(DEVICE)
    wide, table = query.double().requires_grad_(), items.double().requires_grad_()
    loss = by_rows(wide, table, pos_id, log_prior.double(), rows=256)
    return Case(
        query, items, pos_id, log_prior, loss, wide.grad, torch.arange(shape.items, device=DEVICE), table.grad
    )


def plain(query, items, pos_id, log_prior):
    return functional.cross_entropy(query @ items.T + log_prior, pos_id, reduction="none")


def eager(case, query, items, function=plain):
    loss = function(query, items, case.pos_id, case.log_prior)
    loss.sum().backward()
    return loss


def by_rows(query, items, pos_id, log_prior, *, rows):
    """Forward and backward a block of rows at a time, so that one block's logits are alive."""
    loss = []
    for first in range(0, len(query), rows):
        part = slice(first, first + rows)
        block = plain(query[part], items, pos_id[part], log_prior)
        block.sum().backward()
        loss.append(block.detach())
    return torch.cat(loss)


def ours(case, query, items, *, impl):
    loss = ops.full_softmax(query, items, case.pos_id, log_prior=case.log_prior, impl=impl)
    loss.sum().backward()
    return loss


def linear_cross_entropy(case, query, items, *, chunks=None):
    """reduction="none": the chunked form adds up a reduced loss in bfloat16, where it stops at 8,192."""
    if not hasattr(functional, "linear_cross_entropy"):
        pytest.skip("F.linear_cross_entropy: not in this torch")
    options = {"options": torch.nn.LinearCrossEntropyOptions(acc_policy=chunks)} if chunks else {}
    loss = functional.linear_cross_entropy(
        query, items, case.pos_id, reduction="none", linear_bias=case.log_prior.to(query.dtype), **options
    )
    loss.sum().backward()
    return loss


def liger(case, query, items):
    if DEVICE.type == "cpu":
        pytest.skip("Liger: its cross-entropy is a Triton kernel, and Triton has no CPU driver")
    kernels = peer("Liger", "liger_kernel.transformers.functional")
    loss = kernels.liger_fused_linear_cross_entropy(
        query, items, case.pos_id, bias=case.log_prior.to(query.dtype), reduction="sum"
    )
    loss.backward()
    return loss


def replay(case, query, items):
    """RePlay's full cross-entropy on the logits of its own head; log p goes in through the logits."""
    loss = peer("RePlay", "replay.nn.loss").CE(reduction="none")
    head = peer("RePlay", "replay.nn.head").EmbeddingTyingHead()
    loss.logits_callback = lambda rows: head(rows, items) + case.log_prior
    pos_id = case.pos_id[:, None, None]
    value = loss(query[:, None], None, pos_id, None, None, torch.ones_like(pos_id, dtype=torch.bool))
    value.sum().backward()
    return value


def cut(case, query, items):
    """Cut cross-entropy in its torch.compile form, the one that runs on a CPU. It takes no bias: log p is
    one more column of the items, against a 1 in each query."""
    function = peer("cut-cross-entropy", "cut_cross_entropy").linear_cross_entropy
    queries = torch.cat([query, query.new_ones(len(query), 1)], 1)
    table = torch.cat([items, case.log_prior.to(items.dtype)[:, None]], 1)
    loss = function(queries, table, case.pos_id, reduction="none", impl="torch_compile")
    loss.sum().backward()
    return loss


CONTENDERS = {
    **{f"fastpop {impl}": partial(ours, impl=impl) for impl in IMPLEMENTATIONS["full_softmax"]},
    "torch eager": eager,
    "torch eager, 256 rows at a time": lambda case, query, items: by_rows(
        query, items, case.pos_id, case.log_prior, rows=256
    ),
    "torch.compile": "compile",
    "F.linear_cross_entropy": linear_cross_entropy,
    **{
        f"F.linear_cross_entropy, {chunks}": partial(linear_cross_entropy, chunks=chunks)
        for chunks in ("auto", "accurate")
    },
    "Liger fused linear CE": liger,
    "RePlay CE": replay,
    "cut-cross-entropy, torch.compile": cut,
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", FULL, ids=str)
def test_full_softmax(shape, contender, measure, request):
    function = CONTENDERS[contender]
    if "compile" in contender:
        compiled = request.getfixturevalue("compiled")
        function = partial(eager, function=compiled(plain)) if function == "compile" else function
    case = case_of(shape)
    query, items = case.query.detach().requires_grad_(), case.items.detach().requires_grad_()

    def forget():
        query.grad = items.grad = None

    def step():
        forget()
        return function(case, query, items)

    with judged(contender):
        error = check(step(), query, items, case)
    measure(
        contender,
        shape,
        step,
        forget=forget,
        error=error,
        dtype=shape.dtype,
        work=6 * shape.rows * shape.items * shape.dim,
        ceiling=f"gemm_{shape.dtype}",
    )
