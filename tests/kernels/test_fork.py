"""A process made by os.fork from one whose threads it has not."""

import os
import subprocess
import sys

import pytest

FORKED = """
import os, signal, sys, warnings
import numpy as np, torch
from fastpop import Draw, ops, popularity
from fastpop.kernels import native
native.WORK_A_THREAD = 1
torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
query, items = (torch.randn(n, 16, generator=generator) for n in (64, 500))
pos_id, proposal = torch.arange(64), popularity.uniform(500)
neg_id = torch.randint(500, (64, 40), generator=generator)

def everything():
    items.grad = None
    items.requires_grad_()
    losses = [ops.full_softmax(query, items, pos_id, reduction="mean"),
              ops.sampled_softmax(query, items, pos_id, neg_id, logq="none", reduction="mean"),
              ops.sampled_softmax(query, items, pos_id, Draw(proposal, 0, 0, 50000), reduction="mean")]
    torch.stack(losses).sum().backward()
    table = torch.zeros(500, 16)
    ops.row_sgd_(table, pos_id, query, lr=1.0)
    ranks = ops.target_ranks(query, items.detach(), torch.arange(65), pos_id)
    ids = ops.top_items(query, items.detach(), 5)[0]
    energy = ops.score_energy(query, items.detach(), torch.arange(500.0), form="streamed")
    drawn = proposal.sample(0, 0, 1_000_000)[-5:]
    return [*(loss.item() for loss in losses), items.grad.abs().sum().item(), table.sum().item(),
            ranks.greater.sum().item(), ids.sum().item(), energy.total, drawn.sum()]

expected = everything() if sys.argv[1] == "used" else None
assert native.all_threads() == 2
child = os.fork()
if child == 0:
    signal.alarm(100)  # ends a child that waits for ever
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = everything()
    if expected is not None or native._C.has_lost_threads():
        assert [str(one.message)[:30] for one in said] == ["this process was forked from o"], said
        assert torch.get_num_threads() == 1
    if expected is not None:
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert native.all_threads() == 2
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("parent", ["used", "fresh"])
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not(parent):
    done = subprocess.run([sys.executable, "-c", FORKED, parent], capture_output=True, text=True, timeout=200)
    assert done.stdout == "fine\n", done.stderr
