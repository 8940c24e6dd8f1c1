"""The one way to put cells in columns."""

import re
from pathlib import Path

import pytest

from fastpop.text import aligned

ROOT = Path(__file__).resolve().parents[1]


def test_columns_are_as_wide_as_their_widest_cell_and_as_asked():
    rows = [["name", "a", "bb"], ["x", "10", "-"]]
    assert aligned(rows) == ["name   a  bb", "x     10   -"]
    assert aligned(rows, least=(6, 4), gap=0) == ["name     abb", "x       10 -"]
    assert aligned(rows, left=3, gap=1) == ["name a  bb", "x    10 -"]
    assert aligned(rows, left=0) == ["name   a  bb", "   x  10   -"]
    assert aligned([["a"]], least=(3, 9)) == ["a"]
    assert aligned([]) == []
    with pytest.raises(ValueError, match="shorter"):
        aligned([["a", "b"], ["c"]])


def test_no_table_is_aligned_by_hand():
    """A width in a format is for a number in a sentence: no line has two of them."""
    width = re.compile(r"\{[^{}]*:[<>^]\d[^{}]*\}|\.[lr]just\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "fastpop").rglob("*.py"))
        if path.name != "text.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if width.search(line)
    ]
    assert not found
