"""An experiment's answer as text and as pictures."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastpop.report.drawing import INK, figure_of, styled_axes, to_svg, words
from fastpop.report.plots import COLOURS, DASHES, MARKERS
from fastpop.report.tables import WIDTH, number
from fastpop.text import aligned, printable, shortened

CELL = 40  # characters of a word in a table
MANY = 6  # series whose names no longer stand inside the picture
POINTS = ("*", "X", "d", "p")  # of references that are one point
NAME_SIZE = 7.5  # of names at points
# Where a name may stand from its point, right and left of it, ever further off.
_PLACES = sorted(
    ((side * dx, dy) for dx in (6, 18, 36, 60) for side in (1, -1) for dy in range(-72, 73, 4)),
    key=lambda place: (abs(place[0]) + 1.5 * abs(place[1]), place),
)


def study_text(answer: Mapping[str, Any]) -> str:
    """At most 80 columns: the question, what was found, the tables."""
    lines = [shortened(f"{answer['experiment']}: {answer['log']}", WIDTH)]
    lines += [*textwrap.wrap(answer["question"], WIDTH), ""]
    if answer["made_by"].get("quick"):
        lines += ["QUICK: tiny models, to see that everything runs; the numbers mean nothing.", ""]
    for sentence in answer["sentences"]:
        lines += textwrap.wrap(printable(sentence), WIDTH, initial_indent="- ", subsequent_indent="  ")
    for table in answer["tables"]:
        lines += ["", *textwrap.wrap(printable(table["title"]), WIDTH), *_table(table)]
    return "\n".join(lines)


def study_pictures(answer: Mapping[str, Any]) -> dict[str, str]:
    """SVG text by name, one a chart."""
    return {chart["name"]: to_svg(study_chart(chart), f"{chart['name']}-") for chart in answer["charts"]}


def study_chart(chart: Mapping[str, Any]) -> Any:
    """Lines or points with their intervals, references dashed and grey. Many names stand below the picture;
    those of single points that are not joined, at the points."""
    joined, many = chart.get("joined", True), len(chart["series"]) > MANY
    named = not joined and all(len(series["x"]) == 1 for series in chart["series"])
    fig = figure_of(7.0, 5.0 if many else 4.4 if not joined else 4.0)
    ax = styled_axes(fig)[0, 0]
    place = references = 0
    for series in chart["series"]:
        if series["dashed"]:
            look = {"ls": DASHES[1 + references % 2], "lw": 1.3}
            if len(series["x"]) == 1:
                look = {"ls": "none", "marker": POINTS[references % len(POINTS)], "ms": 7}
            ax.plot(series["x"], series["y"], color="#555555", label=words(series["name"]), **look)
            references += 1
            continue
        turn, colour = divmod(place, len(COLOURS))
        look = {"color": COLOURS[colour], "marker": MARKERS[(colour + turn) % len(MARKERS)], "ms": 4.5}
        place += 1
        if not joined:
            ax.errorbar(
                series["x"],
                series["y"],
                _reach(series),
                ls="none",
                lw=1.3,
                label=words(series["name"]),
                **look,
            )
            continue
        style = {"lw": 1.6, "ls": DASHES[turn % len(DASHES)]}
        ax.plot(series["x"], series["y"], label=words(series["name"]), **style, **look)
        if series["low"]:
            ax.fill_between(series["x"], series["low"], series["high"], color=look["color"], alpha=0.18, lw=0)
    if chart["log_x"]:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    if chart["log_y"]:
        ax.set_yscale("log")
    ticks = chart.get("ticks", ())
    if ticks:
        ax.set_xticks(range(len(ticks)), [words(tick) for tick in ticks])
    ax.set_xlabel(words(chart["x"]))
    ax.set_ylabel(words(chart["y"]))
    ax.set_title(words(chart["title"]), loc="left", fontsize=10)
    if named:
        ax.margins(0.12)
        _name_points(fig, ax, chart["series"])
    else:
        longest = max(len(series["name"]) for series in chart["series"])
        columns = max(1, min(4, 100 // (longest + 8)))
        below = {"loc": "outside lower center", "ncols": columns} if many or not joined else {}
        (fig if below else ax).legend(frameon=False, fontsize=8.5, **below)
    return fig


def _reach(series: Mapping[str, Any]) -> Any:
    """[2, points] of the intervals below and above, or None."""
    if not series["low"]:
        return None
    return np.abs(np.array([series["low"], series["high"]]) - np.asarray(series["y"]))


def _name_points(fig: Any, ax: Any, series: Sequence[Mapping[str, Any]]) -> None:
    """Each name at its point, at the nearest place that nothing else has, with a thin line to it."""
    fig.draw_without_rendering()  # the layout is known only then
    points = 72 / fig.dpi
    data = [(one["x"][0], one["y"][0]) for one in series]
    at = [ax.transData.transform(point) * points for point in data]
    inside = ax.get_window_extent().extents * points
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in at]
    for place in sorted(range(len(at)), key=lambda place: -at[place][1]):
        x, y = at[place]
        boxes = {(dx, dy): _box(x, y, dx, dy, series[place]["name"]) for dx, dy in _PLACES}
        free = [
            move
            for move, box in boxes.items()
            if not any(_overlap(box, other) for other in taken) and _within(box, inside)
        ]
        dx, dy = free[0] if free else _PLACES[0]
        taken.append(boxes[dx, dy])
        far = abs(dy) > NAME_SIZE or abs(dx) > 6
        text = ax.annotate(
            words(series[place]["name"]),
            xy=data[place],
            xytext=(dx, dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right",
            va="center",
            fontsize=NAME_SIZE,
            color=INK,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": INK, "shrinkB": 2} if far else None,
        )
        text.set_in_layout(False)


Box = tuple[float, float, float, float]  # left, bottom, right, top


def _box(x: float, y: float, dx: float, dy: float, name: str) -> Box:
    width, half = 0.62 * NAME_SIZE * len(name), 0.65 * NAME_SIZE
    left = x + dx if dx > 0 else x + dx - width
    return left, y + dy - half, left + width, y + dy + half


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _within(one: Box, other: Box) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


def _table(table: Mapping[str, Any]) -> list[str]:
    rows = [
        [shortened(cell, CELL) if isinstance(cell, str) else number(cell, 4) for cell in row]
        for row in table["rows"]
    ]
    lines = aligned([table["columns"], *rows])
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
