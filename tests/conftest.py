"""Fixtures of every package's tests."""

import importlib.util
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

# A graph compiled by another checkout of fastpop, kept in the machine's temporary folder, would be
# taken for this one's: torch's key for it knows our operators by name alone.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
# Threads of a kernel that wait for the others sleep: spinning, they would take the core of another process of
# the run, as processes have one thread each but for the tests that ask for more.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Which mutants are tried (test_mutants.py): those of the day, the same in all processes of a run.
os.environ.setdefault("FASTPOP_MUTANT_DAY", str(datetime.now(UTC).toordinal()))

import helpers_poison
import mutants
import torch
from helpers_cli import Commands
from helpers_device import want_gpu

MAY_LACK = ("duckdb", "pandas", "polars", "tyro")  # what a GPU's machine may; everything else is required

# numpy's, of log 0 and inf - inf in kernels that Triton's interpreter runs by it; a GPU says nothing.
OF_INTERPRETER = ("ignore:(divide by zero|invalid value|overflow) encountered:RuntimeWarning",)


def pytest_collection_modifyitems(items):
    if os.environ.get("TRITON_INTERPRET") == "1":
        for item in items:
            item.add_marker(pytest.mark.filterwarnings(*OF_INTERPRETER), append=False)


def pytest_report_header():
    day = os.environ["FASTPOP_MUTANT_DAY"]
    return f"mutants of the day: {' '.join(mutants.of_day(int(day)))} (FASTPOP_MUTANT_DAY={day})"


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is not None:
        want_gpu()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test that comes upon a package this machine lacks is skipped by that name; under CI it fails."""
    try:
        return (yield)
    except ImportError as error:
        lacking = [name for name in MAY_LACK if importlib.util.find_spec(name) is None]
        if os.environ.get("CI") or not any(repr(name) in str(error) for name in lacking):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real logs: $FASTPOP_TEST_DATA, or ../shared/data beside the project.

    Absent: tests that need it are skipped, except under CI, where they must run.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FASTPOP_TEST_DATA", default))
    if folder.is_dir():
        return folder
    reason = f"no folder of real logs at {folder} (set FASTPOP_TEST_DATA)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def fresh_memory_is_poison(monkeypatch):
    helpers_poison.poison_numpy()
    helpers_poison.poison_torch(monkeypatch)


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """The command line, in forks of one process."""
    found = Commands(tmp_path_factory.mktemp("commands"))
    yield found
    found.close()


@pytest.fixture
def one_thread():
    """One torch thread: it computes tiny models faster than two that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
