"""`prepare`: a log read once into a folder, whole or not at all, and what becomes of one in use."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers_logs import same, same_cases, small_log
from test_files import names

import fastpop
from fastpop.data import Interactions, PreparedWriter, prepare
from fastpop.data.own_test import split_with_test
from fastpop.training.folder import fingerprint


def some_csv(path: Path, events: int = 40_000) -> Path:
    rng = np.random.default_rng(0)
    user, item, at = (rng.integers(0, stop, events) for stop in (5000, 900, 10**9))
    path.write_text("u,i,t\n" + "".join(f"u{a},i{b},{c}\n" for a, b, c in zip(user, item, at)))
    return path


@pytest.mark.parametrize("core", [{}, {"min_item_events": 3, "min_user_events": 2}])
def test_prepare_gives_the_log_that_read_log_gives(tmp_path, core):
    source = some_csv(tmp_path / "log.csv", 5000)
    options = {"user": "u", "item": "i", "time": "t", **core}
    log = fastpop.read_log(source, **options)
    same(log, prepare(source, tmp_path / "p", **options))
    same(log, Interactions.open(tmp_path / "p", verify=True))
    log.save(tmp_path / "saved")
    assert names(tmp_path / "p") == names(tmp_path / "saved")
    for path in (tmp_path / "p").iterdir():  # slice by slice or at once: the same bytes
        assert path.read_bytes() == (tmp_path / "saved" / path.name).read_bytes(), path.name
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        prepare(tmp_path / "unread.csv", tmp_path / "mine", **options)
    with pytest.raises(FileNotFoundError, match=r"unread\.csv"):
        prepare(tmp_path / "unread.csv", tmp_path / "new", **options)
    with pytest.raises(TypeError, match="separater"):
        prepare(source, tmp_path / "new", separater=",", **options)
    assert names(tmp_path) == ["log.csv", "mine", "p", "saved"]


def test_bad_rows_come_along(tmp_path):
    (tmp_path / "log.csv").write_text("u,i\n1,2\n,3\n4,5\n")
    log = prepare(tmp_path / "log.csv", tmp_path / "p", user="u", item="i", on_bad_row="skip")
    assert len(log.rejected) == 1
    assert Interactions.load(tmp_path / "p").rejected == log.rejected
    with (tmp_path / "p" / "rejected.csv").open("a") as file:
        file.write("x")
    with pytest.raises(ValueError, match=r"rejected\.csv: expected the file that was saved"):
        Interactions.open(tmp_path / "p")


def prepare_command(source: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "fastpop",
        "prepare",
        str(source),
        "--user",
        "u",
        "--item",
        "i",
        "--time",
        "t",
        "--out",
        str(out),
    ]


def test_a_killed_prepare_leaves_nothing_and_the_next_gives_the_same_bytes(tmp_path):
    source = some_csv(tmp_path / "log.csv")
    subprocess.run(prepare_command(source, tmp_path / "want"), check=True, capture_output=True)
    want = {p.name: p.read_bytes() for p in (tmp_path / "want").iterdir()}
    out, environment = tmp_path / "p", {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    for wait in (0.0, 0.2):
        process = subprocess.Popen(
            prepare_command(source, out), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        while not list(tmp_path.glob(".p.*.fastpop-part")):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(wait)
        process.kill()
        process.communicate()
        assert not out.exists() or {p.name: p.read_bytes() for p in out.iterdir()} == want
    done = subprocess.run(prepare_command(source, out), capture_output=True, text=True, check=True)
    assert "40,000 events, 5,000 users, 900 items" in done.stdout
    assert {p.name: p.read_bytes() for p in out.iterdir()} == want
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


MEASURED = """
import sys, numpy as np
from fastpop.data import Interactions, split
from fastpop.data.batches import EventBatches
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
log = Interactions.open(sys.argv[1])
log.item_counts()
split(log.take(np.arange(1000)))  # whatever libraries take once, they have now
start = anonymous()
most = 0
counts = log.item_counts(); log.user_counts()
most = max(most, anonymous())
parts = split(log, sys.argv[2]); most = max(most, anonymous())
for n, batch in zip(range(20), EventBatches(parts.train, 1024, 0).epoch(0)): pass
most = max(most, anonymous())
print((most - start) * 1024 / log.num_events)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("rule", ["leave-last-out", "global-time"])
def test_memory_does_not_grow_with_the_log(tmp_path, rule):
    """Bytes of private memory an event: the part (1), the order of an epoch (4), and what users and cases
    take (here 40 events a user); the log itself would be 32, its split the same again."""
    users, each = 50_000, 40
    rng = np.random.default_rng(0)
    folder = tmp_path / "p"
    folder.mkdir()
    with PreparedWriter(folder, time=True, weight=False, row_stop=users * each) as out:
        out.add_ids("user", np.arange(users))
        out.add_ids("item", np.arange(70_000))
        for first in range(0, users, 5_000):
            user = np.repeat(np.arange(first, first + 5_000), each)
            time = np.sort(rng.integers(0, 10**9, (5_000, each)), 1).ravel()
            row = first * each + np.arange(user.size)
            out.add(user, rng.integers(0, 70_000, user.size), row, time=time)
        out.finish()
    code = "import fastpop.data.columns as c; c.ON_DISK = 1 << 18\n" + MEASURED
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), rule],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert float(done.stdout) < 24


