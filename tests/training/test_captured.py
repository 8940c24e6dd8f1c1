"""Steps as graphs, without a card: a recording of torch's operators stands for CUDA's."""

import numpy as np
import pytest
import torch
from helpers_captured import KINDS, OPTIONS, as_on_a_device, assembled, recorder, state_of
from helpers_logs import small_log
from torch.utils._python_dispatch import TorchDispatchMode

import fastpop
from fastpop.data.batches import Batch
from fastpop.training import captured, loop, words


@pytest.fixture(autouse=True)
def on_a_device():
    with as_on_a_device():
        yield


def steps_of(parts, make, epochs=2):
    step, losses = 0, []
    for epoch in range(epochs):
        for batch in parts.batches.epoch(epoch):
            losses.append(float(make(parts, batch, step)[0]))
            step += 1
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_step_has_the_bits_of_one_that_is_made(monkeypatch, kind):
    one, other = (assembled(**KINDS[kind]) for _ in range(2))
    replaying, making = recorder(one), recorder(other)
    losses = steps_of(one, replaying)
    monkeypatch.setattr(captured, "MOST_GRAPHS", 0)
    assert steps_of(other, making) == losses
    assert replaying.num_graphs > 0
    assert making.num_graphs == 0
    for mine, theirs in zip(state_of(one), state_of(other)):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_step_is_the_trainers_own(kind):
    """Rows that are added at a weight of 0 change roundings alone."""
    options = KINDS[kind] | {"dropout": 0.0}
    one, other = (assembled(**options) for _ in range(2))
    np.testing.assert_allclose(
        steps_of(one, recorder(one)), steps_of(other, loop.train_step), rtol=2e-4, atol=1e-4
    )


def test_a_step_is_one_copy_and_one_replay(monkeypatch):
    parts = assembled(encoder="sasrec")
    make = recorder(parts)
    steps_of(parts, make)
    batch = next(iter(parts.batches.epoch(0)))
    kept = make.kept[words.Layout.of(batch, OPTIONS["max_length"])]
    assert kept.graph is not None

    names = []

    class Outside(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function.__name__.split(".")[0])
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr(kept.graph, "replay", lambda: names.append("replay"))
    with Outside():
        make(parts, batch, 1000)
    of_memory = ("empty", "fill_", "detach")  # fresh memory, and what the tests fill it with
    assert [name for name in names if name not in of_memory] == ["copy_", "replay", "clone"]


@pytest.mark.parametrize("number", [*range(1, 40), 64, 100, 4095, 4096, 4097, 5000])
@pytest.mark.parametrize("per_doubling", [2, 8])
def test_sizes_are_rounded_up_a_little(number, per_doubling):
    found = words.rounded(number, per_doubling)
    assert number <= found <= number * (1 + 1 / per_doubling)
    assert words.rounded(found, per_doubling) == found
    assert words.rounded(4096) == 4096


def test_sizes_between_powers_of_two_are_few():
    assert len({words.rounded(number) for number in range(1025, 2049)}) == words.SIZES_PER_DOUBLING


def test_words_of_a_batch_come_back_as_it_was():
    batch = Batch(
        user=np.array([5, 9, 2]),
        history=np.array([[1, 2, 3], [4, -1, -1], [6, 7, -1]]),
        target=np.array([[2, 3, 8], [5, -1, -1], [7, -1, -1]]),
        weight=np.array([[1, 2, 3], [4, 0, 0], [5, 0, 0]], np.float32),
    )
    layout = words.Layout(4, 4, 7)
    buffer = torch.empty(layout.words, dtype=torch.int64)
    layout.fill(buffer, batch, 15.0, 2**40)
    rows = words.Rows.of(buffer, layout)
    assert rows.user_B.tolist() == [5, 9, 2, 5]
    assert rows.history_BL.tolist() == [[1, 2, 3, -1], [4, -1, -1, -1], [6, 7, -1, -1], [1, 2, 3, -1]]
    assert rows.at_R.tolist() == [0, 1, 2, 4, 8, 0, 0]
    assert rows.target_R.tolist() == [2, 3, 8, 5, 7, 2, 2]
    assert rows.weight_R.tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert (rows.total.item(), rows.step.item()) == (15.0, 2**40)


def test_what_cannot_be_recorded_is_said():
    with pytest.raises(ValueError, match=r"cuda_graph: expected False where device is cpu; clip_norm is 1.0"):
        fastpop.train(small_log(), cuda_graph=True, clip_norm=1.0, device="cpu", **OPTIONS, progress=False)
    parts = assembled(encoder="gru4rec", loss="bpr", accumulate=2, regularizers="l2")
    assert captured.cannot(parts) == [
        "device is cpu",
        "accumulate is 2",
        "there are regularizers",
        "rows of loss='bpr' with proposal='mixture' may see each other",
        "encoder='gru4rec' does not say that it waits for nothing",
    ]
