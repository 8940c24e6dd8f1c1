"""bench/distributed.py: its formula is what is counted, its fit finds what is there, and so is the page."""

import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "bench" / "records" / "epyc-2-cores-2026-11-28-distributed.json"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_distributed", ROOT / "bench" / "distributed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_record_counts_what_the_formula_says(bench):
    for one in json.loads(RECORD.read_text())["bytes"]:
        assert one["counted"] == one["formula"]
        formula = bench.step_bytes(one["processes"], 64, 16, 16, rows=64)
        assert {name: round(value) for name, value in formula.items()} == one["formula"]


def test_losses_and_regularizers_send_what_the_formula_says(bench):
    found = json.loads(RECORD.read_text())["cases"]
    assert {(one["processes"], one["case"]) for one in found} == {
        (n, name) for n in (2, 4) for name in bench.CASES
    }
    for one in found:
        assert one["counted"] == one["formula"]
        more = {name: one[name] for name in ("encoder", "case", "elsewhere", "users", "rounds")}
        formula = bench.other_step_bytes(one["processes"], 64, 16, **more)
        assert {name: round(formula.get(name, 0)) for name in bench.ORDER} == one["formula"]


def test_the_page_has_the_tables_of_the_record(bench):
    page, record = (ROOT / "docs" / "distributed.md").read_text(), json.loads(RECORD.read_text())
    for given in ((None, None), (5e-6, 2e-11)):
        for line in bench.tables(record, *given, 50e12).splitlines():
            assert line in page or (given[0] and line in bench.tables(record, None, None, 50e12)), line


def test_a_fit_finds_the_model_it_is_given(bench):
    seconds = [
        [n, name, size, 3e-5 * rounds(n) + 2e-9 * bench.sent(n, size, name)]
        for n in (2, 4)
        for name, rounds in bench.ROUNDS.items()
        for size in bench.SIZES
    ]
    fit = bench.fitted(seconds)
    assert fit["alpha"] == pytest.approx(3e-5)
    assert fit["beta"] == pytest.approx(2e-9)
    assert fit["error"] < 1e-6


def test_one_process_sends_nothing_and_more_take_longer(bench):
    plan = bench.plan(1e-5, 1e-10, 1e12)
    assert plan[0]["bytes, all"] == 0
    assert all(a["seconds, all"] < b["seconds, all"] for a, b in pairwise(plan))
    assert plan[3]["bytes, all"] == plan[3]["bytes, groups of 8"]
