"""docs/scaling.md is what its record says, and the record can be made again."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def module(path):
    spec = importlib.util.spec_from_file_location(f"of_{path.parent.name}_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


SCALING, DOCS = module(ROOT / "bench" / "scaling.py"), module(ROOT / "docs" / "scaling.py")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark of Linux")


def test_the_page_is_what_its_record_says():
    record = json.loads(DOCS.RECORD.read_text())
    assert DOCS.PAGE.read_text(encoding="utf-8") == DOCS.page(record), "python docs/scaling.py writes it anew"
    assert set(record["sections"]) <= set(SCALING.SECTIONS.split(", "))
    for section in ("steps", "log", "train", "audit", "evaluate"):
        assert DOCS.good(record, section), section


def test_what_went_wrong_stands_on_the_page():
    record = json.loads(DOCS.RECORD.read_text())
    record["sections"]["audit"] = [{"arguments": [7, 8], "failed": "no room", "load": 1.0}]
    assert "- Not finished: `audit 7 8`: no room." in DOCS.page(record)


@LINUX
@pytest.mark.parametrize(
    ("name", "arguments", "keys"),
    [
        ("steps", (500, 400, "4 KiB", "row_adam"), {"processor_seconds", "base_processor_seconds"}),
        ("audit", (2000, 3), {"table_bytes", "peak_bytes"}),
        ("evaluate", (2000, 250), {"predicted_seconds", "predicted_seconds_of_100k_cases"}),
        ("index", (2000, "flat"), {"recall", "in_place"}),
    ],
)
def test_a_row_of_the_record_is_measured(monkeypatch, name, arguments, keys):
    from fastpop import pages

    monkeypatch.setattr(pages, "_madvise", pages._madvise)  # put back
    monkeypatch.setattr(SCALING, "ROUNDS", 2)
    monkeypatch.setattr(SCALING, "FLUSH", 1 << 16)
    row = getattr(SCALING, name)(*arguments)
    assert keys <= set(row)
    assert all(value > 0 for key, value in row.items() if key.endswith("seconds"))


@LINUX
def test_a_log_is_written_trained_on_and_told(monkeypatch, tmp_path):
    pytest.importorskip("pyarrow")
    from fastpop.training import loop

    monkeypatch.setenv("FASTPOP_BENCH_FOLDER", str(tmp_path))
    monkeypatch.setattr(loop, "train_step", loop.train_step)  # put back
    monkeypatch.setattr(SCALING, "MOST_STEPS", 2)
    assert SCALING.log(40_000, 300)["events"] == 40_000
    row = SCALING.train(40_000, "row_adagrad")
    assert (row["steps"], row["items"]) == (5, 300)
    assert row["counted_bytes"] > 0 < row["processor_seconds_per_step"]


def test_a_row_that_fails_or_takes_too_long_says_so():
    assert "longer than 0.01 s" in SCALING.measured("audit", (100, 1), 0.01)["failed"]
