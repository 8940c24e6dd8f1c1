"""Whatever stops a command, it says what is there, and the same command ends in the same bits."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest

import fastpop.cli
from fastpop.cli import terminal
from fastpop.training import checkpoint

QUICK = ["--epochs", "6", "--dim", "8", "--num-negatives", "16", "--batch-size", "64", "--permutations", "20"]
LONG = [*QUICK, "--epochs", "100000"]


def model_of(out):
    tensors, state = checkpoint.read_folder(out / "model", ("model",))
    return {name: value.tolist() for name, value in tensors["model"].items()}, state["metrics"]


def wait_for(running, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.wait()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped: the terminal is gone (SIGHUP)"),
    ],
)
def test_a_signal_while_training_leaves_a_checkpoint_and_one_line(
    commands, clicks, tmp_path, number, code, word
):
    out = tmp_path / "run"
    running = commands.start("train", *clicks, "--out", out, *LONG)
    wait_for(running, lambda: checkpoint.latest(out) if out.exists() else None)
    running.send_signal(number)
    done = running.wait()
    assert done.returncode == code
    last = done.stderr.splitlines()
    assert len(last) == 1
    assert last[0].startswith(f"fastpop: {word}")
    assert f"{checkpoint.latest(out).name} is in {out}: the same command goes on from it" in last[0]
    checkpoint.read_folder(checkpoint.latest(out), ("model", "optimizer"))
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("number", "code", "word", "tries"),
    [
        (signal.SIGINT, 130, "interrupted", 3),
        (signal.SIGTERM, 143, "stopped by SIGTERM", 1),
        pytest.param(signal.SIGINT, 130, "interrupted", 20, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, "stopped by SIGTERM", 20, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_a_log_is_read_ends_in_one_line_and_leaves_nothing(
    commands, clicks, tmp_path, number, code, word, tries
):
    out, scratch, big = tmp_path / "run", tmp_path / "scratch", tmp_path / "big.csv"
    scratch.mkdir()
    big.write_text(clicks[0].read_text() + "u1,1,1500000000\nu2,7,1500000001\n" * 750_000)
    chance = random.Random(tries)
    words = ["train", big, *clicks[1:], "--out", out, *QUICK]
    started = time.monotonic()
    running = commands.start(*words, TMPDIR=str(scratch))
    wait_for(running, out.exists)
    reading = time.monotonic() - started
    running.send_signal(signal.SIGKILL)
    running.wait()
    for _ in range(tries):
        shutil.rmtree(out, ignore_errors=True)
        running = commands.start(*words, TMPDIR=str(scratch))
        time.sleep(chance.uniform(0, 0.9 * reading))
        running.send_signal(number)
        done = running.wait()
        assert done.returncode == code, done
        said = [line for line in done.stderr.splitlines() if line.startswith("fastpop: ")]
        assert len(said) == 1
        assert said[0].startswith(f"fastpop: {word}; ")
        assert "Traceback" not in done.stderr
        if not out.exists():
            assert said[0].endswith(
                ("nothing was written: the same command starts anew", "nothing was begun")
            )
            assert "Interactions" in done.stdout or done.stdout == ""
    # Folders of the killed first run go when the next one begins; those that were stopped left none.
    assert not [path.name for path in scratch.iterdir() if path.name.startswith(("fastpop-", ".fastpop-"))]


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_kill_minus_nine_at_any_moment_and_the_same_command_ends_in_the_same_bits(
    commands, clicks, tmp_path, kills, encoder
):
    words = [
        "train",
        *clicks,
        "--encoder",
        encoder,
        *QUICK,
        "--num-layers",
        "1",
        "--epochs",
        "10",
        "--evaluate-every",
        "1",
        "--patience",
        "10",
        "--checkpoint-minutes",
        "0.001",
        "--permutations",
        "0",
    ]
    started = time.monotonic()
    commands.run(*words, "--out", tmp_path / "whole")
    whole = time.monotonic() - started
    chance = random.Random(kills)
    out = tmp_path / "killed"
    for _ in range(kills):
        running = commands.start(*words, "--out", out)
        time.sleep(chance.uniform(0, 0.8 * whole))
        running.send_signal(signal.SIGKILL)
        running.wait()
        if (out / "model").exists():
            shutil.rmtree(out)
    commands.run(*words, "--out", out)
    assert model_of(out) == model_of(tmp_path / "whole")
    assert not list(out.glob(".*"))
    assert (out / "audit.json").read_bytes() == (tmp_path / "whole" / "audit.json").read_bytes()


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_comparison_killed_at_any_moment_goes_on_to_the_same_numbers(commands, clicks, tmp_path, kills):
    words = ["compare", *clicks, *QUICK, "--seeds", "2", "--arms", "standard", "frozen"]
    started = time.monotonic()
    commands.run(*words, "--out", tmp_path / "whole")
    whole = time.monotonic() - started
    chance = random.Random(kills)
    out = tmp_path / "killed"
    for _ in range(kills):
        running = commands.start(*words, "--out", out)
        time.sleep(chance.uniform(0, 0.9 * whole))
        running.send_signal(signal.SIGKILL)
        running.wait()
        if (out / "comparison.json").exists():
            shutil.rmtree(out)
    commands.run(*words, "--out", out)
    one, two = (json.loads((folder / "comparison.json").read_text()) for folder in (out, tmp_path / "whole"))
    assert one["made_by"].pop("seconds") >= 0
    two["made_by"].pop("seconds")
    for found in (one, two):  # checksums, of these seconds too
        del found["seal"], found["sha256"]
    assert one == two
    assert {path.name for path in out.iterdir()} == {
        "comparison.json",
        "report.html",
        "rows.csv",
        "table.txt",
    }
    assert (out / "table.txt").read_text() == (tmp_path / "whole" / "table.txt").read_text()


def test_ctrl_c_in_a_comparison_counts_what_is_done_and_a_finished_one_is_kept(commands, clicks, tmp_path):
    out = tmp_path / "report"
    words = ["compare", *clicks, *QUICK, "--seeds", "1", "--arms", "standard", "frozen", "--out", out]
    running = commands.start(*words, "--epochs", "3000")
    wait_for(running, lambda: list(out.glob("unfinished/seed-0-*/train.csv")))
    running.send_signal(signal.SIGINT)
    done = running.wait()
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        f"fastpop: interrupted; 0 of 2 runs are in {out}: the same command goes on"
    ]
    assert list(out.glob("unfinished/seed-0-standard/checkpoint-*"))
    other = commands.run(*words, code=2).stderr
    assert f"epochs: expected 3000, as in the comparison in {out} (or a new folder); got 6" in other
    shutil.rmtree(out)
    first = commands.run(*words)
    page = (out / "report.html").read_bytes()
    again = commands.run(*words)
    assert "is finished: it is shown, and nothing is trained" in again.stderr
    assert again.stdout.splitlines()[2:] == first.stdout.splitlines()[2:]
    assert (out / "report.html").read_bytes() == page
    changed = commands.run(*words, "--permutations", "30", code=2).stderr
    assert "permutations: expected 20, as in the comparison" in changed
    assert (out / "report.html").read_bytes() == page


def test_two_processes_cannot_write_one_run(commands, clicks, tmp_path):
    out = tmp_path / "run"
    words = ["train", *clicks, "--out", out, *LONG]
    first = commands.start(*words)
    wait_for(first, lambda: checkpoint.latest(out) if out.exists() else None)
    second = commands.run(*words, "--resume", code=1)
    assert second.stderr.startswith(
        "fastpop: out: expected a place that nobody else is writing; got "
        f"{out}, which process {first.pid} is writing now"
    )
    assert len(second.stderr.splitlines()) == 1
    first.send_signal(signal.SIGTERM)
    assert first.wait().returncode == 143


def test_the_same_command_goes_on_with_a_run_that_was_stopped_and_says_so(commands, clicks, tmp_path):
    out = tmp_path / "run"
    words = ["train", *clicks, "--out", out, *QUICK]
    running = commands.start(*words, "--epochs", "100000")
    wait_for(running, lambda: checkpoint.latest(out) if out.exists() else None)
    running.send_signal(signal.SIGINT)
    running.wait()
    name = checkpoint.latest(out).name
    done = commands.run(*words, "--seed", "1", code=2)
    assert "seed: expected 0, as in the run in" in done.stderr
    longer = commands.start(*words, "--epochs", "100000")
    wait_for(longer, lambda: f"holds {name} of this run: going on from it" in longer.text("stderr"))
    longer.send_signal(signal.SIGKILL)
    longer.wait()


def test_a_run_killed_before_its_audit_is_audited_by_the_same_command(commands, clicks, tmp_path):
    words = ["train", *clicks, *QUICK, "--out", tmp_path / "run"]
    whole = commands.run(*words)
    audit, model = (tmp_path / "run" / "audit.json").read_bytes(), model_of(tmp_path / "run")
    (tmp_path / "run" / "audit.json").unlink()
    for more, said in (
        (("--epochs", "7"), "epochs: expected 6, as in the finished run"),
        (("--seed", "1"), "seed: expected 0, as in the run in"),
    ):
        assert said in commands.run(*words, *more, code=2).stderr
    other = tmp_path / "other.csv"
    other.write_text("\n".join(clicks[0].read_text().splitlines()[:-1]) + "\n")
    done = commands.run("train", other, *words[2:], code=2)
    assert "log: expected the log and the test part of the run in" in done.stderr
    assert not (tmp_path / "run" / "audit.json").exists()
    again = commands.run(*words)
    assert (tmp_path / "run" / "audit.json").read_bytes() == audit
    assert model_of(tmp_path / "run") == model
    assert again.stdout == whole.stdout
    assert "holds the finished model of this run: going on from it" in again.stderr
    assert "which holds a finished run" in commands.run(*words, code=2).stderr


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
)
def test_a_signal_while_packages_load_waits_for_them_and_is_one_line(tmp_path, number, code, word):
    """Thrown out of a C extension's first import, KeyboardInterrupt ended the process in abort()."""
    (tmp_path / "tyro.py").write_text(
        "import os, signal\n"
        f"try: os.kill(os.getpid(), {int(number)})\n"
        "except BaseException: os.abort()\n"
        "cli = None\n"
    )
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from fastpop.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"fastpop: {word}; nothing was begun\n"


