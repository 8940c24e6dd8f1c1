"""The GPU day without a GPU: its runner loses nothing, and its code runs, small, on a processor."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
COMMANDS = ("gpu_day", "gpu_profile")


@pytest.fixture
def gpu(monkeypatch):
    """Imports a module of bench/gpu."""
    monkeypatch.syspath_prepend(str(BENCH))
    return lambda name: importlib.import_module(f"gpu.{name}")


def run(command: str, *words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, BENCH / f"{command}.py", *words], capture_output=True, text=True, **options
    )


@pytest.mark.parametrize(
    ("command", "plan", "most"), [("gpu_day", "DAY", 540), ("gpu_profile", "PROFILE", 240)]
)
def test_the_plan_is_printed_without_any_package(gpu, command, plan, most):
    # -S: as if nothing were installed.
    done = subprocess.run(
        [sys.executable, "-S", BENCH / f"{command}.py", "--plan"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    sections = getattr(gpu("plan"), plan)
    for section in sections:
        assert f"\n{section.name} " in "\n" + done.stdout
        assert (BENCH / "gpu" / "sections" / f"{section.name}.py").exists()
        assert 0 < section.item_limit <= section.seconds
    assert sum(section.seconds for section in sections) <= most
    assert max(map(len, done.stdout.splitlines())) <= 100


FAKE = {
    "mixed": """
import os, signal, time
def items(context):
    yield "good", lambda: context.add("fact", "good", number=1)
    yield "raises", lambda: 1 / 0
    yield "crashes", lambda: os.kill(os.getpid(), signal.SIGSEGV)
    yield "hangs", lambda: time.sleep(60)
    yield "skips", skip
    yield "last", lambda: context.add("fact", "last", number=float("nan"))
def skip():
    from gpu.context import Skip
    raise Skip("not here")
""",
    "stuck": """
import time
time.sleep(60)
def items(context): yield from ()
""",
    "absent": "import no_such_module_anywhere\n",
    "after": """
