"""Text as a terminal or a page may be given it, and the columns of its tables. Needs nothing: it is at hand
before anything heavy is loaded."""

import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest

LONGEST = 80  # characters of a name on a page


def printable(text: str, keep_lines: bool = False) -> str:
    """The text with everything that could steer a terminal or turn a line around (escape codes, line breaks,
    marks of direction, lone surrogates) as Python escapes, and every kind of space as the plain one;
    keep_lines leaves line feeds as they are."""
    if (text.replace("\n", "") if keep_lines else text).isprintable():
        return text
    return "".join(c if c.isprintable() or (keep_lines and c == "\n") else _seen(c) for c in text)


def _seen(c: str) -> str:
    return " " if unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode("ascii")


def shortened(text: str, most: int) -> str:
    """The text, printable; of a longer one as much as leaves room for the "…" at its end."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def html_text(text: str, most: int = LONGEST) -> str:
    """The text for a page, escaped; of a longer one what `shortened` leaves, and the whole where a pointer
    rests on it."""
    whole, short = printable(text), shortened(text, most)
    return escape(whole) if short == whole else f'<span title="{escape(whole)}">{escape(short)}</span>'


def aligned(
    rows: Iterable[Sequence[str]], *, least: Sequence[int] = (), left: int = 1, gap: int = 2
) -> list[str]:
    """Rows of as many cells each as lines, `gap` spaces between columns: the first `left` columns stand left,
    the others right. A column is as wide as its widest cell, and as least[c] where that is given; lines end
    with their last character.
    """
    body = [list(row) for row in rows]
    widths = [max(map(len, column), default=0) for column in zip(*body, strict=True)]
    widths = [max(wide, some) for wide, some in zip_longest(widths, least[: len(widths)], fillvalue=0)]
    return [
        (" " * gap)
        .join(
            cell.ljust(wide) if c < left else cell.rjust(wide)
            for c, (cell, wide) in enumerate(zip(row, widths))
        )
        .rstrip()
        for row in body
    ]


class Tabled:
    """What a notebook shows of a result whose `table()` is text of fixed width: that text, escaped."""

    def table(self) -> str:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return f"<pre>{escape(printable(self.table(), keep_lines=True))}</pre>"


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table for a notebook: cells are `html_text`, those of the first column are headings."""
    lines = ["<table>", f"<caption>{html_text(caption)}</caption>" if caption else ""]
    lines += ["<thead>", _html_row("th", "th", header), "</thead>", "<tbody>"]
    lines += [_html_row("th", "td", row) for row in rows]
    return "\n".join([*filter(None, lines), "</tbody>", "</table>"])


def _html_row(first: str, other: str, cells: Sequence[str]) -> str:
    tags = [first, *(other for _ in cells[1:])]
    return "<tr>" + "".join(f"<{tag}>{html_text(cell)}</{tag}>" for tag, cell in zip(tags, cells)) + "</tr>"