def test_signals_are_answered_before_anything_heavy_is_loaded():
    script = "import sys; import fastpop.cli; print({'numpy', 'torch', 'tyro'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_a_closed_standard_input_is_no_log(clicks, tmp_path, source):
    """The lock of --out took its number, and was read as the log."""
    words = ["prepare", source, *clicks[1:], "--out", tmp_path / "out"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m fastpop "$@" <&-', sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    got = "data on standard input; got a closed one" if source == "-" else "got /dev/stdin, a device"
    assert got in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_messages_without_standard_error_are_not_among_the_results(tmp_path):
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m fastpop "$@" 2>&-', sys.executable, "evaluate", str(tmp_path / "nothing")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")


def test_closed_standard_streams_are_no_files_of_ours(clicks, tmp_path):
    """A library's warning on standard error must not end up in what is written just then."""
    script = (
        "import os, fastpop.cli.prepare as prepare\n"
        "from fastpop.cli import main\n"
        "before = prepare.Prepare.run\n"
        "def run(self):\n"
        "    before(self)\n"
        f"    handles = [os.readlink(f'/proc/self/fd/{{n}}') for n in range(3)]\n"
        f"    open({str(tmp_path / 'seen')!r}, 'w').write(' '.join(handles))\n"
        "prepare.Prepare.run = run\n"
        "main()\n"
    )
    words = ["prepare", *clicks, "--out", tmp_path / "out"]
    subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$@" <&- >&- 2>&-', sys.executable, script, *map(str, words)],
        timeout=120,
        check=True,
    )
    assert (tmp_path / "seen").read_text() == "/dev/null /dev/null /dev/null"


