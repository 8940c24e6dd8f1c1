"""Rows that lie on a run's device: the host's batches, number for number. The CPU stands for a device."""

import dataclasses
import logging
import weakref

import numpy as np
import pytest
import torch
from helpers_captured import KINDS, as_on_a_device, assembled, recorder, state_of
from helpers_logs import small_log
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastpop.data import Interactions
from fastpop.data.batches import EventBatches, SequenceBatches
from fastpop.training import TrainConfig, build, loop, memory, resident, words

CPU = torch.device("cpu")
META = torch.device("meta")


@pytest.fixture
def on_a_device():
    with as_on_a_device():
        yield


def uneven_log(weighted):
    """Users of 1 to 40 events."""
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(60), rng.integers(1, 41, 60))
    weight = rng.random(len(user)).astype(np.float32) if weighted else None
    return Interactions.from_arrays(user, rng.integers(0, 50, len(user)), np.arange(len(user)), weight=weight)


def batches_of(kind, weighted, batch_size):
    log = uneven_log(weighted)
    return EventBatches(log, batch_size, 7) if kind == "events" else SequenceBatches(log, 9, batch_size, 7)


def of_layout(batch, layout, weight, step):
    """The words that a batch of the host is sent as."""
    found = torch.zeros(layout.words, dtype=torch.int64)
    layout.fill(found, batch, weight, step)
    return words.Rows.of(found, layout)


def assert_same(mine, theirs, names):
    for name in names:
        one, other = getattr(mine, name), getattr(theirs, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            assert torch.equal(one, other), name


@pytest.mark.parametrize("segment", [50, 400, 1 << 20])
@pytest.mark.parametrize("batch_size", [7, 32, 100_000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["events", "sequences"])
def test_batches_are_those_of_the_host(monkeypatch, kind, weighted, batch_size, segment):
    monkeypatch.setattr(resident, "SEGMENT", segment)
    host = batches_of(kind, weighted, batch_size)
    model = build_model(host.log, kind)
    for skip in (0, 3):
        theirs = list(host.epoch(2, skip))
        mine = list(resident.Resident(host, CPU, None).epoch(2, skip))
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs):
            names = ("user_B", "history_BL", "at_R", "target_R", "weight_R")
            assert_same(one.placed, model.placed(other), names)
            assert one.num_rows == other.num_rows
            assert one.weight == loop._pieces(other, 1)[0]
            for name, value in vars(one.host()).items():
                np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


@pytest.mark.parametrize("segment", [50, 1 << 20])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["events", "sequences"])
def test_buffers_of_graphs_are_those_that_the_host_sends(monkeypatch, kind, weighted, segment):
    """Sizes rounded up, totals and numbers of steps included."""
    monkeypatch.setattr(resident, "SEGMENT", segment)
    host = batches_of(kind, weighted, 37)
    mine = resident.Resident(host, CPU, 9).epoch(1, 2, 100)
    for number, (one, other) in enumerate(zip(mine, host.epoch(1, 2), strict=True)):
        layout = words.Layout.of(other, 9)
        assert one.layout == layout
        theirs = of_layout(other, layout, loop._pieces(other, 1)[0], 100 + number)
        names = [field.name for field in dataclasses.fields(words.Rows)]
        assert_same(words.Rows.of(one.words, layout), theirs, names)


def build_model(log, kind):
    options = {"encoder": "factor" if kind == "events" else "bag", "dim": 4, "max_length": 9}
    return build.build_model(TrainConfig(**options), log, np.zeros(log.num_items), log)


def resident_of(parts, longest=None):
    return dataclasses.replace(parts, resident=resident.Resident(parts.batches, CPU, longest))


def steps_of(parts, make, epochs=2):
    step, losses = 0, []
    for epoch in range(epochs):
        for batch in parts.epoch(epoch, 0, step):
            losses.append(float(make(parts, batch, step)[0]))
            step += 1
    return losses


@pytest.mark.usefixtures("on_a_device")
@pytest.mark.parametrize("kind", KINDS)
def test_steps_have_the_bits_of_those_whose_batches_are_sent(kind):
    one, other = (assembled(**KINDS[kind]) for _ in range(2))
    assert steps_of(resident_of(one), loop.train_step) == steps_of(other, loop.train_step)
    for mine, theirs in zip(state_of(one), state_of(other)):
        assert torch.equal(mine, theirs)


