"""The benchmarks run at small shapes, print one table, and refuse wrong contenders."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastpop import benchmark

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
OPS = (
    "sampled_softmax",
    "full_softmax",
    "row_update",
    "permutation",
    "score_energy",
    "top_items",
    "target_ranks",
    "alias_draw",
    "train_step",
    "read_log",
)


def bench_module(name: str):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """(what a run prints, its record): all benchmarks but those that compile, which take long."""
    path = tmp_path_factory.mktemp("bench") / "record.json"
    environment = os.environ | {"FASTPOP_BENCH": "small", "OMP_NUM_THREADS": "1"}
    # pytest-benchmark measures nothing where it takes itself for a worker of this run.
    for name in ("FASTPOP_BENCH_DEVICE", *(name for name in os.environ if name.startswith("PYTEST_XDIST"))):
        environment.pop(name, None)
    done = subprocess.run(
        [
            str(BIN / "pytest"),
            "--import-mode=importlib",
            "--override-ini=addopts=",
            "--override-ini=pythonpath=bench",
            "-o",
            "python_files=bench_*.py",
            "--benchmark-only",
            "--benchmark-quiet",
            f"--benchmark-json={path}",
            "-p",
            "no:cacheprovider",
            "-k",
            "not compile",
            "-v",
            "-rs",
            "bench",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text())


def test_every_benchmark_runs_and_the_table_names_every_op(small_run):
    printed, record = small_run
    for op in OPS:
        assert f"\n{op}  " in printed
        group = [one for one in record["benchmarks"] if one["group"].startswith(f"{op}  ")]
        assert {one["extra_info"]["ours"] for one in group} == {True, False}, op
    assert "gemm float32: " in printed


def test_a_record_holds_what_the_table_shows(small_run):
    printed, record = small_run
    ceilings = record["machine_info"]["ceilings"]
    assert len(ceilings) == 2
    assert all(value > 0 for one in ceilings for value in one.values())
    for one in record["benchmarks"]:
        assert one["stats"]["median"] > 0
        if sys.platform == "linux":
            assert one["extra_info"]["peak_bytes"] >= one["extra_info"]["left_bytes"] >= 0
    table = bench_module("table")
    assert table.render(record["benchmarks"], table.best_ceilings(ceilings)) in printed


def test_every_benchmark_file_is_in_the_table():
    files = {path.stem.removeprefix("bench_") for path in (ROOT / "bench").glob("bench_*.py")}
    assert files == set(OPS)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by signals")
def test_ratios_beside_neighbours(tmp_path):
    record = tmp_path / "record.json"
    environment = os.environ | {"FASTPOP_BENCH": "small", "PYTHONPATH": str(ROOT / "bench")}
    command = [
        sys.executable,
        str(ROOT / "bench" / "neighbours.py"),
        "--rounds",
        "1",
        "--cases",
        "row-wise",
        "--record",
        str(record),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(record.read_text())
    assert found["machine"]["processor"] in done.stdout
    for case, beside in found["seconds"].items():
        assert f"\n{case}\n" in done.stdout
        assert list(beside) == ["none", "spinning", "two spinning", "training"]
        for seconds in beside.values():
            assert {one.split()[0] for one in seconds} == {"fastpop", "torch"}
            assert all(len(rounds) == 1 and rounds[0] > 0 for rounds in seconds.values())


@pytest.mark.parametrize(
    ("module", "label", "contenders"),
    [
        (
            "replay.nn.loss",
            "RePlay",
            {"RePlay CESampled, sparse gradient": 3, "RePlay CESampled, dense gradient": 3, "RePlay CE": 1},
        ),
        (None, "Liger", {"Liger fused linear CE": 0}),  # not on a CPU
    ],
)
def test_a_peer_runs_or_is_left_out_by_name(small_run, module, label, contenders):
    printed, record = small_run
    installed = module is not None and can_import(module)
    for contender, shapes in contenders.items():
        ran = [one for one in record["benchmarks"] if one["extra_info"]["contender"] == contender]
        assert len(ran) == (shapes if installed else 0), printed
    assert (f": {label}: " in printed) == (not installed)


def can_import(module: str) -> bool:
    """In a process of its own: what RePlay imports would stay in this one."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def test_a_peer_that_does_not_import_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.setitem(sys.modules, "some_peer", None)
    with pytest.raises(pytest.skip.Exception, match=r"^Some peer: .*some_peer.*bench/peers\.txt"):
        bench_module("measuring").peer("Some peer", "some_peer")


def test_a_machine_that_was_not_quiet_is_said_so():
    quiet = {"gemm_float32": 3e11, "copy": 2e10}
    table = bench_module("table")
    shown = table.render_ceilings([quiet, quiet | {"copy": 1.7e10}])
    assert shown == "gemm float32: 300, then 300 GFLOP/s\ncopy: 20, then 17 GB/s"
    shown = table.render_ceilings([quiet, quiet | {"copy": 1.5e10}])
    assert shown.endswith("\nTHE MACHINE WAS NOT QUIET: the ratios below say little")


