"""A run's folder: every byte under a checksum, one writer, no leftovers, nothing lost."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop import files
from fastpop.data.batches import EventBatches
from fastpop.data.cases import Cases
from fastpop.training import CheckpointError, TrainConfig, build, checkpoint, folder, loop, sealed
from fastpop.training.result import moments_of

QUICK = {
    "epochs": 3,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "learning_rate": 0.02,
    "progress": False,
}


def weights(result):
    return {name: value.clone() for name, value in result.model.state_dict().items()}


def assert_same_weights(one, two):
    for name, value in weights(one).items():
        assert torch.equal(value, two.model.state_dict()[name]), name


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def whole():
    return fastpop.train(small_log(), **QUICK | {"epochs": 4})


# every byte


def test_any_changed_byte_of_a_sealed_file_is_found(tmp_path):
    path = tmp_path / "config.json"
    sealed.write(path, {"prior_weight": 1.0, "batch": 7, "name": "é", "none": None})
    assert sealed.read(path) == {"prior_weight": 1.0, "batch": 7, "name": "é", "none": None}
    sound = path.read_bytes()
    for at in range(len(sound)):
        for bit in (1, 2, 16):
            changed = bytearray(sound)
            changed[at] ^= bit
            path.write_bytes(changed)
            with pytest.raises(sealed.Damaged, match="expected the bytes that were written; got others"):
                sealed.read(path)
    for text in (b"", b"{}", b"[1]", sound + b" ", sound[:-3], b"[" * 100_000):
        path.write_bytes(text)
        with pytest.raises(sealed.Damaged):
            sealed.read(path)


def test_a_digit_changed_in_the_configuration_or_the_state_is_found(tmp_path):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    for file, before, after in (
        ("config.json", '"prior_weight": 1.0', '"prior_weight": 9.0'),
        ("model/state.json", '"epoch": 1', '"epoch": 2'),
    ):
        text = (out / file).read_text()
        assert before in text
        (out / file).write_text(text.replace(before, after, 1))
        with pytest.raises(CheckpointError, match=f"{Path(file).name}: expected the bytes"):
            fastpop.load(out)
        (out / file).write_text(text)
    fastpop.load(out)
    flip(out / "model" / "model.safetensors", -3)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected the bytes"):
        fastpop.load(out)


@pytest.mark.parametrize(
    ("file", "at"),
    [("state.json", 40), ("model.safetensors", -3), ("optimizer.safetensors", 20), ("state.json", None)],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(tmp_path, whole, file, at):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    before, newest = checkpoint.all_of(out)
    if at is None:
        (newest / file).unlink()
    else:
        flip(newest / file, at)
    with pytest.warns(UserWarning, match=f"{newest.name}.*Going on from {before.name}"):
        resumed = fastpop.train(small_log(), out=out, resume=True, **QUICK | {"epochs": 4})
    assert_same_weights(whole, resumed)
    assert newest in checkpoint.all_of(out)
    checkpoint.read_folder(newest, ("model", "optimizer"))


def test_the_checkpoint_before_is_kept_where_steps_get_another_digit(tmp_path):
    model = torch.nn.Linear(1, 1)
    for step in (99_999_998, 99_999_999, 100_000_000):
        checkpoint.save(tmp_path, step, model, [], {})
    assert [path.name for path in checkpoint.all_of(tmp_path)] == [
        "checkpoint-99999999",
        "checkpoint-100000000",
    ]


def test_a_negative_batch_in_the_state_is_found(tmp_path):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK | {"epochs": 1})
    path = checkpoint.latest(out) / "state.json"
    path.write_text(path.read_text().replace('"batch": 0', '"batch": -1'))
    with pytest.raises(CheckpointError, match=r"state\.json: expected the bytes"):
        fastpop.train(small_log(), out=out, resume=True, **QUICK)


@pytest.mark.parametrize("damage", ["missing", "flipped", "another log"])
def test_a_damaged_log_is_written_anew_before_training(tmp_path, whole, monkeypatch, damage):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    biggest = max((out / "log").iterdir(), key=lambda path: path.stat().st_size)
    if damage == "missing":
        biggest.unlink()
    elif damage == "flipped":
        flip(biggest, biggest.stat().st_size // 2)
    else:
        small_log(seed=5).save(out / "log")
    steps = []
    real = loop.train_step
    monkeypatch.setattr(
        loop,
        "train_step",
        lambda *given: (steps.append(fastpop.Interactions.load(out / "log").num_events), real(*given))[1],
    )
    with pytest.warns(UserWarning, match="It is written anew"):
        resumed = fastpop.train(small_log(), out=out, resume=True, **QUICK | {"epochs": 4})
    assert set(steps) == {small_log().num_events}
    assert_same_weights(whole, resumed)
    assert_same_weights(whole, fastpop.load(out))


def test_a_damaged_test_part_is_written_anew_and_never_loaded(tmp_path):
    log = small_log()
    held = np.zeros(log.num_events, dtype=bool)
    held[::10] = True
    train, test = log.take(~held), log.take(held)
    out = tmp_path / "run"
    fastpop.train(train, test=test, out=out, **QUICK)
    metrics = fastpop.load(out).metrics
    biggest = max((out / "test-cases").iterdir(), key=lambda path: path.stat().st_size)
    flip(biggest, biggest.stat().st_size // 2)
    with pytest.raises((CheckpointError, ValueError), match="test"):
        fastpop.load(out)
    with pytest.warns(UserWarning, match="It is written anew"):
        fastpop.train(train, test=test, out=out, resume=True, **QUICK)
    assert fastpop.load(out).evaluate().metrics["nll"] == metrics["nll"]


def test_any_byte_of_a_test_part_s_card_is_found(tmp_path):
    cases = fastpop.data.split(small_log(), "leave-last-out").test
    cases.save(tmp_path / "cases")
    path = tmp_path / "cases" / "cases.json"
    sound = path.read_bytes()
    for at in range(len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        with pytest.raises(ValueError, match=r"folder: expected a folder that Cases\.save wrote"):
            Cases.load(tmp_path / "cases")
    for text in ("[" * 100_000, "{}", "[]", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"folder: expected a folder that Cases\.save wrote"):
            Cases.load(tmp_path / "cases")
    # as earlier versions wrote it, with a checksum of the arrays or with none
    arrays = files.sha256(tmp_path / "cases" / "cases.npz")
    for sums in ({"sha256": arrays}, {}):
        path.write_text(json.dumps({**sums, "num_items": cases.num_items, "facts": {}}))
        assert Cases.load(tmp_path / "cases").num_cases == cases.num_cases


def test_what_is_there_to_read_is_held_against_the_model(tmp_path):
    out = tmp_path / "run"
    result = fastpop.train(small_log(), out=out, **QUICK)
    sealed.write(out / "audit.json", {"energy_total": 1.0})
    for name, said in (
        ("train.csv", "expected what model/state.json says; got other bytes. The model is sound"),
        ("metrics.json", "expected what model/state.json says; got other bytes. The model is sound"),
        ("audit.json", "expected the bytes that were written; got others. `fastpop audit` makes it anew"),
    ):
        sound = (out / name).read_bytes()
        flip(out / name, len(sound) // 2)
        with pytest.warns(UserWarning, match=rf"{name}: {re.escape(said)}"):
            assert fastpop.load(out).metrics == result.metrics
        (out / name).write_bytes(sound)
    (out / "audit.json").write_text('{"energy_total": 1.0}')  # of an earlier version
    fastpop.load(out)
    # a run that goes on has a longer train.csv than its model
    fastpop.train(small_log(), out=out, resume=True, **QUICK | {"epochs": 4})
    longer = (out / "train.csv").read_bytes()
    model = checkpoint.read_folder(out / "model", ("model", "prior"))
    model[1]["history"] = model[1]["history"][:3]
    checkpoint.write_folder(out / "model", *model)
    assert len(longer.splitlines()) == 5
    fastpop.load(out)


@pytest.mark.parametrize("damage", ["flipped", "missing", "older"])
def test_damaged_best_weights_have_the_run_trained_anew(tmp_path, damage):
    options = QUICK | {"evaluate_every": 1, "patience": 3, "epochs": 4}
    whole = fastpop.train(small_log(), **options)
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **options | {"epochs": 3})
    if damage == "flipped":
        flip(out / "best" / "model.safetensors", -3)
    elif damage == "missing":
        shutil.rmtree(out / "best")
    else:
        tensors, state = checkpoint.read_folder(out / "best", ("model",))
        checkpoint.write_folder(out / "best", tensors, state | {"epoch": 0})
    with pytest.warns(UserWarning, match=r"best.*This run is trained anew"):
        again = fastpop.train(small_log(), out=out, resume=True, **options)
    assert_same_weights(whole, again)
    assert [row["epoch"] for row in again.history] == [1, 2, 3, 4]


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_a_draft_that_is_swept(tmp_path, monkeypatch):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    monkeypatch.setattr(files.shutil, "rmtree", lambda *given, **more: None)
    files.remove_folder(checkpoint.all_of(out)[0])
    monkeypatch.undo()
    assert len(checkpoint.all_of(out)) == 1
    assert len(list(out.glob(".checkpoint-*.fastpop-part"))) == 1
    with folder.held(out):
        assert [path.name for path in out.glob(".*")] == [".lock"]


def test_a_sealed_document_of_before_is_taken_and_a_broken_seal_is_not(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1, "b": "text"}')
    assert sealed.read(path, older=True) == {"a": 1, "b": "text"}
    with pytest.raises(sealed.Damaged):
        sealed.read(path)
    sealed.write(path, {"a": 1})
    path.write_text(path.read_text().replace('"seal"', '"sead"'))
    with pytest.raises(sealed.Damaged):
        sealed.read(path, older=True)
    for text in ("{}", "[]", "1", ""):
        path.write_text(text)
        if text == "{}":
            assert sealed.read(path, older=True) == {}
        else:
            with pytest.raises(sealed.Damaged):
                sealed.read(path, older=True)


def test_the_fingerprint_is_of_the_log_and_not_of_what_holds_it(tmp_path):
    log = small_log(weighted=True)
    log.save(tmp_path / "log")
    opened = fastpop.Interactions.open(tmp_path / "log")
    assert folder.fingerprint(opened) == folder.fingerprint(log)
    others = [small_log(weighted=False), small_log(seed=1, weighted=True)]
    words = fastpop.Interactions.from_arrays(["a", "bc"], ["x", "y"])
    shifted = fastpop.Interactions.from_arrays(["ab", "c"], ["x", "y"])
    prints = {folder.fingerprint(one) for one in (log, *others, words, shifted)}
    assert len(prints) == 5


# one writer


def test_a_second_writer_is_refused_by_name(tmp_path):
    out = tmp_path / "run"
    code = (
        "import sys; from pathlib import Path; from fastpop.training import folder\n"
        "with folder.held(Path(sys.argv[1])):\n print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    result = fastpop.train(small_log(), **QUICK)
    for refused in (
        lambda: fastpop.train(small_log(), out=out, **QUICK),
        lambda: result.save(out),
        lambda: fastpop.compare(small_log(), out=out, **QUICK),
    ):
        with pytest.raises(CheckpointError, match=f"got {out}, which process {other.pid} is writing now"):
            refused()
    with other:  # whose pipes are closed
        other.kill()
    result.save(out)
    assert not list(out.glob(".*"))


def test_two_threads_of_one_process_cannot_write_one_run(tmp_path):
    out = tmp_path / "run"
    began, go_on = threading.Event(), threading.Event()

    def slow():
        with folder.held(out):
            began.set()
            go_on.wait(30)

    thread = threading.Thread(target=slow)
    thread.start()
    began.wait(30)
    with pytest.raises(CheckpointError, match="is writing now"):
        fastpop.train(small_log(), out=out, **QUICK)
    go_on.set()
    thread.join()


# leftovers


def test_what_a_killed_process_left_is_swept_at_the_next_start(tmp_path, whole):
    out = tmp_path / "run"
    fastpop.train(small_log(), out=out, **QUICK)
    oldest = checkpoint.all_of(out)[0]
    left = [
        ".log.0123abcd.fastpop-part",
        ".checkpoint-00000013.0123abcd.fastpop-part",
        ".best.0123abcd.fastpop-part",
    ]
    for name in left:
        (out / name).mkdir()
        (out / name / "half").write_bytes(b"half")
    (out / ".config.json.0123abcd.fastpop-part").write_text("{")
    (out / ".lock").write_text("99999999\n")
    # between two renames: the old model under another name
    (out / "model").rename(out / ".model.fastpop-old")
    stale = out / "checkpoint-00000001"
    stale.mkdir()
    resumed = fastpop.train(small_log(), out=out, resume=True, **QUICK | {"epochs": 4})
    assert_same_weights(whole, resumed)
    assert not list(out.glob(".*"))
    assert not stale.exists()
    assert not oldest.exists()
    assert len(checkpoint.all_of(out)) == 2


@pytest.mark.parametrize(
    "name", [".config.json.0123abcd.fastpop-part", ".lock", ".log.0123abcd.fastpop-part", ".log.fastpop-lock"]
)
def test_a_kill_before_the_first_file_leaves_a_folder_that_is_as_good_as_empty(tmp_path, name):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("")
    fastpop.train(small_log(), out=out, **QUICK | {"epochs": 1})
    assert not (out / ".lock").exists()


def test_anybody_elses_hidden_file_is_not_ours(tmp_path):
    (tmp_path / ".gitignore").write_text("*")
    with pytest.raises(ValueError, match="out: expected a new or an empty folder"):
        fastpop.train(small_log(), out=tmp_path, **QUICK)
    assert (tmp_path / ".gitignore").read_text() == "*"


# going on


def test_the_same_call_goes_on_with_a_run_that_was_stopped(tmp_path, monkeypatch, whole):
    out = tmp_path / "run"
    real, steps = loop.train_step, []

    def dies(*given):
        steps.append(1)
        if len(steps) == 30:
            raise MemoryError("as if killed")
        return real(*given)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(MemoryError):
        fastpop.train(small_log(), out=out, **QUICK | {"epochs": 4})
    name = checkpoint.latest(out).name
    assert folder.state_of(out) == name
    monkeypatch.setattr(loop, "train_step", real)
    with pytest.warns(UserWarning, match=f"holds {name} of this run: going on from it"):
        resumed = fastpop.train(small_log(), out=out, **QUICK | {"epochs": 4})
    assert_same_weights(whole, resumed)
    with pytest.raises(ValueError, match="out: expected a new folder, or resume=True"):
        fastpop.train(small_log(), out=out, **QUICK | {"epochs": 4})


def test_checkpoints_by_time_stand_within_an_epoch(tmp_path, monkeypatch, whole):
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    real, real_save, saved = loop.train_step, checkpoint.save, []

    def minute(*given):
        clock[0] += 60
        return real(*given)

    monkeypatch.setattr(loop, "train_step", minute)

    def save(out, step, *rest, **more):
        saved.append(step)
        real_save(out, step, *rest, **more)

    monkeypatch.setattr(checkpoint, "save", save)
    options = QUICK | {"epochs": 4, "checkpoint_every": 100}
    result = fastpop.train(small_log(), out=tmp_path / "run", checkpoint_minutes=5, **options)
    assert saved[:3] == [6, 12, 18]
    assert_same_weights(whole, result)
    saved.clear()
    fastpop.train(small_log(), out=tmp_path / "never", checkpoint_minutes=0, **options)
    assert saved == [result.history[-1]["step"]]


def test_ctrl_c_in_the_last_step_is_heard_and_nothing_is_lost(tmp_path, monkeypatch, whole):
    import signal

    last = whole.history[-1]["step"]
    real, steps = loop.train_step, []

    def step(*given):
        steps.append(1)
        if len(steps) == last:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*given)

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(KeyboardInterrupt):
        fastpop.train(small_log(), out=tmp_path / "run", **QUICK | {"epochs": 4})
    monkeypatch.setattr(loop, "train_step", real)
    resumed = fastpop.train(small_log(), out=tmp_path / "run", resume=True, **QUICK | {"epochs": 4})
    assert_same_weights(whole, resumed)


def test_a_host_keeps_its_signal_handlers(tmp_path):
    import signal

    calls = []
    before = {
        number: signal.signal(number, lambda *_: calls.append(1))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        mine = {number: signal.getsignal(number) for number in before}
        fastpop.train(small_log(), out=tmp_path / "run", **QUICK | {"epochs": 1})
        assert {number: signal.getsignal(number) for number in before} == mine
        assert not calls
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# disks


def test_a_disk_that_fills_up_while_the_log_is_written_is_one_error(tmp_path, monkeypatch):
    def full(self, place, *given):
        Path(place).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fastpop.Interactions, "save", full)
    with pytest.raises(
        CheckpointError,
        match="out: expected a writable folder with room; got "
        f"{tmp_path / 'run' / 'log'}: No space left on device",
    ):
        fastpop.train(small_log(), out=tmp_path / "run", **QUICK)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastpop.train(small_log(), out=tmp_path / "run", **QUICK)
    assert fastpop.load(tmp_path / "run").log.num_events == small_log().num_events


def test_what_the_engine_says_of_a_disk_is_said_in_our_words(tmp_path):
    import duckdb

    with pytest.raises(CheckpointError) as caught, checkpoint.explained(tmp_path / "log"):
        duckdb.connect().execute(f"COPY (SELECT 1) TO '{tmp_path}/no/such.parquet'")
    assert str(caught.value).startswith(f"out: expected a writable folder with room; got {tmp_path}/log: ")
    assert len(str(caught.value).splitlines()) == 1


def test_home_is_expanded_in_train_save_and_load(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = fastpop.train(small_log(), out="~/exp", **QUICK | {"epochs": 1})
    result.save(Path("~/copy"))
    assert fastpop.load("~/exp").metrics == fastpop.load("~/copy").metrics == result.metrics
    assert {path.name for path in tmp_path.iterdir()} == {"exp", "copy"}


# bounds


def test_the_plan_of_one_epoch_is_enough(monkeypatch):
    from fastpop.data.batches import SequenceBatches

    planned = []
    real = SequenceBatches.plan
    monkeypatch.setattr(
        SequenceBatches, "plan", lambda self, epoch: (planned.append(epoch), real(self, epoch))[1]
    )

    class Enough(Exception):
        pass

    def stop(*given):
        raise Enough

    monkeypatch.setattr(loop, "train_step", stop)
    with pytest.raises(Enough):
        fastpop.train(small_log(), encoder="sasrec", **QUICK | {"epochs": 1_000_000})
    assert set(planned) == {0}


def test_max_length_is_bounded_by_the_longest_history():
    log = small_log()
    longest = int(np.diff(log.offsets).max())
    config = TrainConfig(encoder="sasrec", max_length=10**9)
    assert build.bounded(config, log).max_length == longest
    assert build.bounded(TrainConfig(max_length=3), log).max_length == 3
    cases = fastpop.data.Cases(
        np.array([-1]),
        np.array([0, 70]),
        np.zeros(70, np.int64),
        np.array([0, 1]),
        np.array([3]),
        log.num_items,
    )
    assert build.bounded(config, log, cases).max_length == max(70, longest)
    short = fastpop.train(log, encoder="bag", max_length=longest, **QUICK)
    long = fastpop.train(log, encoder="bag", max_length=2**62, **QUICK)
    assert_same_weights(short, long)


def test_k_is_bounded_by_the_catalogue():
    result = fastpop.train(small_log(), **QUICK)
    found = result.recommend(result.log.user_ids[:2], k=10**9, exclude_seen=False)
    assert found.item.shape == (2, result.log.num_items)
    assert set(found.item[0]) == set(result.log.item_ids.tolist())
    with pytest.raises(ValueError, match="k: expected an integer >= 1 of 64 bits"):
        result.recommend(result.log.user_ids[:2], k=10**20)
    assert np.isfinite(result.evaluate(ks=(10**9,)).metrics[f"ndcg@{10**9}"])


@pytest.mark.parametrize("weight", [1e39, -1e39, float("nan"), float("inf"), 1e7])
def test_a_knob_beyond_float32_is_refused_everywhere(weight):
    result = fastpop.train(small_log(), **QUICK)
    user = result.log.user_ids[:1]
    for call in (
        lambda: result.recommend(user, popularity_weight=weight),
        lambda: result.evaluate(popularity_weight=weight),
        lambda: result.audit(popularity_weight=weight, permutations=0),
        lambda: fastpop.compare(small_log(), popularity_weights=[weight], **QUICK),
        lambda: TrainConfig(prior_weight=weight),
    ):
        with pytest.raises(ValueError, match=r"weights?: expected a finite number"):
            call()


# what a person sees


def test_a_result_is_a_few_lines(tmp_path):
    result = fastpop.train(small_log(), **QUICK)
    lines = repr(result).splitlines()
    assert len(lines) <= 5
    assert max(map(len, lines)) <= 100
    assert "factor, prior frozen, 3 epochs" in lines[0]
    assert f"ndcg@10 {result.metrics['ndcg@10']:.4g}" in repr(result)
    page = result._repr_html_()
    assert page.startswith("<b>TrainResult: factor")
    assert "<br>" in page
    audit = result.audit(permutations=10)
    top = result.recommend(result.log.user_ids[:30], k=5)
    judged = result.evaluate()
    moments = moments_of(result.model, result.split.train)
    batch = next(iter(EventBatches(result.log, 64, 0).epoch(0)))
    for one in (
        audit,
        audit.geometry,
        top,
        judged,
        result.split,
        result.log,
        result.prior,
        result.split.test,
        moments,
        batch,
    ):
        assert len(repr(one)) < 1500, type(one)
        assert len(repr(one).splitlines()) <= 10, type(one)
        assert "array(" not in repr(one), type(one)
    assert audit._repr_html_().startswith("<pre>")
    assert "<summary>Epochs</summary><table>" in page
