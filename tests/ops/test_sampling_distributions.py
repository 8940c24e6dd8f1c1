"""What drawing inside a kernel must give: the distribution of the table, and gradients right in the mean."""

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
    pos_id = torch.full((num_rows,), num_items)  # an item that the distribution never draws
    ops.sampled_softmax(
        torch.zeros(num_rows, 3),
        table,
        pos_id,
        draw,
        log_prior=log_prior,
        logq="none",
        reduction="sum",
        impl=impl,
    ).backward()
    return log_prior.grad[:-1] * (draw.num_negatives + 1)


@pytest.mark.parametrize("group_size", [None, 4, 1], ids=["shared", "groups", "a set for each row"])
@pytest.mark.parametrize("impl", IMPLS)
def test_items_are_drawn_by_the_distribution_of_the_proposal(impl, group_size):
    num_items, num_rows, num_negatives = 40, 8, 6_000
    weight = np.append(np.arange(1, num_items + 1) ** 1.5, 0.0)
    proposal = popularity.Proposal.from_weights(weight)
    draw = fastpop.Draw(proposal, 11, 5, num_negatives, group_size)
    found = counts_drawn_inside(draw, num_rows, num_items, impl)
    rows_a_set = {None: num_rows, 4: 4, 1: 1}[group_size]
    counts = (found / rows_a_set).double().numpy()
    expected = np.bincount(draw.ids(num_rows).reshape(-1), minlength=num_items)
    np.testing.assert_array_equal(counts.round(), expected)  # bit for bit those of the host
    probability_V = np.exp(proposal.log_proposal_V[:-1])
    assert chisquare(counts.round(), probability_V / probability_V.sum() * counts.round().sum()).pvalue > 1e-3


@pytest.mark.parametrize("logq", ["standard", "corrected"])
@pytest.mark.parametrize("impl", IMPLS)
def test_the_gradient_tends_to_that_of_the_full_softmax(impl, logq):
    """The error of a mean over steps falls with the number of negatives, bias included."""
    generator = torch.Generator().manual_seed(0)
    query, table = (torch.randn(rows, 8, generator=generator) for rows in (12, 60))
    pos_id = torch.randint(60, (12,), generator=generator)
    log_prior = torch.randn(60, generator=generator)
    proposal = popularity.power(np.arange(1, 61), 0.7)

    def gradient(function):
        leaf = table.clone().requires_grad_()
        function(leaf).backward()
        return leaf.grad

    full = gradient(
        lambda items: ops.full_softmax(
            query, items, pos_id, log_prior=log_prior, reduction="mean", impl="reference"
        )
    )

    def sampled(num_negatives, step):
        draw = fastpop.Draw(proposal, 0, step, num_negatives)
        return gradient(
            lambda items: ops.sampled_softmax(
                query, items, pos_id, draw, log_prior=log_prior, logq=logq, reduction="mean", impl=impl
            )
        )

    errors = []
    for num_negatives in (64, 4096):
        steps = torch.stack([sampled(num_negatives, step) for step in range(40)])
        errors.append((steps.mean(0) - full).norm() / full.norm())
    assert errors[1] < 0.01
    assert errors[1] < errors[0] / 4


def expected_loss(z_V, p_V, q_V, num_negatives, logq):
    """Over every positive and every sequence of negatives, by their chances: exact, float64."""
    num_items = len(p_V)
    rows = torch.cartesian_prod(*[torch.arange(num_items)] * (1 + num_negatives))
    chance = p_V[rows[:, 0]] * q_V[rows[:, 1:]].prod(1)
    nothing = torch.zeros(len(rows), 1, dtype=torch.float64)
    return ops.sampled_softmax(
        nothing,
        torch.zeros(num_items, 1, dtype=torch.float64),
        rows[:, 0],
        rows[:, 1:].contiguous(),
        log_prior=z_V,
        log_proposal=q_V.log(),
        logq=logq,
        row_weight=chance,
        reduction="none",
        impl="reference",
    ).sum()


def slope_of_the_best(p_V, q_V, num_negatives, logq):
    """(slope on log p of the scores that minimise the expected loss, their distance from that line)."""
    z_V = p_V.log().clone().requires_grad_()
    search = torch.optim.LBFGS(
        [z_V], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        loss = expected_loss(z_V, p_V, q_V, num_negatives, logq)
        loss.backward()
        return loss

    search.step(closure)
    log_p, best = p_V.log() - p_V.log().mean(), z_V.detach() - z_V.detach().mean()
    slope = (best @ log_p / (log_p @ log_p)).item()
    return slope, (best - slope * log_p).abs().max().item()


P_V = (1 / torch.arange(1.0, 5, dtype=torch.float64)) / (1 / torch.arange(1.0, 5, dtype=torch.float64)).sum()


@pytest.mark.parametrize("proposal", ["uniform", "popularity", "the other way round"])
def test_standard_is_exact_in_expectation_at_every_number_of_negatives(proposal):
    q_V = {"uniform": torch.full_like(P_V, 0.25), "popularity": P_V, "the other way round": P_V.flip(0)}[
        proposal
    ]
    for num_negatives in (1, 2, 4):
        z_V = P_V.log().clone().requires_grad_()
        expected_loss(z_V, P_V, q_V, num_negatives, "standard").backward()
        assert z_V.grad.abs().max() < 1e-14
        slope, off = slope_of_the_best(P_V, q_V, num_negatives, "standard")
        assert slope == pytest.approx(1, abs=1e-6)
        assert off < 1e-6


def test_corrected_is_biased_at_few_negatives():
    """What the docstring says, with the values that an enumeration of counts gives (4 items, Zipf)."""
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    for num_negatives, slope in ((1, 1.951), (2, 1.431), (4, 1.175)):
        found, _ = slope_of_the_best(P_V, uniform, num_negatives, "corrected")
        assert found == pytest.approx(slope, abs=6e-4)
    assert slope_of_the_best(P_V, P_V, 1, "corrected")[0] == pytest.approx(0.5, abs=1e-6)
    assert slope_of_the_best(P_V, P_V, 2, "corrected")[0] == pytest.approx(0.836, abs=6e-4)