def items(context): yield "after", lambda: context.check("after", True)
""",
}


def test_a_section_that_fails_in_any_way_loses_no_other_result(gpu, tmp_path):
    plan, runner, record_module = gpu("plan"), gpu("runner"), gpu("record")
    for name, text in FAKE.items():
        (tmp_path / f"{name}.py").write_text(text)
    record = record_module.Record(tmp_path / "day.jsonl", "now")
    environment = gpu("command").sections_environment("day", tmp_path, tmp_path, "now", cuda=False)
    sections = tuple(
        plan.Section(name, name, seconds, 1.5)
        for name, seconds in (("stuck", 4), ("mixed", 60), ("absent", 5), ("after", 20))
    )

    def command(section, item_seconds):
        code = (
            f"import gpu.sections, runpy, sys; gpu.sections.__path__.append({str(tmp_path)!r}); "
            "runpy.run_module('gpu.child', run_name='__main__')"
        )
        return [sys.executable, "-P", "-c", code, section.name, str(item_seconds)]

    runner.run(sections, record, environment, tmp_path / "log", command=command)
    lines = record.lines()
    by_name = {line["name"]: line for line in lines if line["kind"] in ("fact", "error", "skipped", "check")}
    assert by_name["good"]["number"] == 1
    assert "ZeroDivisionError" in by_name["raises"]["error"]
    assert by_name["crashes"]["error"] == "its process was ended by SIGSEGV"
    assert by_name["hangs"]["error"] == "its process ran past an item's limit of 1.5 s"
    assert by_name["skips"] == by_name["skips"] | {"kind": "skipped", "reason": "not here"}
    assert by_name["last"]["number"] == "nan"
    assert by_name["stuck"]["error"] == "ran past the section's deadline"
    assert by_name["absent"]["error"] == "ended with status 1 before an item began"
    assert by_name["after"]["ok"] is True
    begun = [line["name"] for line in lines if line["kind"] == "begin" and line["section"] == "mixed"]
    assert begun == ["good", "raises", "crashes", "hangs", "skips", "last"]
    ends = [line["section"] for line in lines if line["kind"] == "section" and line["name"] == "end"]
    assert ends == ["stuck", "mixed", "absent", "after"]


def test_a_section_that_hangs_before_its_first_item_ends_at_its_deadline(gpu, tmp_path):
    runner, plan = gpu("runner"), gpu("plan")
    record = gpu("record").Record(tmp_path / "day.jsonl", "now")
    start = time.monotonic()
    code = "import subprocess, time; subprocess.Popen(['sleep', '97']); time.sleep(97)"
    child = [sys.executable, "-c", code]
    runner.run(
        (plan.Section("stuck", "", 4, 3),),
        record,
        dict(os.environ),
        tmp_path / "log",
        command=lambda *_: child,
    )
    assert time.monotonic() - start < 8
    (error,) = (line for line in record.lines() if line["kind"] == "error")
    assert (error["name"], error["error"]) == ("stuck", "ran past the section's deadline")
    left = subprocess.run(["pgrep", "-f", "^sleep 97$"], capture_output=True, text=True).stdout
    assert left == ""  # what it had started is gone, too


def test_a_record_survives_a_line_that_was_cut_off(gpu, tmp_path):
    record_module = gpu("record")
    path = tmp_path / "day.jsonl"
    record_module.Record(path, "one").add("", "run", "gpu-day", sections=["a"])
    with path.open("a") as file:
        file.write('{"run": "one", "sec')
    record_module.Record(path, "two").add("a", "fact", "kept", number=2)
    lines = record_module.read(path)
    assert [line["run"] for line in lines] == ["one", "two"]
    assert [line["name"] for line in record_module.last_run(lines)] == ["kept"]


def test_a_killed_run_leaves_what_it_had_found(gpu, tmp_path):
    environment = os.environ | {"OUT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, BENCH / "gpu_day.py", "--cpu", "--only", "ceilings"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    path = tmp_path / "gpu-day.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and (not path.exists() or '"begin"' not in path.read_text()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lines = gpu("record").read(path)
    assert [line["kind"] for line in lines[:3]] == ["run", "section", "begin"]
    path.write_text("\n".join(map(json.dumps, lines[:3])) + "\n")  # killed before anything was found
    done = run("gpu_day", "--read", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ceilings  (cut off: the run ended in it)\n") == 1


# What a single process can run of both commands; the others start processes of their own.
IN_ONE_PROCESS = (
    "ceilings",
    "softmax",
    "rows",
    "catalogue",
    "training",
    "step",
    "peers",
    "baseline",
    "tiles",
    "again",
    "baseline_again",
)


@pytest.fixture(scope="module")
def small_day(tmp_path_factory):
    """The lines of every section that needs no process of its own, at small shapes, run as the child runs
    them."""
    folder = tmp_path_factory.mktemp("day")
    sys.path.insert(0, str(BENCH))
    try:
        from gpu.command import sections_environment
        from gpu.record import read
    finally:
        sys.path.remove(str(BENCH))
    environment = sections_environment("gpu-day", folder, folder, "now", cuda=False)
    environment["OMP_NUM_THREADS"] = "1"
    code = (
        "import sys\nfrom gpu.child import main\n"
        "for name in sys.argv[1:]:\n    assert main(name, 120) == 0, name\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *IN_ONE_PROCESS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, read(folder / "gpu-day.jsonl"), done.stderr


def test_every_section_runs_on_a_processor(small_day):
    _, lines, said = small_day
    errors = [line for line in lines if line["kind"] == "error"]
    assert errors == [], said
    assert {line["section"] for line in lines if line["kind"] == "begin"} == set(IN_ONE_PROCESS)
    wrong = [line for line in lines if line["kind"] == "check" and not line["ok"]]
    assert wrong == []


def test_times_stand_beside_their_predictions(small_day, gpu):
    _, lines, _ = small_day
    times = {line["name"]: line for line in lines if line["kind"] == "time"}
    for name in (
        "shared B=96 K=200 D=16 forward",
        "shared B=96 K=200 D=16 both",
        "per-row B=64 K=50 D=16 forward",
        "adagrad 200 rows of 2,000 x 16",
        "energy C=300 V=500 D=16 bfloat16",
        "top 10 B=64 V=1,000 D=16 float32",
        "train step B=K=64 D=16 V=500",
        "sampled B=96 D=16 torch.compile",
        "full B=64 V=500 D=16 fastpop",
    ):
        line = times[name]
        assert 0 < line["low"] <= line["seconds"] <= line["high"]
        assert line["ratio"] == pytest.approx(line["seconds"] / line["predicted"], abs=1e-3)
    ceilings = {line["name"] for line in lines if line["kind"] == "ceiling"}
    assert ceilings >= {"gemm bfloat16", "gemm tf32", "gemm float32", "copy", "gather"}


def test_what_only_a_card_can_do_is_skipped_by_name(small_day):
    _, lines, _ = small_day
    skipped = {line["name"]: line["reason"] for line in lines if line["kind"] == "skipped"}
    assert "no graph to capture" in skipped["graph, both, B=64 K=100 D=16 V=1,000 bfloat16"]
    assert "no CUDA device" in skipped["exp"]
    assert set(skipped) >= {"full, Liger", "full, CCE, exact"}


def test_a_step_leaves_a_trace(small_day):
    import gzip

    folder, lines, _ = small_day
    trace = json.loads(gzip.decompress((folder / "gpu-day-trace.json.gz").read_bytes()))
    assert trace["traceEvents"]
    assert any(line["name"] == "train step: device" for line in lines)


def test_a_record_is_read_as_a_table(small_day):
    folder, _, _ = small_day
    done = run("gpu_day", "--read", str(folder / "gpu-day.jsonl"))
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "shared B=96 K=200 D=16 forward" in done.stdout
    assert "0 errors" in done.stdout
    missing = run("gpu_day", "--read", str(folder / "nothing.jsonl"))
    assert missing.returncode == 1
    assert "expected the record of a run" in missing.stderr


def test_a_table_says_what_was_met_and_what_is_wrong(gpu):
    judging = gpu("judging")

    def line(kind, name, section="s", **facts):
        return {"run": "r", "at": 0, "section": section, "kind": kind, "name": name, **facts}

    bar = {"ceiling": "copy", "work": 2e9, "least": 0.8}
    lines = [
        line("run", "gpu-day", "", sections=["s", "never"]),
        line("section", "start"),
        line("ceiling", "copy", "ceilings", rate=2e12, unit="B/s", predicted=3e12),
        line("time", "fast", seconds=1.1e-3, predicted=1e-3, ratio=1.1, bar=bar),
        line("time", "slow", seconds=2e-3, bar=bar),
        line("check", "tests/x.py::test_fine", ok=True, test=True),
        line("check", "loss", ok=True),
        line("check", "tests/x.py::test_bad[bfloat16]", ok=False, test=True, error="assert 1 == 2\nmore"),
        line("error", "broke", error="x" * 300),
        line("ceiling", "copy", "again", rate=1.5e12, unit="B/s"),
    ]
    shown = judging.table(lines).splitlines()
    assert max(map(len, shown)) <= 100
    words = {row.split()[0]: row.split() for row in shown if row.split()}
    assert words["fast"] == ["fast", "1.10", "ms", "1.00", "ms", "1.10", "91%/80%", "met"]
    assert words["slow"] == ["slow", "2.00", "ms", "50%/80%", "NOT", "MET"]
    assert words["test_bad[bfloat16]"][:2] == ["test_bad[bfloat16]", "WRONG"]
    assert "test_fine" not in words
    assert "2 times, 1 of 2 bars met, 1 of 1 checks right, 1 errors, 0 skipped" in shown
    assert "tests: 1 passed, 1 failed, 0 skipped" in shown
    assert "not begun: never" in shown
    assert any("NOT QUIET" in row for row in shown)


def test_predictions_are_those_of_the_model(gpu):
    """Written down beforehand; a change of the model changes the file, which a reader sees."""
    figures = gpu("figures")
    known = json.loads((BENCH / "gpu_predictions.json").read_text())
    assert known == figures.predictions()
    page = (ROOT / "docs" / "performance.md").read_text()
    for name, table in figures.tables().items():
        assert f"<!-- {name} -->\n{table}<!-- end -->\n" in page
    for name in ("shared B=65,536 K=8,192 D=128 forward", "per-row B=65,536 K=1,024 D=128 forward"):
        assert known[name]["seconds"] > 0
        assert known[name]["bar"] in (0.6, 0.8)


def test_costs_add_up_where_one_block_is_alone(gpu):
    costs = gpu("costs")
    work = {"gemm bfloat16": costs.H100["gemm bfloat16"] * 2e-3, "issue": costs.H100["issue"] * 3e-3}
    assert costs.Kernel(work).seconds() == pytest.approx(3e-3)
    assert costs.Kernel(work, alone=True).seconds() == pytest.approx(5e-3)
    cost = costs.Cost((costs.Kernel(work),), launches=10, host=1000)
    assert cost.seconds() == pytest.approx(1000 * costs.HOST)
    assert cost.bound() == "host"
    assert costs.Cost((costs.Kernel(work),)).bound() == "issue"


def test_instructions_are_counted_in_what_triton_compiles(gpu, monkeypatch, tmp_path):
    """Other versions of Triton compile otherwise: near, not equal."""
    pytest.importorskip("triton", reason="triton is not installed")
    code = "import json; from gpu import instructions; print(json.dumps(instructions.count(small=True)))"
    path = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "FASTPOP_BENCH_DEVICE": "cpu"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ((name, found),) = json.loads(done.stdout)["kernels"].items()
    known = json.loads((BENCH / "gpu" / "instructions.json").read_text())["kernels"][name]
    assert found["wgmma"] is known["wgmma"] is True
    assert found["per_logit"] == pytest.approx(known["per_logit"], rel=0.5)


class Stub:
    """Stands for what torch.cuda has on a card alone: events, streams, graphs. Counts what it is asked."""

    asked = ()

    def __init__(self, *_, **__):
        pass

    def __getattr__(self, name):
        return lambda *_, **__: Stub.asked.append(name) or 2.0  # milliseconds, where it is an event

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_times_of_events_and_of_replays_are_seconds_a_call(gpu, monkeypatch):
    timing = gpu("timing")
    for name in ("Event", "Stream", "CUDAGraph", "current_stream", "stream", "graph", "synchronize"):
        monkeypatch.setattr(timing.torch.cuda, name, Stub)
    monkeypatch.setattr(Stub, "asked", [])
    monkeypatch.setattr(timing, "FLUSH_BYTES", 8)
    calls = []
    found = timing._by_events(lambda: calls.append(1), 4)
    assert (found.seconds, found.rounds, found.clock, len(calls)) == (2e-3, 4, "events", 4)
    assert Stub.asked.count("record") == 8
    calls.clear()
    found = timing._by_replays(lambda: calls.append(1), rounds=3, inside=5)
    assert (found.seconds, found.rounds, found.clock) == (2e-3 / 5, 3, "graph")
    assert len(calls) == 4  # three to warm up, one that is captured
    assert Stub.asked.count("replay") == 1 + 3 * 5


def test_without_a_card_it_says_so_at_once(tmp_path):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a card")
    done = run("gpu_day", env=os.environ | {"OUT": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr == (
        "gpu_day.py: expected a CUDA device; this machine has none (--cpu runs the same "
        "code, small, on a processor)\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_counters_are_read_from_what_ncu_prints(gpu):
    text = """==PROF== Profiling "forward_kernel"
