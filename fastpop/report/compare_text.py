"""A comparison as a terminal shows it: sentences, tables of at most 80 columns, rules."""

import textwrap

from fastpop.report.cells import Cell
from fastpop.report.compare_tables import Table, all_tables
from fastpop.report.schema import NOT_CALIBRATED, Comparison
from fastpop.report.tables import WIDTH
from fastpop.text import aligned, printable, shortened

LABEL = 18  # of "learned-from-log-p"
HEADING = 40  # of a column: beside a label and a gap it fits the width


def comparison_text(comparison: Comparison) -> str:
    """The sentences, the tables, the rules; no line is longer than 80."""
    parts = [_filled(comparison["title"]), _filled(comparison["headline"])]
    parts += [
        _filled(sentence, initial_indent="* ", subsequent_indent="  ") for sentence in comparison["sentences"]
    ]
    for table in all_tables(comparison):
        parts.append("\n".join([table.title, _filled(table.note)]))
        parts += rendered(table)
    rules = {"calibration": NOT_CALIBRATED, **comparison["rules"]}
    rules["calibration"] = rules.pop("calibration")  # last
    parts.append(
        "\n".join(
            _filled(f"{name.replace('_', ' ')}: {text}", subsequent_indent="    ")
            for name, text in rules.items()
        )
    )
    return "\n\n".join(parts) + "\n"


def rendered(table: Table) -> list[str]:
    """One table, or as many as it takes for each to fit the width.

    A row takes one line; a second one where its numbers have intervals, or two more with the least and the
    most of two seeds.
    """
    lines: list[list[str] | str] = [[shortened(heading, HEADING) for heading in table.head]]
    for group in table.groups:
        if group.heading and group.rows and len(table.groups) > 1:
            lines.append(group.heading)
        for label, cells in group.rows:
            lines += _lines(shortened(label, LABEL), cells)
    rows = [line for line in lines if isinstance(line, list)]
    widths = [max(len(row[c]) for row in rows) for c in range(len(table.head))]
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
    width = sum(widths) + gap * (len(widths) - 1)
    if width > WIDTH and len(table.head) > 2:
        cut = 1 + len(table.head) // 2
        parts = (_columns(table, slice(1, cut)), _columns(table, slice(cut, None)))
        return [text for part in parts for text in rendered(part)]
    in_columns = iter(aligned(rows, gap=gap))
    text = [shortened(f"{line}:", WIDTH) if isinstance(line, str) else next(in_columns) for line in lines]
    text.insert(1, "-" * width)
    return ["\n".join(text)]


def _lines(label: str, cells: list[Cell]) -> list[list[str] | str]:
    lines: list[list[str] | str] = [[label, *(cell.value for cell in cells)]]
    if any(cell.spread for cell in cells):
        lines.append(["", *(cell.spread for cell in cells)])
    if any(cell.least for cell in cells):
        lines += [["  least", *(cell.least for cell in cells)], ["  most", *(cell.most for cell in cells)]]
    return lines


def _columns(table: Table, part: slice) -> Table:
    """The label and some of the columns."""
    kept = slice(part.start - 1, part.stop and part.stop - 1)  # cells have no label
    return Table(
        table.name,
        table.title,
        table.note,
        [table.head[0], *table.head[part]],
        [
            type(group)(group.heading, [(label, cells[kept]) for label, cells in group.rows])
            for group in table.groups
        ],
    )


def _filled(text: str, **indents: str) -> str:
    return textwrap.fill(printable(text), WIDTH, **indents)  # type: ignore[arg-type]
