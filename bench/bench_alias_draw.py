"""Draws from popularity^0.75."""

import numpy as np
import pytest
import torch
from conftest import zipf_counts
from shapes import DRAWS

from fastpop import popularity


@pytest.mark.parametrize("contender", [
    "fastpop cpu", "fastpop reference", "torch.multinomial", "numpy Generator.choice"])
@pytest.mark.parametrize("shape", DRAWS, ids=str)
def test_alias_draw(shape, contender, measure):
    items, draws = shape
    counts = zipf_counts(items)
    proposal = popularity.power(counts, 0.75)
    law = np.exp(proposal.log_proposal_V)
    weights, rng = torch.from_numpy(law), np.random.default_rng(0)
    run = {
        "fastpop cpu": lambda: proposal.sample(0, 0, draws),
        "fastpop reference": lambda: proposal.sample(0, 0, draws, impl="reference"),
        "torch.multinomial": lambda: torch.multinomial(weights, draws, replacement=True),
        "numpy Generator.choice": lambda: rng.choice(items, draws, p=law / law.sum()),
    }[contender]
    head = np.bincount(np.asarray(run()), minlength=items)[law.argmax()] / draws
    assert abs(head - law.max()) < 6 * np.sqrt(law.max() / draws)
    measure(contender, shape, run)