"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"
"0","forward_kernel","GPU Speed Of Light Throughput","Duration","us","1,234.50"
"0","forward_kernel","Compute Workload Analysis","Issue Slots Busy","%","61.25"
"0","forward_kernel","Launch Statistics","Grid Size","","512"
"1","query_kernel","Occupancy","Achieved Occupancy","%","12.4"
"""
    assert gpu("sections.counters").parsed(text) == [
        ("forward_kernel", {"duration": "1,234.50 us", "issue_pct": "61.25 %"}),
        ("query_kernel", {"occupancy_pct": "12.4 %"}),
    ]
    assert gpu("sections.counters").parsed("no counters here") == []


def test_a_laid_out_package_is_the_installed_one(gpu, tmp_path):
    """Links to the sources, and to a compiled module that lies elsewhere."""
    from fastpop import _C

    layout = gpu("layout")
    layout.lay_out(tmp_path, Path(_C.__file__))
    code = (
        "import fastpop, fastpop.kernels.sampled_softmax.reference as r; from fastpop import ops; "
        "print(fastpop.__file__, r.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert all(word.startswith(str(tmp_path)) for word in done.stdout.split())
    assert layout.loads(tmp_path, cuda=_C.has_cuda) == ""
    carried = tmp_path / layout.MODULE
    carried.write_bytes(Path(_C.__file__).read_bytes())
    assert not layout.is_of_these_sources(carried)
    carried.with_name(layout.DIGEST).write_text(layout.sources() + "\n")
    assert layout.is_of_these_sources(carried)
    carried.with_name(layout.DIGEST).write_text("0" * 64 + "\n")
    assert not layout.is_of_these_sources(carried)
    (tmp_path / "fastpop" / layout.MODULE).unlink()
    (tmp_path / "fastpop" / layout.MODULE).write_text("no module")
    assert layout.loads(tmp_path, cuda=False) != ""


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_whole_command_on_a_processor(gpu, command, tmp_path):
    done = run(command, "--cpu", env=os.environ | {"OUT": str(tmp_path)}, timeout=540)
    assert done.returncode == 0, done.stderr
    lines = gpu("record").read(tmp_path / f"{command.replace('_', '-')}.jsonl")
    assert [line for line in lines if line["kind"] == "error"] == []
    assert all(line["ok"] for line in lines if line["kind"] == "check")
    assert "not begun" not in done.stdout