def test_speed_is_the_best_peer_over_the_contender():
    def one(contender, seconds, ours=False, **facts):
        return {
            "group": "op  shape",
            "stats": {"median": seconds},
            "extra_info": {"contender": contender, "ours": ours, **facts},
        }

    shown = bench_module("table").render(
        [
            one("slow peer", 0.4),
            one("peer", 0.2),
            one("fastpop", 0.05, True, work=1e9, ceiling="gemm", error=1e-6, peak_bytes=3 * 2**20),
        ],
        {"gemm": 4e10},
    )
    lines = [line.split() for line in shown.splitlines()[1:]]
    assert lines == [
        ["op", "shape"],
        ["fastpop", "50.00", "ms", "50%", "3.0", "MiB", "1e-06", "4.00x"],
        ["peer", "200.00", "ms", "1.00x"],
        ["slow", "peer", "400.00", "ms", "0.50x"],
    ]


@pytest.mark.parametrize("part", ["loss", "query", "items"])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_gate_stops_a_wrong_contender(part, sparse):
    gate = bench_module("softmax_gate")
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(6, 3, generator=generator)
    ids = torch.tensor([1, 4, 7])
    case = SimpleNamespace(
        loss_B=truth[:, 0].double(), query_grad=truth.double(), touched=ids, items_grad=truth[:3].double()
    )
    wrong = {name: 0.01 if name == part else 0.0 for name in ("loss", "query", "items")}
    items_grad = torch.zeros(9, 3).index_copy(0, ids, truth[:3] + wrong["items"])
    query = SimpleNamespace(grad=truth + wrong["query"], dtype=torch.float32)
    items = SimpleNamespace(grad=items_grad.to_sparse(1) if sparse else items_grad)
    with pytest.raises(AssertionError, match=part):
        gate.check(case.loss_B + wrong["loss"], query, items, case)
    query.grad, items.grad = truth, torch.zeros(9, 3).index_copy(0, ids, truth[:3])
    assert gate.check(case.loss_B, query, items, case) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_sees_what_is_freed_and_what_is_left(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    memory_of = bench_module("measuring").memory_of
    kept = []

    def run():  # beyond 32 MiB glibc gives every block pages of its own, whatever was freed before
        torch.ones(60 * 2**20, dtype=torch.uint8)
        kept.append(torch.ones(40 * 2**20, dtype=torch.uint8))

    peak, left = memory_of(run)
    assert peak == pytest.approx(60 * 2**20, abs=2**21)
    assert left == pytest.approx(40 * 2**20, abs=2**21)


def run_fastpop(*words: str):
    return subprocess.run([str(BIN / "fastpop"), "bench", "step", *words], capture_output=True, text=True)


def test_bench_step_prints_rows():
    done = run_fastpop(
        "--items",
        "1000",
        "--items",
        "5000",
        "--dim",
        "8",
        "--negatives",
        "64",
        "--batch",
        "128",
        "--rounds",
        "3",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert list(read) == ["fastpop", "verb", "rows"]
    assert [row["items"] for row in read["rows"]] == [1000, 5000]
    assert all(row["seconds_per_step"] > 0 for row in read["rows"])


def test_bench_step_prints_a_table():
    done = run_fastpop(
        "--items", "1000", "--dim", "8", "--negatives", "64", "--batch", "128", "--rounds", "1"
    )
    head, row = done.stdout.splitlines()
    assert "ms a step" in head
    assert row.split()[0] == "1,000"


def test_a_step_trains_as_train_does(monkeypatch):
    """The timed step is the loop's: sparse gradients of both tables, and they move."""
    seen = []

    def watch(parts, batch, step):
        table = parts.model.decoder.item_embedding
        before = table.detach().clone()
        real(parts, batch, step)
        seen.append(
            (
                table.grad.is_sparse,
                not torch.equal(before, table),
                type(parts.optimizers[0]).__name__,
                type(parts.loss).__name__,
                len(batch.target),
            )
        )

    real = benchmark.train_step
    monkeypatch.setattr(benchmark, "train_step", watch)
    benchmark.time_steps([500], 8, 32, 64, rounds=2)
    assert set(seen) == {(True, True, "RowAdam", "SampledSoftmaxLoss", 64)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "items: expected at least one catalogue size"),
        (["--items", "0"], "items: expected an integer >= 2; got 0"),
        (["--items", "10", "--dim", "0"], "dim: expected an integer >= 1; got 0"),
    ],
)
def test_bad_sizes_are_named(words, message):
    done = run_fastpop(*words)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_cost_of_a_prepared_log_is_measured(tmp_path, capsys):
    bench_module("prepared_log").measure(tmp_path / "log", 3000, 50)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all("private" in line for line in lines if "an event" not in line)
