"""Memory that nobody wrote is NaN under tests: what reads it shows."""

import numpy as np
import pytest
import torch

from fastpop.kernels import native
from fastpop.kernels.score_energy import reference
from fastpop.ops import full_softmax


def test_fresh_tensors_and_arrays_are_poison():
    for fresh in (native.new(3), torch.empty(3), torch.empty_like(torch.ones(3)), torch.ones(2).new_empty(3)):
        assert fresh.isnan().all()
    assert (torch.empty(3, dtype=torch.int32) == 2**31 - 1).all()
    assert np.isnan(reference.np.empty(3)).all()
    assert (reference.np.empty_like(np.ones(2, np.int64)) == 2**63 - 1).all()
    assert torch.empty(3, device="meta").shape == (3,)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_a_kernel_that_leaves_a_row_unwritten_is_noticed(monkeypatch, impl):
    """Its loss would be whatever lay there: often 0, which a test of rows that count for nothing takes."""
    import fastpop.ops._dispatch as dispatch

    query, items = torch.ones(3, 2), torch.ones(4, 2)
    pos_id = torch.tensor([0, 1, 2])
    assert full_softmax(query, items, pos_id, impl=impl).isfinite().all()
    module = dispatch.load("full_softmax", impl)
    whole = module.forward

    def short(inputs):
        lse_B, pos_logit_B = whole(inputs)
        written = torch.empty_like(lse_B)
        written[:-1] = lse_B[:-1]
        return written, pos_logit_B

    monkeypatch.setattr(module, "forward", short)
    assert full_softmax(query, items, pos_id, impl=impl).isnan().tolist() == [False, False, True]
