"""What drawing inside a kernel must give: the law of the table, and gradients right in the mean."""

import numpy as np
import pytest
import torch
from helpers_softmax import implementations_here
from scipy.stats import chisquare

import fastpop
from fastpop import ops, popularity

IMPLS = implementations_here("sampled_softmax")


def counts_drawn_inside(draw, num_rows, num_items, impl):
    """How often each item was drawn, read off a gradient: where all logits are 0, that of log p is
    count / (K + 1) a row."""
    log_prior = torch.zeros(num_items + 1, requires_grad=True)
    table = torch.zeros(num_items + 1, 3)
    pos_id = torch.full((num_rows,), num_items)  # an item that the law never draws
    ops.sampled_softmax(torch.zeros(num_rows, 3), table, pos_id, draw, log_prior=log_prior, logq="none",
                        reduction="sum", impl=impl).backward()
    return log_prior.grad[:-1] * (draw.num_negatives + 1)


@pytest.mark.parametrize("group_size", [None, 4, 1], ids=["shared", "groups", "a set for each row"])
@pytest.mark.parametrize("impl", IMPLS)
def test_items_are_drawn_by_the_law_of_the_proposal(impl, group_size):
    num_items, num_rows, num_negatives = 40, 8, 6_000
    weight = np.append(np.arange(1, num_items + 1) ** 1.5, 0.0)
    law = popularity.Proposal.from_weights(weight)
    draw = fastpop.Draw(law, 11, 5, num_negatives, group_size)
    found = counts_drawn_inside(draw, num_rows, num_items, impl)
    rows_a_set = {None: num_rows, 4: 4, 1: 1}[group_size]
    counts = (found / rows_a_set).double().numpy()
    expected = np.bincount(draw.ids(num_rows).reshape(-1), minlength=num_items)
    np.testing.assert_array_equal(counts.round(), expected)  # bit for bit those of the host
    law_V = np.exp(law.log_proposal_V[:-1])
    assert chisquare(counts.round(), law_V / law_V.sum() * counts.round().sum()).pvalue > 1e-3


@pytest.mark.parametrize("logq", ["standard", "corrected"])
@pytest.mark.parametrize("impl", IMPLS)
def test_the_gradient_tends_to_that_of_the_full_softmax(impl, logq):
    """The error of a mean over steps falls with the number of negatives, bias included."""
    generator = torch.Generator().manual_seed(0)
    query, table = (torch.randn(rows, 8, generator=generator) for rows in (12, 60))
    pos_id = torch.randint(60, (12,), generator=generator)
    log_prior = torch.randn(60, generator=generator)
    law = popularity.power(np.arange(1, 61), 0.7)

    def gradient(function):
        leaf = table.clone().requires_grad_()
        function(leaf).backward()
        return leaf.grad

    full = gradient(lambda items: ops.full_softmax(query, items, pos_id, log_prior=log_prior,
                                                   reduction="mean", impl="reference"))
    def sampled(num_negatives, step):
        draw = fastpop.Draw(law, 0, step, num_negatives)
        return gradient(lambda items: ops.sampled_softmax(
            query, items, pos_id, draw, log_prior=log_prior, logq=logq, reduction="mean", impl=impl))

    errors = []
    for num_negatives in (64, 4096):
        steps = torch.stack([sampled(num_negatives, step) for step in range(40)])
        errors.append((steps.mean(0) - full).norm() / full.norm())
    assert errors[1] < 0.01
    assert errors[1] < errors[0] / 4
