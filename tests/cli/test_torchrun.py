"""`torchrun -m fastpop train`: one voice, and what happens where a process is killed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastpop
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
    assert ours[0].startswith("fastpop: another of the 2 processes ended; checkpoint-"), said
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
def test_bad_input_is_said_once(tmp_path):
    code, said = end(start(tmp_path / "out", "--encoder", "lightgcn", "--item-tower", "linear"))
    ours = [line for line in said.splitlines() if line.startswith("fastpop: ")]
    assert code != 0
    assert len(ours) == 1, said
    assert ours[0].startswith("fastpop: item_tower: expected 'table'"), said


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
