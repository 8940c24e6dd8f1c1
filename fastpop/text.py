"""Text as a terminal may be given it, and the columns of its tables. Needs nothing: it is at hand before
anything heavy is loaded."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest


def printable(text: str, keep_lines: bool = False) -> str:
    """The text with everything that could steer a terminal (escape codes, line breaks, marks of
    direction, lone surrogates) as Python escapes; keep_lines leaves line feeds as they are."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or (keep_lines and c == "\n") else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


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
        return f"<pre>{escape(self.table())}</pre>"


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table for a notebook: cells are escaped, those of the first column are headings."""
    lines = ["<table>", f"<caption>{escape(caption)}</caption>" if caption else ""]
    lines += ["<thead>", _html_row("th", "th", header), "</thead>", "<tbody>"]
    lines += [_html_row("th", "td", row) for row in rows]
    return "\n".join([*filter(None, lines), "</tbody>", "</table>"])


def _html_row(first: str, other: str, cells: Sequence[str]) -> str:
    tags = [first, *(other for _ in cells[1:])]
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for tag, cell in zip(tags, cells)) + "</tr>"
