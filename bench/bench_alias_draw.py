"""Draws from popularity^0.75, with replacement."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from measuring import DEVICE, zipf_counts
from shapes import DRAWS, Draws

from fastpop import Draw, popularity
from fastpop.ops._dispatch import IMPLEMENTATIONS


@lru_cache(maxsize=1)
def proposal_of(shape: Draws):
    return popularity.power(zipf_counts(shape.items), 0.75)


def ours(impl, proposal, draws):
    if impl in ("triton", "cuda"):
        draw = Draw(proposal, 0, 0, draws)
        try:
            draw.tensor(1, DEVICE, impl=impl)
        except NotImplementedError as refusal:
            pytest.skip(f"fastpop {impl}: {refusal}")
        return lambda: draw.tensor(1, DEVICE, impl=impl)
    return lambda: proposal.sample(0, 0, draws, impl=impl)


def theirs(name, probability_V, draws):
    """Set up once, as ours is: what repeats in training is the draw alone, where the API lets it."""
    weight, rng = torch.from_numpy(probability_V), np.random.default_rng(0)
    cumulative = weight.cumsum(0)
    return {
        "torch.multinomial": lambda: torch.multinomial(weight, draws, replacement=True),
        "torch.searchsorted of the sums": lambda: torch.searchsorted(
            cumulative, torch.rand(draws, dtype=torch.float64)
        ),
        "numpy Generator.choice": lambda: rng.choice(len(probability_V), draws, p=probability_V),
    }[name]


PEERS = ("torch.multinomial", "torch.searchsorted of the sums", "numpy Generator.choice")


@pytest.mark.parametrize(
    "contender", [f"fastpop {impl}" for impl in IMPLEMENTATIONS["alias_draw"]] + list(PEERS)
)
@pytest.mark.parametrize("shape", DRAWS, ids=str)
def test_alias_draw(shape, contender, measure):
    proposal = proposal_of(shape)
    probability_V = np.exp(proposal.log_proposal_V)
    probability_V /= probability_V.sum()
    run = (
        theirs(contender, probability_V, shape.draws)
        if contender in PEERS
        else ours(contender.removeprefix("fastpop "), proposal, shape.draws)
    )
    # The hundred likeliest items, each within six standard errors of its share.
    head = np.argsort(-probability_V)[:100]
    found = np.bincount(torch.as_tensor(run()).cpu().numpy().ravel(), minlength=shape.items)[head]
    share = probability_V[head]
    assert (np.abs(found / shape.draws - share) < 6 * np.sqrt(share / shape.draws)).all()
    measure(contender, shape, run)