def test_advice_says_what_is_there(tmp_path):
    from fastpop.cli.options import LogOptions, TrainOptions
    from fastpop.cli.train import Compare, Train
    from fastpop.training import sealed

    out = tmp_path / "run"
    train = Train(LogOptions("x"), TrainOptions(), out)
    assert train.left() == "; nothing was written: the same command starts anew"
    out.mkdir()
    assert train.left() == "; nothing was written: the same command starts anew"
    sealed.write(out / "config.json", {})
    assert train.left() == f"; no checkpoint was written yet: the same command starts anew in {out}"
    (out / "checkpoint-00000012").mkdir()
    assert train.left() == f"; checkpoint-00000012 is in {out}: the same command goes on from it"
    (out / "model").mkdir()
    assert train.left() == f"; the model in {out} is finished: the same command goes on with its audit"
    (out / "audit.json").touch()
    assert "is finished: `fastpop audit` and `fastpop evaluate` read it" in train.left()
    other = Compare(LogOptions("x"), TrainOptions(), tmp_path / "report")
    assert other.left() == "; nothing was written: the same command starts anew"


@pytest.mark.skipif(not shutil.which("mount") or os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("verb", ["train", "compare"])
def test_a_disk_that_fills_up_is_one_line_and_the_same_command_goes_on_with_more_room(
    commands, clicks, tmp_path, verb
):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk]).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        more = ["--seeds", "1", "--arms", "standard"] if verb == "compare" else []
        words = [verb, *clicks, *QUICK, *more, "--epochs", "3", "--dim", "128"]
        done = commands.run(*words, "--out", disk / "run", code=1)
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(
            f"fastpop: out: expected a writable folder with room; got {disk / 'run'}"
        )
        assert "No space left on device" in done.stderr
        assert not list((disk / "run").rglob(".*.part"))
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        commands.run(*words, "--out", disk / "run")
        commands.run(*words, "--out", tmp_path / "whole")
        name = "comparison.json" if verb == "compare" else "metrics.json"
        one, two = (json.loads((folder / name).read_text()) for folder in (disk / "run", tmp_path / "whole"))
        for found in (one, two):
            found.get("made_by", {}).pop("seconds", None)
            found.pop("seal", None)
            found.get("sha256", {}).pop("report.html", None)  # the page says the seconds
        assert one == two
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, "fastpop: stopped by SIGTERM; nothing was begun\n"),
        (signal.SIGINT, 130, "fastpop: interrupted; nothing was begun\n"),
    ],
)
def test_a_signal_before_the_words_are_read_says_that_nothing_was_begun(
    monkeypatch, capsys, number, code, said
):
    from fastpop import cli

    monkeypatch.setattr(cli, "_parse", lambda argv, asked: signal.raise_signal(number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # below nohup it is ignored
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == code
    assert capsys.readouterr().err == said


def test_a_caller_whose_process_goes_on_gets_its_handlers_streams_and_warnings_back(capsys):
    from fastpop import bars, cli

    def state():
        return (
            [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
            sys.stdout,
            sys.stderr,
            sys.stdout.errors,
            sys.stderr.errors,
            bars.spoken,
            warnings.showwarning,
        )

    before = state()
    for words in (["train"], ["--help"], ["audit", "nowhere"]):
        with contextlib.suppress(SystemExit):
            cli.main(words)
        assert state() == before
    assert "fastpop: " in capsys.readouterr().err


def test_a_deadline_stops_as_a_signal_does_and_the_same_command_goes_on(commands, clicks, tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    words = ["train", *clicks, *QUICK, "--epochs", "120", "--out"]
    seconds, stops = 3.0, 0
    while True:
        done = commands.start(*words, out, "--deadline", f"{seconds:g}s").wait()
        if done.returncode == 0:
            break
        assert done.returncode == 75, done
        said = done.stderr.splitlines()[-1]
        assert said.startswith("fastpop: stopped at --deadline; ")
        assert said.endswith(
            ("the same command goes on from it", "starts anew", f"starts anew in {out}", "its audit")
        )
        stops += 1
        seconds *= 1.5  # a busy machine may need longer than that to import torch
    assert stops
    assert commands.run(*words, whole).returncode == 0
    assert model_of(out) == model_of(whole)


@pytest.mark.parametrize("text", ["", "h", "5", "-5m", "5x", "1m2h", "0s", "1.2.3s", "inf s", "99999999999d"])
def test_a_deadline_that_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"deadline: expected how long, as 90m, 2h30m or 45s; got"):
        terminal.duration("deadline", text)


def test_durations_add_up():
    assert terminal.duration("deadline", "1d2h30m5.5s") == 86_400 + 2 * 3_600 + 30 * 60 + 5.5
    assert terminal.duration("deadline", " 90m ") == 5_400


def test_a_deadline_of_a_caller_s_main_is_taken_back(tmp_path):
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(SystemExit) as stop:
        fastpop.cli.main(["train", "no-such-file.csv", "--out", str(tmp_path / "run"), "--deadline", "1h"])
    assert stop.value.code == 2
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


LAST_WORDS = """
import os, signal, sys
import fastpop.cli
from fastpop.cli import processes

def has_the_word():
    for _ in range(int(sys.argv[1])):
        os.kill(os.getpid(), signal.SIGTERM)
    return True

processes.has_the_word = has_the_word
fastpop.cli.main(["audit", "nowhere"])
"""


@pytest.mark.parametrize("signals", [0, 1])
def test_a_signal_while_it_is_said_why_a_command_ends_changes_nothing(signals):
    """As torchrun sends one where another process ended first."""
    done = subprocess.run(
        [sys.executable, "-c", LAST_WORDS, str(signals)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fastpop: ")
    assert "nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1
