"""`torchrun -m fastpop train`: one voice, and what happens where a process is killed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastpop
from fastpop.cli import processes
from fastpop.training import checkpoint

TORCHRUN = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(out, *options, verb="train", restarts=0, epochs=3):
    """torchrun of a run on a small log."""
    events = out.parent / "events.csv"
    if not events.exists():
        rng = np.random.default_rng(0)
        rows = [f"{u},{i},{t}" for t, (u, i) in enumerate(rng.integers(0, 30, (900, 2)))]
        events.write_text("\n".join(["user,item,time", *rows]) + "\n")
    words = [*TORCHRUN, "--max-restarts", str(restarts), "-m", "fastpop", verb, str(events)]
    words += ["--user", "user", "--item", "item", "--time", "time", "--encoder", "factor", "--dim", "8"]
    words += ["--batch-size", "64", "--num-negatives", "20", "--epochs", str(epochs), "--permutations", "20"]
    return subprocess.Popen(
        [*words, "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=out.parent,  # where there are no modules to be found before the installed ones
    )


def workers_of(torchrun):
    """pids of its processes, by rank."""
    found = {}
    for folder in os.listdir("/proc"):
        if not folder.isdigit():
            continue
        try:
            with open(f"/proc/{folder}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{folder}/environ", "rb") as file:
                words = dict(one.partition("=")[::2] for one in file.read().decode().split("\0"))
        except (OSError, IndexError):
            continue
        if parent == torchrun.pid and "RANK" in words:
            found[int(words["RANK"])] = int(folder)
    return found


def kill_after_a_checkpoint(torchrun, out, rank):
    until = time.monotonic() + 120
    while checkpoint.latest(out) is None:
        assert torchrun.poll() is None, torchrun.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(workers_of(torchrun)[rank], signal.SIGKILL)


def end(torchrun, seconds=120):
    try:
        said = torchrun.communicate(timeout=seconds)[0]
    finally:
        if torchrun.poll() is None:  # its processes have sessions of their own
            for pid in (torchrun.pid, *workers_of(torchrun).values()):
                os.kill(pid, signal.SIGKILL)
            torchrun.wait()
    return torchrun.returncode, said


KILLED = "rank 1 of 2 processes ended without a word: it was killed, or out of memory"
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds the processes in /proc")


@needs_proc
def test_a_killed_process_ends_all_with_one_message(tmp_path):
    out = tmp_path / "out"
    torchrun = start(out, epochs=4000)
    kill_after_a_checkpoint(torchrun, out, rank=1)
    code, said = end(torchrun, seconds=60)
    ours = [line for line in said.splitlines() if line.startswith("fastpop: ")]
    assert code != 0
    assert len(ours) == 1, said
    assert ours[0].startswith(f"fastpop: {KILLED}; checkpoint-"), said
    assert ours[0].endswith("the same command goes on from it")


@pytest.mark.slow
@needs_proc
def test_a_restart_goes_on_from_the_checkpoint(tmp_path):
    out = tmp_path / "out"
    torchrun = start(out, restarts=1, epochs=25)
    kill_after_a_checkpoint(torchrun, out, rank=0)
    code, said = end(torchrun, seconds=300)
    assert code == 0, said
    assert "going on from it" in said
    assert len(fastpop.load(out).history) == 25
    assert said.count(f"are in {out}") == 1  # by the first process alone


@pytest.mark.slow
@needs_proc
def test_a_dealt_comparison_says_who_was_killed(tmp_path):
    out = tmp_path / "out"
    torchrun = start(out, "--seeds", "2", "--arms", "standard", verb="compare", epochs=4000)
    until = time.monotonic() + 120
    while len(list(out.glob("unfinished/*/train.csv"))) < 2 and time.monotonic() < until:  # both train
        assert torchrun.poll() is None, torchrun.communicate()[0]
        time.sleep(0.05)
    os.kill(workers_of(torchrun)[1], signal.SIGKILL)
    code, said = end(torchrun)
    ours = [line for line in said.splitlines() if line.startswith("fastpop: ") and "CAUTION" not in line]
    assert code != 0
    assert len(ours) == 1, said
    assert ours[0].startswith(f"fastpop: {KILLED}; 0 of 2 runs are in {out}"), said
    assert f"traceback : {ours[0]}" in said  # in torchrun's own box


def test_who_is_gone_is_known_of_this_host_alone(monkeypatch):
    import torch.distributed as dist

    ended = subprocess.Popen([sys.executable, "-SEc", ""])
    ended.wait()
    store, here = dist.HashStore(), processes.socket.gethostname()
    monkeypatch.setattr(processes, "_store", store)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert processes.killed() is None  # nobody came yet
    for rank, pid, host in ((0, os.getpid(), here), (1, os.getpid(), here), (2, ended.pid, "elsewhere")):
        store.set(f"process/{rank}", f"{pid} {host}")
    assert processes.killed() is None
    store.set("process/3", f"{ended.pid} {here}")
    assert processes.killed().startswith("rank 3 of 4 processes ended without a word")
    asleep = subprocess.Popen([sys.executable, "-SEc", ""])  # nobody waits for it: it stays, and is no more
    os.waitid(os.P_PID, asleep.pid, os.WEXITED | os.WNOWAIT)
    store.set("process/1", f"{asleep.pid} {here}")
    if os.path.isdir("/proc/self"):
        assert processes.killed().startswith("rank 1, 3 of 4")
    asleep.wait()


def test_torchrun_is_given_the_message(monkeypatch, tmp_path):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    processes.report("fastpop: dim: expected an integer; got 'x'")
    failed = ProcessFailure(local_rank=1, pid=17, exitcode=2, error_file=str(path))
    shown = str(ChildFailedError("fastpop", {1: failed}))
    assert "traceback : fastpop: dim: expected an integer; got 'x'" in shown


@pytest.mark.slow
def test_bad_input_is_said_once(tmp_path):
    code, said = end(start(tmp_path / "out", "--encoder", "lightgcn", "--item-tower", "linear"))
    ours = [line for line in said.splitlines() if line.startswith("fastpop: ")]
    assert code != 0
    assert len(ours) == 1, said
    assert ours[0].startswith("fastpop: item_tower: expected 'table'"), said
    assert f"traceback : {ours[0]}" in said  # in torchrun's own box


@pytest.mark.slow
def test_a_comparison_deals_its_seeds_out(tmp_path):
    out = tmp_path / "out"
    words = ("--seeds", "2", "--arms", "standard", "--references", "popularity", "--name", "dealt")
    code, said = end(start(out, *words, verb="compare"), seconds=300)
    assert code == 0, said
    assert said.count(f"are in {out}") == 1
    assert not (out / "unfinished").exists()
    from fastpop.training import sealed

    assert sealed.read(out / "comparison.json")["made_by"]["seeds"] == [0, 1]
