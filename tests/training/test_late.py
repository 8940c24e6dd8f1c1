"""Losses that are read late: where a run stops, and what it leaves as it was, without a card.

A stop is put beside the optimisers of the processor, which then heed it as those of a device do."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop import ops, optim
from fastpop.objectives import ImportanceSampling
from fastpop.ops import summed_ids
from fastpop.training import TrainConfig, TrainingDiverged, build, checkpoint, late, loop, run

QUICK = {
    "epochs": 2,
    "dim": 8,
    "batch_size": 32,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "progress": False,
    "device": "cpu",
}


@pytest.fixture
def late_losses(monkeypatch):
    """On the processor, too, losses are tensors that nobody waits for."""
    monkeypatch.setattr(optim, "fused_where", lambda device: {"fused": True})
    real = build.stop_of
    monkeypatch.setattr(build, "stop_of", lambda optimizers, _: as_on_a_device(real, optimizers))


def as_on_a_device(real, optimizers):
    stop = real(optimizers, torch.device("meta"))
    if stop is None:
        return None
    stop.flag, stop._seen = torch.zeros(()), torch.zeros(())
    for one in optimizers:
        one.found_inf = stop.flag
    return stop


def weights(result):
    return {name: value.clone() for name, value in result.model.state_dict().items()}


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "factor"},
        {"encoder": "sasrec"},
        {"encoder": "factor", "accumulate": 3},
        {"encoder": "factor", "loss": "full_softmax"},
        {"encoder": "factor", "update_in_backward": True, "table_optimizer": "row_adagrad"},
        {"encoder": "bag", "prior": "by-period"},
        {"encoder": "factor", "loss": ImportanceSampling(block=16, most=64, effective=12.0, rate=0.2)},
        {"encoder": "bag", "regularizers": "cosreg"},
    ],
    ids=str,
)
def test_a_run_whose_losses_are_read_late_has_the_bits_of_one_that_waits(monkeypatch, late_losses, options):
    there = fastpop.train(small_log(), **QUICK | options)
    monkeypatch.setattr(build, "stop_of", lambda *_: None)
    here = fastpop.train(small_log(), **QUICK | options)
    assert [row["loss"] for row in there.history] == pytest.approx(
        [row["loss"] for row in here.history], rel=1e-6 if "accumulate" in options else 0
    )
    for name, value in weights(here).items():
        assert torch.equal(weights(there)[name], value), name


def breaks_at(monkeypatch, at, value=float("nan")):
    """The loss of one step becomes this; gives the weights before and after each step."""
    real, seen = loop.summed_loss, []

    def broken(parts, *given):
        step = given[5]["step"]
        seen.append({name: one.clone() for name, one in parts.model.state_dict().items()})
        found = real(parts, *given)
        return found * value if step == at else found

    monkeypatch.setattr(loop, "summed_loss", broken)
    return seen


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("inside", [False, True])
def test_a_loss_that_is_not_finite_reaches_no_table_and_ends_the_run(
    tmp_path, monkeypatch, late_losses, value, inside
):
    seen = breaks_at(monkeypatch, 5, value)
    with pytest.raises(TrainingDiverged, match=r"at step 5 \(epoch 1, batch 6\)") as caught:
        fastpop.train(small_log(), out=tmp_path / "run", update_in_backward=inside, **QUICK)
    assert "Nothing was updated in this step or after it" in str(caught.value)
    assert len(seen) > 8  # the host went on for a while
    for later in seen[6:]:
        for name, one in later.items():
            assert torch.equal(one, seen[5][name]), name
    assert not torch.equal(seen[4]["decoder.item_embedding"], seen[5]["decoder.item_embedding"])
    log = small_log()
    config = TrainConfig(**{name: one for name, one in QUICK.items() if name != "progress"})
    split = run.make_split(log, None, config)
    parts = build.assemble(config, log, split.train, np.zeros(log.num_items))
    batch = list(parts.batches.epoch(0))[5]
    with np.load(tmp_path / "run" / "failed-batch.npz") as saved:
        np.testing.assert_array_equal(saved["user"], batch.user)
        np.testing.assert_array_equal(saved["target"], batch.target)
    assert checkpoint.latest(tmp_path / "run") is None


def test_no_checkpoint_is_kept_of_a_run_that_has_met_one(tmp_path, monkeypatch, late_losses):
    """Asked for within the epoch, before the losses were due."""
    breaks_at(monkeypatch, 3)
    monkeypatch.setattr(late, "EVERY", 10**6)
    real, steps = loop.train_step, []

    def hour(*given):
        steps.append(1)
        return real(*given)

    monkeypatch.setattr(loop, "train_step", hour)
    monkeypatch.setattr(loop.time, "monotonic", lambda: 3600.0 * (len(steps) >= 7))
    with pytest.raises(TrainingDiverged, match="at step 3 "):
        fastpop.train(small_log(), out=tmp_path / "run", **QUICK)
    assert len(steps) == 7
    assert checkpoint.latest(tmp_path / "run") is None


def test_losses_are_read_every_so_many_steps_in_order():
    added, failed = [], []
    losses = late.Losses(lambda *pair: added.append(pair), lambda met, loss: failed.append((met.step, loss)))
    for step in range(late.EVERY + 1):
        losses.met(late.Met(step, 0, step, None, torch.tensor(float(step)), 2.0))
        assert len(added) == (late.EVERY if step + 1 >= late.EVERY else 0)
    assert added == [(2.0 * step, 2.0) for step in range(late.EVERY)]
    losses.met(late.Met(99, 0, 99, None, float("inf"), 1.0))
    assert added[-2:] == [(2.0 * late.EVERY, 2.0), (float("inf"), 1.0)]
    assert failed == [(99, float("inf"))]


def test_an_optimiser_that_heeds_no_stop_is_waited_for():
    table = torch.nn.Parameter(torch.zeros(3, 2))
    ours, theirs = optim.RowSGD([table]), torch.optim.SGD([table], lr=0.1)
    assert late.stop_of([ours, theirs], torch.device("meta")) is None
    assert late.stop_of([ours], torch.device("cpu")) is None
    assert ours.found_inf is None
    stop = late.stop_of([ours], torch.device("meta"))
    assert ours.found_inf is stop.flag


def test_a_loss_that_adapts_past_any_loss_is_waited_for(monkeypatch, late_losses):
    log = small_log()
    options = {name: one for name, one in QUICK.items() if name != "progress"}
    config = TrainConfig(loss=ImportanceSampling(block=16, most=64), **options)
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    assert parts.loss.found_inf is parts.stop.flag
    monkeypatch.setattr(type(parts.loss), "heeds_found_inf", False)
    assert build.assemble(config, log, log, np.zeros(log.num_items)).stop is None


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_no_row_is_updated_where_the_stop_says_so(impl):
    given = {"table": torch.ones(4, 3), "ids": torch.tensor([1, 1, 3]), "rows": torch.ones(3, 3)}
    stop = torch.zeros(())
    ops.row_sgd_(**given, lr=1.0, found_inf=stop, impl=impl)
    assert given["table"][:, 0].tolist() == [1, -1, 1, 0]
    for value in (1.0, float("nan")):
        stop.fill_(value)
        ops.row_sgd_(**given, lr=1.0, found_inf=stop, impl=impl)
        assert given["table"][:, 0].tolist() == [1, -1, 1, 0]
    with pytest.raises(TypeError, match="found_inf: expected one float32 number"):
        ops.row_sgd_(**given, lr=1.0, found_inf=torch.zeros(2))


def test_summed_ids_are_known_through_autograd_and_no_others_are():
    items = torch.randn(30, 4).requires_grad_()
    query, pos_id, neg_id = torch.randn(9, 4), torch.arange(9), torch.arange(30)[torch.randperm(30)]
    loss = functools.partial(ops.sampled_softmax, query, items, pos_id, neg_id, logq="none", sparse_grad=True)
    loss(reduction="sum").backward()
    assert summed_ids.is_marked(items.grad._indices()[0])
    loss(reduction="sum").backward()  # a second gradient beside the first: neither in order nor summed
    assert not summed_ids.is_marked(items.grad._indices()[0])
    assert not summed_ids.is_marked(items.grad._indices()[0][:3])
    marked = torch.arange(5)
    summed_ids.mark(marked)
    assert summed_ids.is_marked(marked)
    assert not summed_ids.is_marked(marked[1:])
    assert not summed_ids.is_marked(marked.clone())
    del marked
    summed_ids.mark(torch.arange(3))
    assert all(not one.expired() or one in summed_ids._MARKED for one in summed_ids._MARKED)


def test_assembly_has_a_stop_where_a_device_is_not_waited_for(monkeypatch, late_losses):
    log = small_log()
    parts = build.assemble(TrainConfig(dim=8, device="cpu"), log, log, np.zeros(log.num_items))
    assert parts.stop is not None
    assert all(one.found_inf is parts.stop.flag for one in parts.optimizers)
    assert dataclasses.replace(parts, stop=None).stop is None
