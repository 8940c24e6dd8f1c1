"""The benchmarks run, at small shapes, and print their table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_benchmark_runs_and_the_table_names_every_op(tmp_path):
    environment = os.environ | {"FASTPOP_BENCH": "small", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pytest"), "--import-mode=importlib",
         "--override-ini=addopts=", "--override-ini=pythonpath=bench", "--benchmark-only",
         f"--benchmark-json={tmp_path / 'b.json'}", "-o", "python_files=bench_*.py", "-q",
         "-p", "no:cacheprovider", "-k", "not compile", "bench"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for op in ("sampled_softmax", "full_softmax", "row_update", "permutation", "score_energy",
               "top_items", "alias_draw"):
        assert f"{op}: " in done.stdout
    assert "x ours" in done.stdout
    recorded = json.loads((tmp_path / "b.json").read_text())["benchmarks"]
    assert all(one["stats"]["median"] > 0 for one in recorded)


def test_bench_step_prints_rows():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "fastpop"), "bench", "step", "--items", "1000", "--items",
         "5000", "--dim", "8", "--negatives", "64", "--batch", "128", "--rounds", "3", "--json"],
        capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [row["items"] for row in rows] == [1000, 5000]
    assert all(row["seconds_per_step"] > 0 for row in rows)


@pytest.mark.parametrize(("options", "message"), [
    ([], "items: expected at least one catalogue size"),
    (["--items", "0"], "items: expected an integer >= 2; got 0"),
    (["--items", "10", "--dim", "0"], "dim: expected an integer >= 1; got 0"),
])
def test_bad_sizes_are_named(options, message):
    done = subprocess.run([str(Path(sys.executable).parent / "fastpop"), "bench", "step", *options],
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
