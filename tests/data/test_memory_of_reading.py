"""What reading takes of memory, against what it says: its limit, and what is beside it."""

import subprocess
import sys

import numpy as np
import pytest

from fastpop import pages
from fastpop.data import read_log, staging, workbench
from fastpop.data.workbench import Workbench

ROLES = {"user": "u", "item": "i", "time": "t"}
PEAK = """
import sys
from pathlib import Path
from fastpop.data import prepare, staging
staging.BLOCK = 1 << 20
def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
file, out, limit = sys.argv[1:]
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
log = prepare(file, out, user="u", item="i", time="t", memory_limit=limit, threads=1, progress=False)
print(resident("VmHWM") - before, log.num_events, log.num_users, log.num_items)
"""


def put(path, num_events, num_ids):
    rng = np.random.default_rng(num_events)
    pairs = rng.integers(0, num_ids, (num_events, 2)).tolist()
    path.write_text("u,i,t\n" + "".join(f"{a},{b},{n}\n" for n, (a, b) in enumerate(pairs)))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark of Linux")
def test_a_log_is_prepared_within_its_limit_and_what_is_beside_it(tmp_path):
    """Three times the events of the same ids: no more memory. Their tables fill the limit."""
    peaks = []
    for num_events in (600_000, 1_800_000):
        file = put(tmp_path / "log.csv", num_events, 200_000)
        command = [sys.executable, "-P", "-c", PEAK, str(file), str(tmp_path / str(num_events)), "50MB"]
        peak, events, *ids = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
        assert events == num_events
        assert min(ids) > 180_000
        peaks.append(peak)
    bench = Workbench("50MB", threads=1)
    assert max(peaks) <= bench.budget + bench.beside
    assert peaks[1] - peaks[0] < 16 << 20


def test_columns_make_room_for_ids(tmp_path, monkeypatch):
    """Ids that come late push columns out of memory, into the file, and no number is another for it."""
    text = "u,i,t\n" + "1,1,1\n" * 300_000 + "".join(f"{n},{n},{n}\n" for n in range(78_000))
    (tmp_path / "log.csv").write_text(text)
    whole = read_log(tmp_path / "log.csv", **ROLES, threads=1)
    seen = []
    take = staging.Reading._take

    def taken(self, piece, tally):
        take(self, piece, tally)
        inside = [one for piece in self.pieces for one in piece.columns.values() if hasattr(one, "nbytes")]
        seen.append((sum(one.nbytes for one in inside), self.columns.budget, len(self.columns.inside)))

    monkeypatch.setattr(staging.Reading, "_take", taken)
    monkeypatch.setattr(staging, "BLOCK", 1 << 15)
    monkeypatch.setattr(workbench, "BESIDE", 0)
    monkeypatch.setattr(workbench, "READER", 0)
    log = read_log(tmp_path / "log.csv", **ROLES, threads=1, memory_limit="16MB")
    assert all(size <= max(0, budget) for size, budget, _ in seen)
    assert max(size for size, *_ in seen) > 4 << 20
    assert 1 << 20 < seen[-1][0] < 3.3e6
    for name in ("user", "item", "time", "row", "user_ids", "item_ids", "offsets"):
        np.testing.assert_array_equal(getattr(log, name), getattr(whole, name))


def test_a_limit_is_never_more_than_what_is_free(tmp_path, monkeypatch):
    file = put(tmp_path / "log.csv", 1000, 50)
    left = workbench.BESIDE + workbench.READER + 20_000_000
    monkeypatch.setattr(pages, "free", lambda: left)
    with Workbench("2GB", threads=8) as bench:
        assert (bench.budget, bench.readers) == (20_000_000, 1)
        assert bench.value("SELECT current_setting('memory_limit')") == "19.0 MiB"
    assert read_log(file, **ROLES).num_events == 1000
    left -= 10_000_000
    with pytest.raises(MemoryError, match="got '2GB', of which 10MB are free"):
        read_log(file, **ROLES)
    monkeypatch.setattr(pages, "free", lambda: None)  # where the system does not say
    assert Workbench("2GB").budget == 2e9


def test_few_readers_share_a_small_limit():
    assert [Workbench(limit, threads=8).readers for limit in ("50MB", "300MB", "4GB")] == [1, 2, 8]
