"""What a prepared log costs: time and memory of writing, opening, splitting and batching one.

    python bench/prepared_log.py --events 20000000

Events are made and written slice by slice: 20 a user, text ids, 200,000 items, Zipf-like. Each step
prints its seconds, what it added to the private memory of the process (what cannot be dropped), and
the resident memory in all, mapped pages included, which the system takes back when it needs to.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from fastpop.data import Interactions, PreparedWriter, event_halves, split
from fastpop.data.batches import EventBatches, SequenceBatches
from fastpop.files import atomic_folder

EACH, USERS_AT_ONCE = 20, 50_000


def memory() -> dict[str, int]:
    """Kilobytes by the name that Linux has for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.endswith("kB"))
    return {name: int(value.split()[0]) for name, value in pairs}


class Steps:
    """Prints a line a step."""

    def __init__(self) -> None:
        self.start, self.private = time.perf_counter(), memory()["RssAnon"]

    def done(self, what: str) -> None:
        now, used = time.perf_counter(), memory()
        print(
            f"{what:34}{now - self.start:8.1f} s  private {(used['RssAnon'] - self.private) / 1e3:+8.0f} MB"
            f"  resident {used['VmRSS'] / 1e3:7.0f} MB  peak {used['VmHWM'] / 1e3:7.0f} MB",
            flush=True,
        )
        self.start, self.private = time.perf_counter(), memory()["RssAnon"]


def texts(prefix: str, size: int) -> Iterator[np.ndarray]:
    for first in range(0, size, 1 << 18):
        last = min(first + (1 << 18), size)
        yield np.array([f"{prefix}{n:09d}" for n in range(first, last)], dtype=object)


def write(folder: Path, num_events: int, num_items: int) -> None:
    rng = np.random.default_rng(0)
    num_users = num_events // EACH
    options = {"time": True, "weight": False, "row_stop": num_users * EACH}
    with atomic_folder(folder) as draft, PreparedWriter(draft, **options) as out:
        for side, size in (("user", num_users), ("item", num_items)):
            for ids in texts(side[0], size):
                out.add_ids(side, ids)
        for first in range(0, num_users, USERS_AT_ONCE):
            user = np.repeat(np.arange(first, min(first + USERS_AT_ONCE, num_users)), EACH)
            item = (num_items * rng.random(user.size) ** 3).astype(np.int64)
            at = np.sort(rng.integers(10**9, 11 * 10**8, (user.size // EACH, EACH)), axis=1).ravel()
            out.add(user, item, first * EACH + np.arange(user.size), time=at)
        out.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=lambda text: int(float(text)), default=20_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary one")
    given = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("reads /proc/self/status: Linux only")
    place = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        measure(place / "log", given.events, given.items)
    finally:
        shutil.rmtree(place)


def measure(folder: Path, num_events: int, num_items: int) -> None:
    steps = Steps()
    write(folder, num_events, num_items)
    steps.done("written, slice by slice")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"  {size / num_events:.1f} bytes an event")
    log = Interactions.open(folder)
    steps.done(f"open, {log.num_events:,} events")
    log.item_counts()
    steps.done("item_counts")
    parts = split(log)
    steps.done("split, leave-last-out (kept)")
    halves = event_halves(parts.train)
    steps.done("event_halves of the train part")
    del halves
    split(log, "global-time")
    steps.done("split, global-time")
    for kind in (EventBatches(parts.train, 4096, 0), SequenceBatches(parts.train, 50, 4096, 0)):
        for _ in islice(kind.epoch(0), 100):
            pass
        steps.done(f"100 steps of {type(kind).__name__}")
    Interactions.open(folder, verify=True)
    steps.done("open, every byte verified")


if __name__ == "__main__":
    main()