@pytest.mark.usefixtures("on_a_device")
@pytest.mark.parametrize("kind", ["factor", "sasrec, weighted, learned prior"])
def test_graphs_have_the_bits_of_those_whose_batches_are_sent(kind):
    one, other = (assembled(**KINDS[kind]) for _ in range(2))
    mine, theirs = recorder(one), recorder(other)
    assert steps_of(resident_of(one, 10), mine) == steps_of(other, theirs)
    assert mine.num_graphs == theirs.num_graphs > 0
    for here, there in zip(state_of(one), state_of(other)):
        assert torch.equal(here, there)


def test_what_is_against_it_is_logged(caplog):
    log = small_log()
    options = {"dim": 8, "encoder": "bert4rec", "accumulate": 2}
    config = TrainConfig(**options)
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    with caplog.at_level(logging.INFO):
        reasons = build._why_sent(config, False, True, False)
        assert resident.made_of(parts.batches, META, reasons, None) is None
    assert caplog.messages == [
        "batches are made on the host and sent: there is no room for the log on the device; "
        "log p is by period; accumulate is 2; MaskedBatches draws them there"
    ]
    assert resident.made_of(parts.batches, CPU, [], None) is None
    events = EventBatches(log, 32, 0)
    assert resident.made_of(events, META, [], None) is not None
    assert resident.made_of(events, META, ["a reason"], None) is None


@pytest.mark.parametrize(("encoder", "column"), [("factor", 8), ("sasrec", 4), ("bert4rec", 0)])
def test_rows_are_kept_where_the_rest_leaves_room(monkeypatch, encoder, column):
    monkeypatch.setattr(TrainConfig, "torch_device", lambda self: META)
    log, config = small_log(), TrainConfig(encoder=encoder, dim=8, max_length=10)
    kept = resident.bytes_of(log, 10, encoder == "factor") if column else 0
    assert kept == (column * log.num_events + 256 * ((1 << 20) + 10) if column else 0)
    assert memory.needed(config, log).parts["rows"] == kept
    need = memory.needed(config, log).total + memory.SPARE
    for room, keeps in ((need, True), (need - 1, not kept), (need - kept, not kept)):
        monkeypatch.setattr(memory, "free", lambda device, room=room: room)
        if kept or room == need:
            memory.check(config, log)
        assert memory.keeps_rows(config, log) == (keeps and bool(kept))
    if kept:
        monkeypatch.setattr(memory, "free", lambda device: need - kept - 1)
        with pytest.raises(MemoryError):
            memory.check(config, log)


@pytest.mark.parametrize("kind", ["events", "sequences"])
def test_a_segment_takes_no_more_than_was_counted(kind, monkeypatch):
    """Bytes of the tensors that live at once while a segment is gathered, at its worst: a target a window."""
    monkeypatch.setattr(resident, "SEGMENT", 1 << 13)
    log = Interactions.from_arrays(
        np.arange(20_000) // 2, np.arange(20_000) % 50, np.arange(20_000), weight=np.ones(20_000, np.float32)
    )
    host = EventBatches(log, 512, 7) if kind == "events" else SequenceBatches(log, 9, 512, 7)
    with Living() as living:
        for batch in resident.Resident(host, CPU, 9).epoch(0):
            living.look(batch.words)
    assert 0 < living.most <= resident.bytes_of(log, 512, kind == "events")


class Living(TorchDispatchMode):
    """The most bytes that the results of torch's operators have had at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in tree_leaves((args, found)):
            if isinstance(one, torch.Tensor):
                self.look(one)
        return found

    def look(self, one):
        self.alive[id(one)] = weakref.ref(one)
        storages = {}
        for key, reference in list(self.alive.items()):
            living = reference()
            if living is None:
                del self.alive[key]
            else:
                storages[living.untyped_storage().data_ptr()] = living.untyped_storage().nbytes()
        self.most = max(self.most, sum(storages.values()))
