"""Short numbers, CSV and JSON that read back, files whole or untouched."""

import csv
import io
import json
import os

import helpers_report
import numpy as np
import pytest

from fastpop.report import rows_csv, tables, write_json, write_text

MADE = helpers_report.comparison(num_items=200, seeds=(0, 1))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0512345, "0.05123"),
        (1 / 2001, "0.0004998"),
        (1.234e-9, "1.23e-9"),
        (12345.6, "12346"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (7, "7"),
        (None, "-"),
        (float("nan"), "-"),
        (2.5e9, "2.50e9"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_short_and_keep_their_size(value, shown):
    assert tables.number(value) == shown


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO(rows_csv(MADE))))
    assert len(rows) == len(MADE["rows"])
    assert {row["popularity_weight"] for row in rows} == {"s", *(f"{b:g}" for b in helpers_report.BETAS)}
    for row, made in zip(rows, MADE["rows"]):
        assert (row["arm"], row["epochs"], int(row["seed"])) == (made["arm"], made["epochs"], made["seed"])
        got = {k: float(row[k]) for k in made["values"]}
        assert got == pytest.approx(made["values"], nan_ok=True, rel=0)
        others = set(row) - set(made["values"]) - {"arm", "epochs", "seed", "popularity_weight"}
        assert all(row[k] == "" for k in others)


def test_json_is_strict_and_takes_arrays(tmp_path):
    value = {
        "a": np.arange(3),
        "b": np.float32(0.5),
        "c": float("nan"),
        "d": float("-inf"),
        1: (True, None),
        "e": tmp_path,
    }
    got = json.loads(write_json(tmp_path / "deep" / "x.json", value).read_text())
    assert got == {"a": [0, 1, 2], "b": 0.5, "c": None, "d": "-inf", "1": [True, None], "e": str(tmp_path)}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_text(tmp_path / "report.txt", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.txt"]
