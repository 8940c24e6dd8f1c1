"""Nothing of anybody else's is touched, nothing damaged or different passes for the run."""

import os
import stat

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.training import CheckpointError, TrainConfig, build, checkpoint, sealed

QUICK = {
    "epochs": 1,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "learning_rate": 0.02,
    "progress": False,
}


def held_out(log, every=10):
    held = np.zeros(log.num_events, dtype=bool)
    held[::every] = True
    return log.take(~held), log.take(held)


@pytest.mark.parametrize("name", ["checkpoint-500/model.bin", "model/weights", "train.csv"])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="out: expected a new or an empty folder"):
        fastpop.train(small_log(), out=tmp_path, **QUICK)
    result = fastpop.train(small_log(), **QUICK)
    with pytest.raises(ValueError, match="out: expected a new or an empty folder"):
        result.save(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_folder_will_do(tmp_path):
    assert fastpop.train(small_log(), out=tmp_path, **QUICK).metrics


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_every_file_of_a_run_may_be_read_by_whom_the_umask_lets(tmp_path, mask, mode):
    """The weights could be read by nobody else, beside metrics that everybody could."""
    before = os.umask(mask)
    try:
        fastpop.train(small_log(), out=tmp_path / "run", **QUICK).save(tmp_path / "copy")
    finally:
        os.umask(before)
    for folder in (tmp_path / "run", tmp_path / "copy"):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len([path for path in files if path.suffix == ".safetensors"]) >= 2
        assert {(path.name, stat.S_IMODE(path.stat().st_mode)) for path in files} == {
            (path.name, mode) for path in files
        }


def test_resume_refuses_another_test_part_and_other_ids(tmp_path):
    train, test = held_out(small_log())
    fastpop.train(train, test=test, out=tmp_path / "run", **QUICK)
    more = QUICK | {"epochs": 2}
    with pytest.raises(ValueError, match="the log and the test part of the run"):
        fastpop.train(train, out=tmp_path / "run", resume=True, **more)
    with pytest.raises(ValueError, match="the log and the test part of the run"):
        fastpop.train(train, test=held_out(small_log(), 7)[1], out=tmp_path / "run", resume=True, **more)
    fastpop.train(train, test=test, out=tmp_path / "run", resume=True, **more)
    log = small_log()
    other_ids = fastpop.Interactions.from_arrays(
        log.user, log.item, log.time, user_ids=log.user_ids, item_ids=log.item_ids + 5
    )
    fastpop.train(log, out=tmp_path / "ids", **QUICK)
    with pytest.raises(ValueError, match="the log and the test part of the run"):
        fastpop.train(other_ids, out=tmp_path / "ids", resume=True, **more)


def test_a_result_is_not_saved_over_another_run(tmp_path):
    fastpop.train(small_log(), out=tmp_path / "run", **QUICK)
    other = fastpop.train(small_log(seed=1), **QUICK)
    with pytest.raises(ValueError, match="a run on another log"):
        other.save(tmp_path / "run")
    other.save(tmp_path / "new")
    assert fastpop.load(tmp_path / "new").evaluate().metrics == other.evaluate().metrics


@pytest.mark.parametrize("damage", ["missing", "flipped", "empty state"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    newest = checkpoint.latest(out)
    if damage == "missing":
        (newest / "optimizer.safetensors").unlink()
    elif damage == "flipped":
        data = bytearray((newest / "model.safetensors").read_bytes())
        data[-3] ^= 1
        (newest / "model.safetensors").write_bytes(data)
    else:
        (newest / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=newest.name):
        fastpop.train(small_log(), out=out, resume=True, **QUICK | {"epochs": 2})


@pytest.mark.parametrize("file", ["config.json", "model/state.json", "model/model.safetensors"])
def test_a_damaged_run_does_not_load(tmp_path, file):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    (out / file).write_text("{")
    with pytest.raises(CheckpointError, match="expected"):
        fastpop.load(out)


def test_weights_of_another_shape_are_one_error(tmp_path):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    sealed.write(out / "config.json", sealed.read(out / "config.json") | {"dim": 4})
    with pytest.raises(CheckpointError, match="expected tensors of this configuration and log"):
        fastpop.load(out)


@pytest.mark.parametrize("encoder", ["factor", "bag"])
def test_in_batch_distribution_is_what_batches_hold(encoder):
    """Whatever the weights, and without first events where those are no targets."""
    log = small_log(weighted=True)
    config = TrainConfig(encoder=encoder, proposal="in_batch")
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    held = np.zeros(log.num_items)
    for batch in parts.batches.epoch(0):
        np.add.at(held, batch.target[batch.target >= 0], 1)
    probability = np.exp(parts.loss.proposal.log_proposal_V)
    np.testing.assert_allclose(probability, held / held.sum())


@pytest.mark.parametrize("proposal", ["in_batch", "popularity"])
def test_weight_zero_is_a_legal_weight(proposal):
    log = small_log(weighted=True)
    weight = np.where(log.item == log.item[0], 0.0, log.weight)
    zero = fastpop.Interactions.from_arrays(
        log.user, log.item, log.time, weight, user_ids=log.user_ids, item_ids=log.item_ids
    )
    assert np.isfinite(fastpop.train(zero, proposal=proposal, **QUICK).history[-1]["loss"])


def test_a_last_batch_of_one_row_does_not_end_an_in_batch_run():
    log = small_log(events=900)
    options = QUICK | {"proposal": "in_batch", "split": "none", "batch_size": 899}
    assert np.isfinite(fastpop.train(log, **options).history[-1]["loss"])


def test_a_refreshed_prior_is_not_judged_by_old_numbers():
    result = fastpop.train(small_log(), **QUICK)
    assert result.audit(permutations=0).nll == result.metrics["nll"]
    fresh = result.refresh_prior(np.arange(1.0, result.log.num_items + 1))
    assert fresh.metrics == {}
    assert fresh.audit(permutations=0).nll is None
    assert result.audit(permutations=0).nll == result.metrics["nll"]  # it keeps its own prior
    result.model.decoder.set_log_prior(fresh.prior.log_prior_V)
    assert result.audit(permutations=0).nll is None
    permuted = fastpop.train(small_log(), prior="permuted", **QUICK)
    with pytest.raises(ValueError, match="counts: expected a run with prior 'none', 'frozen' or 'by-period'"):
        permuted.refresh_prior(np.ones(permuted.log.num_items))


def test_cases_that_no_one_can_read_are_said():
    train, _ = held_out(small_log())
    strangers = fastpop.data.Cases(
        np.array([-1, -1]),
        np.array([0, 1, 2]),
        np.array([1, 2]),
        np.array([0, 1, 2]),
        np.array([3, 4]),
        train.num_items,
    )
    with pytest.warns(UserWarning, match="none of the 2 test cases can be judged"):
        result = fastpop.train(train, test=strangers, **QUICK)
    assert result.metrics == {}


def test_smoothing_as_text():
    assert TrainConfig(smoothing="0.5").smoothing == 0.5
    assert torch.isfinite(
        fastpop.train(small_log(), smoothing="0.5", **QUICK).model.decoder.log_prior_V
    ).all()
