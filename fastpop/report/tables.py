"""Numbers in few characters, rows as CSV, and files written whole or not at all."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastpop import files
from fastpop.data.paths import local_path
from fastpop.report.schema import Comparison, Summary

WIDTH = 80
_PERCENT = ("fraction_direction", "fraction_shared", "fraction_shared_b")


def number(value: float | None, digits: int = 4) -> str:
    """A number in few characters: 0.0512, 12.34, 1.23e-5; "-" for a missing one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if value == 0 or (isinstance(value, int) and abs(value) < 10**6):
        return str(value if isinstance(value, int) else 0)
    if 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{digits}g}"
        return f"{value:.0f}" if "e" in text else text
    mantissa, _, exponent = f"{value:.{max(digits - 2, 1)}e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def weight_words(popularity_weight: float | None) -> str:
    """How a row was scored: "s" is the learned part alone, else beta."""
    return "s" if popularity_weight is None else f"{popularity_weight:g}"


def interval_cells(summary: Summary, key: str) -> tuple[str, str]:
    """(mean, "± half width" or ""): percent for fractions."""
    entry = summary["values"].get(key)
    if entry is None:
        return "-", ""
    factor = 100.0 if key in _PERCENT else 1.0
    low, high = entry.get("low"), entry.get("high")
    mean = number(entry["mean"] * factor) if entry["mean"] is not None else "-"
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return mean, ""
    # A p-value's low and high are its range over seeds; equal values differ by rounding only.
    if key.startswith("p_value") or high - low <= 1e-12 * abs(entry["mean"] or 0):
        return mean, ""
    return mean, "±" + number((high - low) / 2 * factor, 2)


def rows_csv(comparison: Comparison) -> str:
    """One line a row of the comparison; the columns are all values that any row has.

    popularity_weight: "s" is the learned part alone.
    """
    names = list(dict.fromkeys(n for row in comparison["rows"] for n in row["values"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "epochs", "popularity_weight", "seed", *names])
    for row in comparison["rows"]:
        weight = weight_words(row["popularity_weight"])
        cells = [row["values"].get(name) for name in names]
        writer.writerow(
            [
                row["arm"],
                row["epochs"],
                weight,
                row["seed"],
                *("" if c is None else repr(float(c)) for c in cells),
            ]
        )
    return out.getvalue()


def plain(value: Any) -> Any:
    """Anything here as JSON has it: arrays to lists, NaN to None, infinities to words."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def write_text(path: str | Path, text: str) -> Path:
    """The file is there whole, or what was there before is. Raises OSError with the path."""
    return files.write_text(local_path(path), text)


def write_json(path: str | Path, value: Any) -> Path:
    """json.dump(plain(value)), atomically; strict JSON."""
    return write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")
