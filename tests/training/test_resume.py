"""Whatever stops a run, the run that resumes ends in the same bits."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.encoders import GRU4Rec
from fastpop.training import CheckpointError, checkpoint, loop

pytest.importorskip("duckdb", reason="duckdb, which keeps a run's log, is not installed")

QUICK = {
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "progress": False,
}
KINDS = [
    {"encoder": "factor"},
    {"encoder": "sasrec", "clip_norm": 1.0},
    {"encoder": "sasrec", "loss": "full_softmax", "learn_temperature": True},
    {"encoder": "bag", "prior": "learned", "table_optimizer": "row_adagrad"},
    {"encoder": "factor", "evaluate_every": 1, "patience": 4, "proposal": "in_batch"},
    {"encoder": "bert4rec", "dropout": 0.1},
    {"encoder": GRU4Rec(layers=2, state_dropout=0.2), "table_optimizer": "row_adagrad"},
    {"encoder": "lightgcn", "precision": "bf16"},
]


def assert_same_run(one, two):
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name]), name
    assert one.metrics == two.metrics
    strip = ("seconds", "examples_per_second")
    assert [{k: v for k, v in row.items() if k not in strip} for row in one.history] == [
        {k: v for k, v in row.items() if k not in strip} for row in two.history
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_four_epochs_are_two_and_two_more(tmp_path, kind):
    whole = fastpop.train(small_log(), epochs=4, out=tmp_path / "whole", **QUICK | kind)
    fastpop.train(small_log(), epochs=2, out=tmp_path / "parts", **QUICK | kind)
    resumed = fastpop.train(small_log(), epochs=4, out=tmp_path / "parts", resume=True, **QUICK | kind)
    assert_same_run(whole, resumed)
    names = {path.name for path in (tmp_path / "parts").iterdir()}
    assert len([name for name in names if name.startswith("checkpoint-")]) == 2  # and the one before
    assert not [name for name in names if "fastpop-" in name]


@pytest.mark.parametrize("kind", KINDS[:3])
def test_an_interrupt_within_an_epoch_leaves_a_checkpoint_to_go_on_from(tmp_path, kind, monkeypatch):
    whole = fastpop.train(small_log(), epochs=3, out=tmp_path / "whole", **QUICK | kind)
    real, steps = loop.train_step, []

    def step_and_ctrl_c(*args):
        steps.append(1)
        if len(steps) == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(loop, "train_step", step_and_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        fastpop.train(small_log(), epochs=3, out=tmp_path / "cut", **QUICK | kind)
    assert checkpoint.latest(tmp_path / "cut").name == "checkpoint-00000017"
    monkeypatch.setattr(loop, "train_step", real)
    resumed = fastpop.train(small_log(), epochs=3, out=tmp_path / "cut", resume=True, **QUICK | kind)
    assert_same_run(whole, resumed)


SCRIPT = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from helpers_logs import small_log
    import fastpop
    fastpop.train(small_log(), epochs=4, out={out!r}, **{options!r})
"""


def test_kill_minus_nine_in_the_third_epoch(tmp_path):
    options = QUICK | {"encoder": "sasrec", "batch_size": 8}
    whole = fastpop.train(small_log(), epochs=4, out=tmp_path / "whole", **options)
    out = tmp_path / "killed"
    script = textwrap.dedent(
        SCRIPT.format(tests=str(Path(__file__).parents[1]), out=str(out), options=options)
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    per_epoch = whole.history[1]["step"]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        newest = checkpoint.latest(out) if out.exists() else None
        if newest is not None and int(newest.name[-8:]) >= per_epoch:
            break
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "model").exists()
    resumed = fastpop.train(small_log(), epochs=4, out=out, resume=True, **options)
    assert_same_run(whole, resumed)


