"""Reading a log beside the plain query of an engine; checks of ours included.

    python bench/bench_read_log.py 20000000 [RECORD]     # interleaved rounds, a table, a record

`make bench` runs a smaller log. Runs are processes of their own, so that their peak RSS is known, but for
those that `make bench` times.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from reading import CONTENDERS, write_log

ROWS = 100_000 if os.environ.get("FASTPOP_BENCH") == "small" else 2_000_000
ROUNDS = 3
MOST_IN_MEMORY = 30_000_000  # rows that polars and pyarrow, which hold the whole log, are given


def run(contender: str, path: Path) -> dict:
    environment = {**os.environ, "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("reading.py")), contender, str(path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"{contender}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log.csv", ROWS, users=ROWS // 20, items=ROWS // 100)


@pytest.mark.parametrize("contender", CONTENDERS)
def test_read_log(contender, log, tmp_path, benchmark):
    benchmark.group = f"read_log  {ROWS:,} rows"
    found = run(contender, log)  # for its memory
    events = benchmark.pedantic(lambda: CONTENDERS[contender](str(log), str(tmp_path)), rounds=ROUNDS)
    assert events == found["events"] == ROWS
    benchmark.extra_info |= {
        "contender": contender,
        "ours": contender.startswith("fastpop"),
        "device": "cpu",
        "threads": 2,
        "peak_bytes": found["peak_bytes"],
        "left_bytes": 0,
    }


def compare(rows: int, record: Path | None) -> None:
    folder = Path(os.environ.get("FASTPOP_BENCH_FOLDER", tempfile.gettempdir()))
    path = folder / f"fastpop-log-{rows}.csv"
    if not path.exists():
        write_log(path, rows)
    names = [n for n in CONTENDERS if rows <= MOST_IN_MEMORY or n.startswith(("fastpop", "duckdb"))]
    found: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(ROUNDS):
        for name in names if number % 2 == 0 else names[::-1]:  # in turn: the machine drifts
            try:
                one = run(name, path)
            except RuntimeError as error:
                print(error)
                continue
            assert one["events"] == rows
            found[name].append(one | {"load": os.getloadavg()[0]})
            print(
                f"{name:22}{one['seconds']:8.1f} s{one['cpu_seconds']:8.1f} s of cores"
                f"{one['peak_bytes'] / 2**30:8.2f} GiB",
                flush=True,
            )
    seconds = {
        name: statistics.median(one["seconds"] for one in runs) for name, runs in found.items() if runs
    }
    base = seconds["duckdb, plain query"]
    print(f"\n{rows:,} rows, {path.stat().st_size / 1e9:.2f} GB; medians of {ROUNDS}")
    for name, median in seconds.items():
        peak = max(one["peak_bytes"] for one in found[name]) / 2**30
        print(f"{name:22}{median:8.1f} s{peak:8.2f} GiB  {median / base:.2f} of the plain query")
    if record is not None:
        record.write_text(
            json.dumps(
                {
                    "rows": rows,
                    "bytes": path.stat().st_size,
                    "machine": platform.processor() or platform.machine(),
                    "cores": os.cpu_count(),
                    "runs": found,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    compare(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
