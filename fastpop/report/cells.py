"""Numbers with their intervals as the cells of a column.

The numbers of a column share their decimals, so that they can be compared by eye; half widths of intervals
are rounded up, so that none claims more than was found.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastpop.report.glossary import bounds
from fastpop.report.schema import Interval
from fastpop.report.tables import number

DIGITS = 3  # of the largest number of a column
EACH = -1  # instead of decimals: so many digits of each number by itself
FLOOR = "*"  # marks a p-value that could not be smaller


@dataclass(frozen=True)
class Cell:
    """A number, and around it "±0.02" or "[0, 0.9]"; or, of two seeds, the least and the most."""

    value: str = "-"
    spread: str = ""
    least: str = ""
    most: str = ""


def interval_cells(
    key: str,
    entries: Sequence[Interval | Mapping[str, Any] | None],
    decimals: int | None,
    *,
    signed: bool = False,
    spread: bool = True,
) -> list[Cell]:
    """The cells of one column. signed: of differences, with + and -."""
    means = [
        float(entry["mean"]) if entry is not None and known(entry["mean"]) else None  # type: ignore
        for entry in entries
    ]
    write = writer(means, decimals)
    noise = 1e-12 * max((abs(mean) for mean in means if mean is not None), default=0.0)
    cells = []
    for entry, mean in zip(entries, means):
        if entry is None or mean is None:
            cells.append(Cell())
            continue
        value = write(mean)
        if signed and float(value) > 0:
            value = "+" + value
        around = _around(key, entry, mean, write, signed, noise) if spread else {}
        cells.append(Cell(value, **around))
    return cells


def _around(
    key: str, entry: Mapping[str, Any], mean: float, write: Callable[..., str], signed: bool, noise: float
) -> dict[str, str]:
    """± only where the interval lies evenly around the mean and within what the metric can be."""
    if known(entry.get("least")) and known(entry.get("most")):
        return {"least": write(float(entry["least"])), "most": write(float(entry["most"]))}
    low, high = (float(entry[end]) if known(entry.get(end)) else math.nan for end in ("low", "high"))
    if not noise < high - low < math.inf:  # which nan is not, either
        return {}
    least, most = bounds(key)
    if signed:
        least, most = least - most, most - least
    below, above = low <= least, high >= most
    if below or above:
        end = "any" if below and above else "≤" + write(high, 1) if below else "≥" + write(low, -1)
        return {"spread": end}
    half = (high - low) / 2
    if abs((low + high) / 2 - mean) > 1e-6 * half:
        return {"spread": f"[{write(low)}, {write(high)}]"}
    return {"spread": "±" + write(half, 1)}


def writer(values: Sequence[float | None], decimals: int | None) -> Callable[..., str]:
    """How the numbers of one column are written; a second argument of 1 rounds up, of -1 down."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    largest = max(map(abs, there), default=0.0)
    if decimals == EACH or (decimals is None and largest and not 1e-4 <= largest < 1e7):
        return lambda value, way=0: _digits(value, way, 1e-12 * largest)
    if decimals is None:
        whole = all(value == int(value) for value in there)
        decimals = 0 if whole else max(0, DIGITS - 1 - math.floor(math.log10(largest)), 4 * (largest <= 1))
    places = 0 if decimals == 1 and all(value == int(value) for value in there) else decimals

    def write(value: float, way: int = 0) -> str:
        text = f"{_rounded(value, places, way):.{places}f}"
        return text.lstrip("-") if float(text) == 0 else text

    return write


def _digits(value: float, way: int, noise: float) -> str:
    """Three digits of a number by itself, two where it is rounded up; 0 for what is only rounding."""
    if abs(value) <= noise:
        return "0"
    if way and math.isfinite(value):
        return number(_rounded(value, 1 - math.floor(math.log10(abs(value))), way), 3)
    return f"{value:#.3g}".rstrip(".") if 1e-3 <= abs(value) < 999.5 else number(value, 3)


def _rounded(value: float, places: int, way: int) -> float:
    if not way or not math.isfinite(value):
        return value
    return way * math.ceil(way * value * 10.0**places - 1e-9) / 10.0**places


def p_cell(value: float | None, draws: int) -> str:
    """A p-value, marked where it is the smallest that so many draws can give."""
    if not known(value):
        return "-"
    assert value is not None
    text = f"{value:.2f}" if value >= 0.01 else number(value, 2)
    return text + (FLOOR if draws and value <= (1 + 1e-9) / (draws + 1) else "")


def known(value: Any) -> bool:
    """Whether there is a number: not None or nan. In JSON infinities are words."""
    return value is not None and not math.isnan(float(value))
