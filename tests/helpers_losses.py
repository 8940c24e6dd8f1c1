"""What the tests of losses share: exact expectations over a small catalogue, and a loss built on its own."""

import itertools

import numpy as np
import torch

from fastpop import registry
from fastpop.objectives import LossInputs
from fastpop.popularity import InBatchProposal, UniformProposal

COUNTS = np.array([40.0, 17, 9, 5, 3])  # of five items


def distributions(seed=0):
    """p(i|c) [C, V] and q [V] of a small catalogue, float64."""
    generator = torch.Generator().manual_seed(seed)
    p_CV = torch.softmax(torch.randn(3, len(COUNTS), generator=generator, dtype=torch.float64), 1)
    q_V = torch.tensor(COUNTS) ** 0.75
    return p_CV, q_V / q_V.sum()


def optimum(loss_of, p_CV, q_V, num_negatives):
    """[C, V] free scores that minimise the loss in expectation, over every positive and every tuple of
    negatives; and the largest gradient there."""
    neg_NK = torch.tensor(list(itertools.product(range(len(q_V)), repeat=num_negatives)))
    weight_N = q_V[neg_NK].prod(1)
    score_CV = torch.zeros_like(p_CV, requires_grad=True)

    def expected():
        total = 0.0
        for score_V, p_V in zip(score_CV, p_CV):
            for item, p in enumerate(p_V):
                pos_N = score_V[item].expand(len(neg_NK))
                total = total + p * (weight_N * loss_of(pos_N, score_V[neg_NK])).sum()
        return total

    solver = torch.optim.LBFGS(
        [score_CV],
        max_iter=500,
        tolerance_grad=1e-11,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure():
        solver.zero_grad()
        value = expected()
        value.backward()
        return value

    solver.step(closure)
    closure()
    return score_CV.detach(), score_CV.grad.abs().max().item()


def centred(score_CV):
    return score_CV - score_CV.mean(1, keepdim=True)


def built(loss, num_items, *, in_batch=False, counts=None, seed=0, sparse=False):
    """The module of a loss, with uniform or in-batch negatives."""
    counts = np.arange(1.0, num_items + 1) if counts is None else counts
    proposal = InBatchProposal() if in_batch else UniformProposal()
    given = LossInputs(num_items, seed, sparse, proposal, lambda: counts, lambda: counts)
    return registry.made("loss", loss).build(given)


def rows(num_rows=4, num_items=9, dim=5, dtype=torch.float64, seed=0):
    """query [R, D], items [V, D], pos_id [R]."""
    generator = torch.Generator().manual_seed(seed)
    query, items = (torch.randn(n, dim, generator=generator, dtype=dtype) for n in (num_rows, num_items))
    return query, items, torch.randint(num_items, (num_rows,), generator=generator)


PLAIN = {"row_weight": None, "log_prior": None, "prior_weight": 1.0, "scale": 1.0}