def test_a_prepared_test_part(tmp_path):
    log = small_log()
    mask = np.arange(log.num_events) % 4 == 0
    log.take(mask).save(tmp_path / "test")
    want = split_with_test(log.take(~mask), log.take(mask))
    for given_test in (tmp_path / "test", str(tmp_path / "test")):
        same_cases(split_with_test(log.take(~mask), given_test).test, want.test)


def test_a_log_that_is_replaced_while_it_is_used(tmp_path):
    """What was opened stays; who opens while a writer writes gets one log or the other, whole."""
    logs = [small_log(seed=seed) for seed in (0, 1)]
    logs[0].save(tmp_path / "p")
    opened = Interactions.open(tmp_path / "p")
    code = (
        "import sys; from fastpop.data import Interactions; from helpers_logs import small_log\n"
        "logs = [small_log(seed=s) for s in (0, 1)]\n"
        "for n in range(60): logs[n % 2].save(sys.argv[1])"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "p")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    prints, seen = {fingerprint(log) for log in logs}, 0
    while writer.poll() is None:
        assert fingerprint(Interactions.open(tmp_path / "p")) in prints
        seen += 1
    assert writer.returncode == 0
    assert seen
    same(opened, logs[0])
    assert names(tmp_path) == ["p"]


def test_a_log_that_is_away_for_a_moment_is_looked_for_again(tmp_path, monkeypatch):
    """A writer renames twice; whoever opens in between finds the folder missing, and then there."""
    small_log(seed=0).save(tmp_path / "p")
    real, calls = os.open, []

    def away_at_first(path, *rest, **more):
        if Path(os.fspath(path)) == tmp_path / "p" and not calls:
            calls.append(path)
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", away_at_first)
    same(Interactions.open(tmp_path / "p"), small_log(seed=0))
    assert calls
    with pytest.raises(FileNotFoundError, match=r"expected a saved log; got .*which is no folder"):
        Interactions.open(tmp_path / "none")


def test_runs_under_odd_names_keep_their_own_logs(tmp_path, one_thread, monkeypatch):
    quick = {"epochs": 1, "dim": 2, "num_negatives": 4, "progress": False}
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    places = ["run1", "run[1]", "weight=2/run", os.fsdecode(b"\xff/run"), "~/exp"]
    for seed, place in enumerate(places):
        fastpop.train(small_log(seed=seed), out=place, **quick)
    for seed, place in enumerate(places):
        same(fastpop.load(place).log, small_log(seed=seed))
    assert (tmp_path / "home" / "exp" / "model").is_dir()
    assert "~" not in names(tmp_path)
