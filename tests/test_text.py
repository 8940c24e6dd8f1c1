"""The one way to put cells in columns, and text where it can do harm."""

import re
from pathlib import Path

import pytest

from fastpop.text import aligned, html_table, html_text, printable, shortened

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


def test_what_could_steer_is_seen_and_spaces_are_spaces():
    assert printable("Amélie 千と千尋の神隠し 👍") == "Amélie 千と千尋の神隠し 👍"
    assert printable("a\x1b[2Jb\x00\x7f\x9b") == r"a\x1b[2Jb\x00\x7f\x9b"
    assert printable("a\u202egpj.exe\u2066\u200f") == r"a\u202egpj.exe\u2066\u200f"
    assert printable("a\tb\r\nc\u2028d") == r"a\tb\r\nc\u2028d"
    assert printable("a\nb\x07", keep_lines=True) == "a\nb\\x07"
    assert printable("a\u3000b\u00a0c") == "a b c"
    assert printable("\ud800") == r"\ud800"


def test_what_is_long_is_shortened_by_one_rule():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert shortened("abcd efg", 6) == "abcd…"
    assert shortened("ab\x1b", 6) == "ab\\x1b"
    assert shortened("abc\x1bd", 6) == "abc\\x…"
    assert html_text("<b>\x07", 80) == r"&lt;b&gt;\x07"
    whole = r"&lt;a&gt;&quot;\u202e" * 3
    assert html_text('<a>"\u202e' * 3, 5) == f'<span title="{whole}">&lt;a&gt;&quot;…</span>'
    table = html_table(["a"], [["x" * 81], ["\x1b"]], "c")
    assert f'<th><span title="{"x" * 81}">{"x" * 79}…</span></th>' in table
    assert r"<th>\x1b</th>" in table
