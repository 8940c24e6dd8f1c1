"""An experiment's answer as text and as pictures."""

import textwrap
from collections.abc import Mapping
from typing import Any

from fastpop.report.drawing import figure_of, styled_axes, to_svg, words
from fastpop.report.plots import COLOURS, DASHES, MARKERS
from fastpop.report.tables import WIDTH, number
from fastpop.text import aligned


def study_text(answer: Mapping[str, Any]) -> str:
    """At most 80 columns: the question, what was found, the tables."""
    lines = [f"{answer['experiment']}: {answer['log']}", *textwrap.wrap(answer["question"], WIDTH), ""]
    if answer["made_by"].get("quick"):
        lines += ["QUICK: tiny models, to see that everything runs; the numbers mean nothing.", ""]
    for sentence in answer["sentences"]:
        lines += textwrap.wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ")
    for table in answer["tables"]:
        lines += ["", *textwrap.wrap(table["title"], WIDTH), *_table(table)]
    return "\n".join(lines)


def study_pictures(answer: Mapping[str, Any]) -> dict[str, str]:
    """SVG text by name, one a chart."""
    return {chart["name"]: to_svg(study_chart(chart), f"{chart['name']}-") for chart in answer["charts"]}


def study_chart(chart: Mapping[str, Any]) -> Any:
    """Lines with their intervals, references dashed and grey."""
    fig = figure_of(7.0, 4.0)
    ax = styled_axes(fig)[0, 0]
    place = 0
    for series in chart["series"]:
        if series["dashed"]:
            ax.plot(
                series["x"],
                series["y"],
                ls=DASHES[1 + place % 2],
                color="#555555",
                lw=1.3,
                label=words(series["name"]),
            )
            continue
        look = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        place += 1
        ax.plot(series["x"], series["y"], lw=1.6, ms=4.5, label=words(series["name"]), **look)
        if series["low"]:
            ax.fill_between(series["x"], series["low"], series["high"], color=look["color"], alpha=0.18, lw=0)
    if chart["log_x"]:
        ax.set_xscale("log", base=2)
    if chart["log_y"]:
        ax.set_yscale("log")
    ax.set_xlabel(words(chart["x"]))
    ax.set_ylabel(words(chart["y"]))
    ax.set_title(words(chart["title"]), loc="left", fontsize=10)
    ax.legend(frameon=False, fontsize=8.5)
    return fig


def _table(table: Mapping[str, Any]) -> list[str]:
    rows = [[cell if isinstance(cell, str) else number(cell, 4) for cell in row] for row in table["rows"]]
    lines = aligned([table["columns"], *rows])
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
