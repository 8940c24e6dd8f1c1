"""Sampled softmax with log Q and accidental hits dropped, forward and backward with the table's gradient."""

from dataclasses import dataclass
from functools import lru_cache, partial

import pytest
import torch
from measuring import DEVICE, judged, peer
from shapes import SAMPLED, Softmax
from softmax_gate import check
from torch import Tensor
from torch.nn.functional import embedding

from fastpop import Draw, ops, popularity
from fastpop.ops._dispatch import IMPLEMENTATIONS


@dataclass(frozen=True)
class Case:
    query: Tensor  # [B, D]
    items: Tensor  # [V, D]
    pos_id: Tensor  # [B]
    draw: Draw
    neg_id: Tensor  # what `draw` gives: [K], or [G, K] when rows are in groups
    log_proposal: Tensor  # [V]
    group: int | None
    loss_B: Tensor  # the truth, float64
    query_grad: Tensor
    touched: Tensor  # sorted ids of the rows of `items` that get a gradient
    items_grad: Tensor


@lru_cache(maxsize=1)
def case_of(shape: Softmax) -> Case:
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, shape.dtype)
    query = 0.3 * torch.randn(shape.rows, shape.dim, generator=generator)
    items = 0.3 * torch.randn(shape.items, shape.dim, generator=generator)
    query, items = query.to(DEVICE, dtype), items.to(DEVICE, dtype)
    pos_id = torch.randint(shape.items, (shape.rows,), generator=generator).to(DEVICE)
    draw = Draw(popularity.uniform(shape.items), 0, 0, shape.negatives, shape.group)
    neg_id_GK = draw.tensor(shape.rows, DEVICE)
    log_proposal = draw.proposal.log_proposal_on(DEVICE, torch.float32)

    touched = torch.cat([pos_id, neg_id_GK.reshape(-1)]).unique()
    wide = query.double().requires_grad_()
    table = items[touched].double().requires_grad_()
    log_q = log_proposal[touched].double()
    loss = []
    block = shape.group or 512
    for first in range(0, shape.rows, block):
        rows = slice(first, first + block)
        neg_id = neg_id_GK[first // shape.group if shape.group else 0]
        part = eager(
            wide[rows],
            table,
            torch.searchsorted(touched, pos_id[rows]),
            torch.searchsorted(touched, neg_id),
            log_q,
            sparse=False,
        )
        part.sum().backward()
        loss.append(part.detach())
    return Case(
        query,
        items,
        pos_id,
        draw,
        neg_id_GK if shape.group else neg_id_GK[0],
        log_proposal,
        shape.group,
        torch.cat(loss),
        wide.grad,
        touched,
        table.grad,
    )


def eager(query, items, pos_id, neg_id, log_proposal, *, sparse):
    """What a trainer writes without a fused op, with shared negatives."""
    pos = (query * embedding(pos_id, items, sparse=sparse)).sum(1) - log_proposal[pos_id]
    neg = query @ embedding(neg_id, items, sparse=sparse).T - log_proposal[neg_id]
    neg = neg.masked_fill(pos_id[:, None] == neg_id, -torch.inf)
    return torch.logsumexp(torch.cat([pos[:, None], neg], 1), 1) - pos


def eager_groups(query, items, pos_id, neg_id, log_proposal, *, sparse):
    """The same with a set of negatives for each group of rows: one batched product."""
    groups = len(neg_id)
    pos = (query * embedding(pos_id, items, sparse=sparse)).sum(1) - log_proposal[pos_id]
    table_GKD = embedding(neg_id, items, sparse=sparse)
    neg = query.view(groups, -1, query.shape[1]) @ table_GKD.mT - log_proposal[neg_id][:, None]
    neg = neg.masked_fill(pos_id.view(groups, -1, 1) == neg_id[:, None], -torch.inf)
    return torch.logsumexp(torch.cat([pos[:, None], neg.flatten(0, 1)], 1), 1) - pos


def torch_way(case, query, items, *, shared, grouped):
    function = grouped if case.group else shared
    return function(query, items, case.pos_id, case.neg_id, case.log_proposal)


def ours(case, query, items, *, impl, drawn, reduction="sum"):
    words = {"neg_id": case.draw} if drawn else {"neg_id": case.neg_id, "group_size": case.group}
    return ops.sampled_softmax(
        query,
        items,
        case.pos_id,
        **words,
        log_proposal=case.log_proposal,
        accidental_hits="drop",
        sparse_grad=True,
        reduction=reduction,
        impl=impl,
    )


def replay(case, query, items, *, sparse):
    """RePlay's loss on the logits of its own head. It drops accidental hits, as we do, and has no log Q:
    that goes in through the logits. Its models look items up with dense gradients; the loss takes sparse
    ones too.

    The loss for groups of rows gives the mean of their means only, here turned into the sum over rows.
    """
    losses, heads = peer("RePlay", "replay.nn.loss"), peer("RePlay", "replay.nn.head")
    head = heads.EmbeddingTyingHead()
    loss = losses.GroupedCESampled(case.group) if case.group else losses.CESampled(reduction="none")
    loss.logits_callback = lambda rows_RD, ids: (
        head(rows_RD, embedding(ids, items, sparse=sparse)) - case.log_proposal[ids]
    )
    pos_id = case.pos_id[:, None, None]
    value = loss(query[:, None], None, pos_id, case.neg_id, None, torch.ones_like(pos_id, dtype=torch.bool))
    return value * len(query) if case.group else value


CONTENDERS = {
    **{
        f"fastpop {impl}{', ids drawn inside' if drawn else ''}": partial(ours, impl=impl, drawn=drawn)
        for impl in IMPLEMENTATIONS["sampled_softmax"]
        for drawn in (False, True)
    },
    "fastpop cpu, [B] losses": partial(ours, impl="cpu", drawn=False, reduction="none"),
    **{
        f"torch eager, {'sparse' if sparse else 'dense'} gradient": partial(
            torch_way, shared=partial(eager, sparse=sparse), grouped=partial(eager_groups, sparse=sparse)
        )
        for sparse in (True, False)
    },
    "torch.compile, dense gradient": "compile",
    **{
        f"RePlay CESampled, {'sparse' if sparse else 'dense'} gradient": partial(replay, sparse=sparse)
        for sparse in (True, False)
    },
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", SAMPLED, ids=str)
def test_sampled_softmax(shape, contender, measure, request):
    function = CONTENDERS[contender]
    if function == "compile":
        compiled = request.getfixturevalue("compiled")
        function = partial(
            torch_way,
            shared=compiled(partial(eager, sparse=False)),
            grouped=compiled(partial(eager_groups, sparse=False)),
        )
    case = case_of(shape)
    query, items = case.query.detach().requires_grad_(), case.items.detach().requires_grad_()

    def forget():
        query.grad = items.grad = None

    def step():
        forget()
        loss = function(case, query, items)
        loss.sum().backward()
        return loss

    with judged(contender):
        error = check(step(), query, items, case)
    measure(
        contender,
        shape,
        step,
        forget=forget,
        error=error,
        dtype=shape.dtype,
        work=6 * shape.rows * shape.negatives * shape.dim,
        ceiling=f"gemm_{shape.dtype}",
    )
