"""One set-up for all runs: the ceilings, how a contender is measured, and the table at the end."""

import os
import platform
import shutil
import time
from collections.abc import Callable

import pytest
import torch
from measuring import DEVICE, ceilings, memory_of, wait
from table import best_ceilings, render, render_ceilings

FOUND = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[FOUND] = []
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(f"FASTPOP_BENCH_DEVICE={DEVICE}: no CUDA device is available")


@pytest.fixture(scope="session", autouse=True)
def measured_ceilings(pytestconfig):
    """Before the first benchmark and after the last."""
    pytestconfig.stash[FOUND].append(ceilings())
    yield
    pytestconfig.stash[FOUND].append(ceilings())


@pytest.fixture
def measure(benchmark):
    """measure(contender, shape, run): time it, then its memory; facts go into the record.

    Once to warm up, then as often as three seconds hold: 3 to 15 times, once if a run takes over five.
    forget: called before memory is measured, to drop what an earlier call left (gradients).
    light: a smaller run of the same peak, for a contender that takes long. work: FLOP or bytes,
    with `ceiling` the name of the one that bounds it.
    """

    def run(
        contender: str,
        shape: object,
        function: Callable[[], object],
        *,
        forget: Callable[[], None] | None = None,
        light: Callable[[], object] | None = None,
        **facts,
    ) -> None:
        def waited() -> None:
            function()
            wait()

        benchmark.group = f"{benchmark.name.removeprefix('test_').split('[')[0]}  {shape}"
        start = time.perf_counter()
        waited()
        seconds = time.perf_counter() - start
        benchmark.pedantic(waited, rounds=1 if seconds > 5 else min(max(int(3 / seconds), 3), 15))
        if forget is not None:
            forget()
        memory = memory_of(light or function)
        if memory is not None:
            facts |= {"peak_bytes": memory[0], "left_bytes": memory[1]}
        benchmark.extra_info |= {
            "contender": contender,
            "ours": contender.startswith("fastpop"),
            "device": str(DEVICE),
            "threads": torch.get_num_threads(),
            **facts,
        }

    return run


@pytest.fixture
def compiled():
    """torch.compile for one shape, from a clean cache, or a skip that says what is missing."""
    if DEVICE.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        pytest.skip("torch.compile: no C++ compiler")
    torch._dynamo.reset()
    return lambda function: torch.compile(function, dynamic=False)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info |= {
        "ceilings": config.stash[FOUND],
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.machine(),
    }


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    found = config.stash[FOUND]
    records = [
        {"group": one.group, "extra_info": one.extra_info, "stats": {"median": one.stats.median}}
        for one in session.benchmarks
        if not one.has_error
    ]
    terminalreporter.section("speed: best peer's median / own; all in one run")
    for line in (render_ceilings(found) + "\n" + render(records, best_ceilings(found))).splitlines():
        terminalreporter.write_line(line)
