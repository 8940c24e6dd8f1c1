"""The kernels' threads: no bit depends on how many there are or on their neighbours, and they seldom meet."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from fastpop import _C, Draw, ops, popularity


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss, *inputs):
    return [loss.detach(), *torch.autograd.grad(loss.sum(), inputs, materialize_grads=True)]


def sampled(rows=500, negatives=1500, dim=48, items=4000, dtype=torch.float32, learned=False, **more):
    query = (0.3 * numbers(rows, dim)).to(dtype).requires_grad_()
    table = (0.3 * numbers(items, dim, seed=1)).to(dtype).requires_grad_()
    scale = torch.tensor(0.7, requires_grad=learned)
    pos_id = torch.randint(items, (rows,), generator=torch.Generator().manual_seed(2))
    more = {"group_size": None, "reduction": "sum"} | more
    draw = Draw(popularity.uniform(items), 3, 5, negatives, more.pop("group_size"))
    loss = ops.sampled_softmax(query, table, pos_id, draw, scale=scale, impl="cpu", **more)
    return gradients(loss, query, table, *([scale] if learned else []))


def full(dtype=torch.float32, learned=False):
    query = (0.3 * numbers(300, 24)).to(dtype).requires_grad_()
    items = (0.3 * numbers(7003, 24, seed=1)).to(dtype).requires_grad_()
    log_prior, scale = numbers(7003, seed=2).log_softmax(0), torch.tensor(0.7, requires_grad=learned)
    log_prior.requires_grad_(learned)
    loss = ops.full_softmax(
        query, items, torch.arange(300) * 23, log_prior=log_prior, scale=scale, impl="cpu"
    )
    return gradients(loss, query, items, *([scale, log_prior] if learned else []))


def ranks():
    target = torch.arange(300) * 23
    return list(ops.target_ranks(numbers(300, 24), numbers(7003, 24, seed=1), torch.arange(301), target))


def top(rows):
    return list(ops.top_items(numbers(rows, 24), numbers(7003, 24, seed=1), 50, impl="cpu"))


def energy(form):
    found = ops.score_energy(
        numbers(300, 24), numbers(7003, 24, seed=1), numbers(7003, seed=2).double().numpy(), form=form
    )
    return [torch.tensor([found.total, found.direction], dtype=torch.float64)]


def adagrad():
    table, square = numbers(5000, 32), torch.zeros(5000)
    ids = torch.randint(3000, (9000,), generator=torch.Generator().manual_seed(3))
    ops.row_adagrad_(table, ids, numbers(9000, 32, seed=4), square, lr=0.1, impl="cpu")
    return [table, square]


def drawn():
    return [torch.from_numpy(popularity.uniform(10_000).sample(0, 0, 300_000))]


# What is called, and how often its threads meet: the ends of its parallel regions, and gates in them
# (csrc/steps.h), at each of which all may wait for one that another program keeps from its core.
CALLS = {
    "sampled softmax": (sampled, 2),
    "sampled softmax, bfloat16": (partial(sampled, dtype=torch.bfloat16), 2),
    "sampled softmax, more rows": (partial(sampled, rows=2000), 2),
    "sampled softmax, learned scale": (partial(sampled, learned=True, dtype=torch.bfloat16), 2),
    "sampled softmax, no whole vectors": (partial(sampled, dim=37), 2),
    "sampled softmax, groups": (partial(sampled, group_size=50), 3),
    "sampled softmax, losses of rows": (partial(sampled, reduction="none"), 3),
    "sampled softmax, two windows": (
        partial(sampled, reduction="none", negatives=50_000, dim=64, rows=30),
        6,
    ),
    "sampled softmax, negatives of rows": (partial(sampled, group_size=1, negatives=300), 2),
    "full softmax": (full, 6),
    "full softmax, bfloat16": (partial(full, dtype=torch.bfloat16), 6),
    "full softmax, learned scale and prior": (partial(full, learned=True, dtype=torch.bfloat16), 6),
    "target ranks": (ranks, 3),
    "top items, few queries": (partial(top, 20), 2),
    "top items": (partial(top, 700), 1),
    "score energy, every score": (partial(energy, "streamed"), 1),
    "score energy, Gram form": (partial(energy, "gram"), 1),
    "row-wise Adagrad": (adagrad, 1),
    "alias draws": (drawn, 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_threads_change_no_bit(call, threads):
    run, _ = CALLS[call]
    threads(1)
    first = run()
    assert all(torch.isfinite(one).all() for one in first)
    for number in (2, 3, 7):
        threads(number)
        for one, other in zip(first, run(), strict=True):
            assert torch.equal(one.to_dense(), other.to_dense()), number


def with_others(*calls):
    return _C.keep_company(
        [(*things, int(1e6 * worked), int(1e6 * waited)) for *things, worked, waited in calls]
    )


def test_a_call_whose_others_come_late_is_made_alone_for_a_while():
    """Numbers of things, of all and of the caller, milliseconds worked and waited."""
    late, soon = (100, 50, 1, 3), (100, 50, 1, 0.2)
    assert with_others(*[soon] * 9) == [True] * 9
    found = with_others(*[late] * 200)
    between = np.diff(np.flatnonzero(found)) - 1
    assert between.tolist() == [4, 8, 16, 32, 64, 64]  # one call in 65 waits
    found = with_others(late, *[soon] * 20)
    assert found == [True] + [False] * 4 + [True] * 16  # one that came in time is company again
    assert with_others(late, *[soon] * 5, late, *[soon] * 4) == [True, *[False] * 4, True, True, *[False] * 4]


def test_long_calls_and_short_waits_keep_company():
    assert with_others(*[(100, 50, 5, 3)] * 9) == [True] * 9  # alone it would take longer
    assert with_others(*[(100, 50, 0.1, 0.2)] * 9) == [True] * 9  # the noise of waking
    assert with_others(*[(100, 0, 0, 3)] * 9) == [True] * 9  # nothing is known of how fast the caller is
    late = (100, 50, 1, 3)
    assert with_others(late, (201, 100, 1, 3), late, late) == [True, True, False, False]
    assert with_others(late, (200, 100, 1, 3), (1, 1, 1, 3)) == [True, False, False]


def test_many_threads_keep_company_beside_one_that_is_late():
    """Sixteen, each a sixteenth of 20 ms: alone is longer than a slice that is waited for."""
    assert with_others(*[(1600, 100, 1.25, 3)] * 9) == [True] * 9
    assert with_others((1600, 1600, 20, 3), (1600, 100, 1.25, 3)) == [True, False]  # the others did nothing


@pytest.mark.parametrize("call", CALLS)
def test_how_often_threads_meet(call, threads):
    """Neither rows nor items nor threads add to it: beside busy processes each may cost a time slice."""
    run, expected = CALLS[call]
    for number in (2, 5):
        threads(number)
        before = _C.num_meetings() + _C.num_alone()  # where a thread came late, its next calls go alone
        run()
        assert _C.num_meetings() + _C.num_alone() - before == expected
    threads(1)
    before = _C.num_meetings()
    run()
    assert _C.num_meetings() == before


def test_busy_neighbours_change_no_bit(threads):
    """More threads than cores, and processes that spin on each: pieces end in every order."""
    calls = [run for run, _ in CALLS.values()]
    threads(1)
    first = [run() for run in calls]
    spinning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)
    ]
    try:
        threads(2 * (os.cpu_count() or 1) + 1)
        for want, run in zip(first, calls, strict=True):
            for one, other in zip(want, run(), strict=True):
                assert torch.equal(one.to_dense(), other.to_dense())
    finally:
        for process in spinning:
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", [1, 2, 5])
def test_what_a_piece_throws_ends_the_call(number):
    """On whichever thread; those that wait for the piece go home, too."""
    for step, piece in ((0, 0), (0, 3), (2, 1), (4, 6)):
        with pytest.raises(RuntimeError, match=f"^piece {piece} of step {step}$"):
            _C.run_steps(threads=number, num_steps=5, num_pieces=7, bad_step=step, bad_piece=piece)
    assert _C.run_steps(threads=number, num_steps=5, num_pieces=7, bad_step=-1, bad_piece=-1) == 35
