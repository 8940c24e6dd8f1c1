"""Steps as graphs, without a card: a recording of torch's operators stands for CUDA's."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers_logs import small_log
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastpop
from fastpop import optim
from fastpop.data.batches import Batch
from fastpop.ops import row_update, validation
from fastpop.training import TrainConfig, build, captured, late, loop

OPTIONS = {
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "dropout": 0.2,
}
KINDS = {
    "factor": {"encoder": "factor"},
    "factor, inside backward": {"encoder": "factor", "update_in_backward": True},
    "factor, groups, a learned temperature": {
        "encoder": "factor",
        "group_size": 16,
        "learn_temperature": True,
    },
    "bag, row_adagrad": {"encoder": "bag", "table_optimizer": "row_adagrad"},
    "sasrec": {"encoder": "sasrec"},
    "sasrec, full": {"encoder": "sasrec", "loss": "full_softmax"},
    "sasrec, weighted, learned prior": {"encoder": "sasrec", "prior": "learned", "weighted": True},
}


class SparseSums(TorchDispatchMode):
    """As CUDA adds sparse tensors: the CPU looks for equal ids."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.add.Tensor and all(one.is_sparse for one in args):
            ids, rows = (torch.cat(parts, dim) for parts, dim in zip(zip(*map(numbers_of, args)), (1, 0)))
            return torch.sparse_coo_tensor(ids, rows, args[0].shape, check_invariants=False)
        return function(*args, **(kwargs or {}))


def numbers_of(tensor):
    return (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,)


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch):
    """Optimisers are fused: no Python reads their step counts. A gradient has rows for all that was drawn,
    and one of two parts is one after the other."""
    monkeypatch.setattr(optim, "fused_where", lambda device: {"fused": True})
    monkeypatch.setattr(validation, "shapes_are_fixed", lambda: True)
    with SparseSums():
        yield


def assembled(weighted=False, **options):
    log = small_log(weighted=weighted)
    config = TrainConfig(**OPTIONS | options)
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    stop = late.Stop(torch.device("cpu"))
    for one in parts.optimizers:
        one.found_inf = stop.flag
    return dataclasses.replace(parts, stop=stop)


def state_of(parts):
    """Every tensor that a step changes."""
    own = [value for one in parts.optimizers for state in one.state.values() for value in state.values()]
    return [*parts.model.state_dict().values(), *own, parts.stop.flag, parts.stop._seen]


class Recorded(TorchDispatchMode):
    """A graph: operators with the tensors that they were given, and the numbers as they were then."""

    def __init__(self, parts):
        super().__init__()
        self.parts, self.calls = parts, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, found))
        return found

    def record(self, function):
        state = state_of(self.parts)
        before = [one.clone() for one in state]
        step, self.real_step = row_update._step, row_update._step

        def noted(inputs, impl):
            self.calls.append((step, (inputs, impl), {}, None))
            with torch._C._DisableTorchDispatch():
                step(inputs, impl)

        row_update._step = noted
        try:
            with self:
                found = function()
        finally:
            row_update._step = step
        for one, was in zip(state, before):
            one.detach().copy_(was)
        return found

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, found in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again)):
                if isinstance(old, torch.Tensor) and old is not new:
                    for memory, value in zip(numbers_of(old), numbers_of(new)):
                        memory.detach().copy_(value)


def recorder(parts, graph=None):
    config, device = parts.config, parts.model.device
    return captured.Recorder(
        parts,
        lambda step: loop._seed_dropout(loop._mixed(config.seed, step), device),
        lambda: loop._autocast(config, device),
        graph or (lambda: Recorded(parts)),
    )


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
    kept = make.kept[captured.Layout.of(batch, OPTIONS["max_length"])]
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
    found = captured.rounded(number, per_doubling)
    assert number <= found <= number * (1 + 1 / per_doubling)
    assert captured.rounded(found, per_doubling) == found
    assert captured.rounded(4096) == 4096


def test_sizes_between_powers_of_two_are_few():
    assert len({captured.rounded(number) for number in range(1025, 2049)}) == captured.SIZES_PER_DOUBLING


def test_words_of_a_batch_come_back_as_it_was():
    batch = Batch(
        user=np.array([5, 9, 2]),
        history=np.array([[1, 2, 3], [4, -1, -1], [6, 7, -1]]),
        target=np.array([[2, 3, 8], [5, -1, -1], [7, -1, -1]]),
        weight=np.array([[1, 2, 3], [4, 0, 0], [5, 0, 0]], np.float32),
    )
    layout = captured.Layout(4, 4, 7)
    words = torch.empty(layout.words, dtype=torch.int64)
    layout.fill(words, batch, 15.0, 2**40)
    rows = captured.Rows.of(words, layout)
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
