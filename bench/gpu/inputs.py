"""Inputs of the softmax shapes, and the calls that are timed: on a card, on a processor, and pretended."""

from typing import Any, NamedTuple

import torch
from shapes import Softmax
from torch import Tensor

from fastpop import Draw, ops, popularity


class Inputs(NamedTuple):
    """query [B, D], items [V, D], pos_id [B], neg_id [K] or [G, K], log_proposal [V], one: 0-d."""

    query: Tensor
    items: Tensor
    pos_id: Tensor
    neg_id: Tensor
    log_proposal: Tensor
    one: Tensor
    group: int | None


def made(shape: Softmax, device: Any) -> Inputs:
    """Drawn on the device itself."""
    generator = torch.Generator(device=device).manual_seed(0)
    dtype = getattr(torch, shape.dtype)
    query, items = (
        torch.empty(rows, shape.dim, device=device, dtype=dtype).normal_(0, 0.3, generator=generator)
        for rows in (shape.rows, shape.items)
    )
    pos_id = torch.randint(shape.items, (shape.rows,), generator=generator, device=device)
    draw = Draw(popularity.uniform(shape.items), 0, 0, shape.negatives, shape.group)
    neg_id = draw.tensor(shape.rows, device)
    log_q = draw.proposal.log_proposal_on(device, torch.float32)
    return Inputs(
        query,
        items,
        pos_id,
        neg_id if shape.group else neg_id[0],
        log_q,
        torch.ones((), device=device),
        shape.group,
    )


def of_case(case: Any) -> Inputs:
    """Of a case of bench_sampled_softmax.py, which holds the truth too."""
    return Inputs(
        case.query,
        case.items,
        case.pos_id,
        case.neg_id,
        case.log_proposal,
        torch.ones((), device=case.query.device),
        case.group,
    )


def loss(inputs: Inputs, impl: str = "auto") -> Tensor:
    """The sum. Numbers that are tensors already: nothing is copied to the device in a step."""
    return ops.sampled_softmax(
        inputs.query,
        inputs.items,
        inputs.pos_id,
        inputs.neg_id,
        group_size=inputs.group,
        log_proposal=inputs.log_proposal,
        accidental_hits="drop",
        scale=inputs.one,
        prior_weight=inputs.one,
        ignore_index=None,  # nobody's rows here are
        sparse_grad=True,
        reduction="sum",
        impl=impl,
    )


def forward(inputs: Inputs, impl: str = "auto") -> Tensor:
    with torch.no_grad():
        return loss(inputs, impl)


class Both:
    """Forward and backward, with gradients of query and items; new ones each time."""

    def __init__(self, inputs: Inputs, impl: str = "auto"):
        self.inputs = inputs._replace(
            query=inputs.query.detach().requires_grad_(), items=inputs.items.detach().requires_grad_()
        )
        self.impl = impl

    def __call__(self) -> Tensor:
        self.forget()
        total = loss(self.inputs, self.impl)
        total.backward()
        return total

    def forget(self) -> None:
        self.inputs.query.grad = self.inputs.items.grad = None