def test_a_full_disk_is_one_clear_error_and_the_checkpoint_before_survives(tmp_path, monkeypatch):
    options = QUICK | {"epochs": 3, "encoder": "factor"}
    real, saves = checkpoint.save_file, []

    def full(tensors, path):
        saves.append(path)
        if len(saves) == 4:  # second checkpoint, its optimizer part
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    out = tmp_path / "run"
    with pytest.raises(
        CheckpointError,
        match="No space left on device; the checkpoint "
        r"checkpoint-0000001\d before it is kept",
    ):
        fastpop.train(small_log(), out=out, **options)
    monkeypatch.setattr(checkpoint, "save_file", real)
    assert not list(out.glob("*fastpop-*"))
    checkpoint.read_folder(checkpoint.latest(out), ("model", "optimizer"))
    resumed = fastpop.train(small_log(), out=out, resume=True, **options)
    assert_same_run(fastpop.train(small_log(), **options), resumed)


@pytest.mark.skipif(not shutil.which("mount") or os.geteuid() != 0, reason="needs root to mount")
def test_a_disk_that_really_is_full(tmp_path):
    out = tmp_path / "tiny"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", out]).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with pytest.raises(CheckpointError, match="No space left"):
            fastpop.train(small_log(), epochs=1, out=out / "run", **QUICK | {"dim": 256})
    finally:
        subprocess.run(["umount", out], check=True)


def test_an_unwritable_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"out: expected a writable folder with room; got .*file"):
        fastpop.train(small_log(), epochs=1, out=tmp_path / "file" / "run", **QUICK)


def test_a_folder_in_use_a_changed_option_and_another_log_are_refused(tmp_path):
    out = tmp_path / "run"
    fastpop.train(small_log(), epochs=1, out=out, **QUICK)
    with pytest.raises(ValueError, match="out: expected a new folder, or resume=True"):
        fastpop.train(small_log(), epochs=1, out=out, **QUICK)
    with pytest.raises(ValueError, match=r"dim: expected 8, as in the run in .*; got 16"):
        fastpop.train(small_log(), epochs=2, out=out, resume=True, **QUICK | {"dim": 16})
    with pytest.raises(ValueError, match="log: expected the log and the test part of the run"):
        fastpop.train(small_log(seed=1), epochs=2, out=out, resume=True, **QUICK)
    with pytest.raises(ValueError, match="out: expected a folder with a run to resume"):
        fastpop.train(small_log(), epochs=2, out=tmp_path / "none", resume=True, **QUICK)


def test_an_unfinished_run_does_not_load(tmp_path):
    out = tmp_path / "run"
    fastpop.train(small_log(), epochs=1, out=out, **QUICK)
    shutil.rmtree(out / "model")
    with pytest.raises(ValueError, match="a finished run"):
        fastpop.load(out)
    with pytest.raises(ValueError, match=r"folder: expected the out= folder of fastpop\.train"):
        fastpop.load(tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    out = tmp_path / "run"
    fastpop.train(small_log(), epochs=1, out=out, **QUICK)
    newest = checkpoint.latest(out)
    (newest / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(CheckpointError, match=newest.name):
        fastpop.train(small_log(), epochs=2, out=out, resume=True, **QUICK)


def test_train_csv_has_a_row_an_epoch(tmp_path):
    out = tmp_path / "run"
    fastpop.train(small_log(), epochs=2, out=out, **QUICK)
    result = fastpop.train(small_log(), epochs=3, out=out, resume=True, evaluate_every=0, **QUICK)
    lines = (out / "train.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,step,loss,examples_per_second")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert float(lines[-1].split(",")[2]) == pytest.approx(result.history[-1]["loss"])


def test_tensorboard_events_are_written(tmp_path):
    fastpop.train(small_log(), epochs=1, out=tmp_path / "run", tensorboard=True, **QUICK)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_the_data_order_is_a_function_of_seed_and_epoch():
    from fastpop.data.batches import EventBatches, SequenceBatches

    log = small_log()
    for batches in (EventBatches(log, 50, 3), SequenceBatches(log, 10, 50, 3)):
        first = [batch.target for batch in batches.epoch(2)]
        again = [batch.target for batch in batches.epoch(2)]
        skipped = [batch.target for batch in batches.epoch(2, skip=4)]
        other = [batch.target for batch in batches.epoch(3)]
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(first[4:], skipped, strict=True))
        assert not np.array_equal(first[0], other[0])
        assert len(first) == batches.num_batches(2)
