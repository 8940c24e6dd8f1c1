"""report.html of a comparison: one screen that tells the story, then tables, then everything else folded."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastpop import checks
from fastpop.report import compare_plots, compare_tables, tables
from fastpop.report.cells import Cell
from fastpop.report.compare_plots import OTHERS, Panel, look
from fastpop.report.compare_tables import LEARNED, Table
from fastpop.report.page import data_line, definitions, fold, heading, page, panels, rules_table, table
from fastpop.report.schema import Comparison, Item
from fastpop.text import html_text

LEADING = 3  # sentences that stand beside the pictures, and every caution
KEYS = ("title", "headline", "sentences", "readings", "arms", "rows", "summary", "rules")


def write_compare_report(path: str | Path, comparison: Comparison) -> Path:
    """Write report.html for a matched intervention (`schema.Comparison`); returns the path.

    Raises: ImportError without matplotlib; ValueError for a missing key; OSError as the system
    does. The file is written whole or not at all.
    """
    for key in KEYS:
        if key not in comparison:
            raise checks.wrong("comparison", f"a key {key!r}", text=", ".join(comparison))
    leading, others = _sentences(comparison["sentences"])
    parts = [
        heading(comparison["title"], comparison["headline"]),
        _list(leading),
        _story(comparison),
        data_line(comparison.get("data")),
        fold(f"{len(others)} more findings", _list(others)),
    ]
    parts += [
        _beside(comparison, made)
        for made in (
            compare_tables.fit,
            compare_tables.matched,
            compare_tables.shown_items,
            compare_tables.energies,
            compare_tables.further,
        )
    ]
    parts += [_tests(comparison), _exposure(comparison)]
    parts.append("<h2>Everything else</h2>")
    parts += _folded(comparison)
    return tables.write_text(path, page(comparison["title"], parts, wide=True))


def _sentences(sentences: Sequence[str]) -> tuple[list[str], list[str]]:
    """(those that matter most and every caution, the others), in their order."""
    cautions = [sentence for sentence in sentences if sentence.startswith("CAUTION")]
    plain = [sentence for sentence in sentences if sentence not in cautions]
    return cautions + plain[:LEADING], plain[LEADING:]


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="said">{items}</ul>' if items else ""


def _story(comparison: Comparison) -> str:
    """Three pictures: the frontier, which decides; how it came about; what the scores hold of popularity."""
    where = compare_tables.reading_words(comparison, comparison["readings"][0]).partition(" (")[0]
    first = f"first seed, {where}"
    scatter = panels(
        _drawn(compare_plots.scatter(comparison)),
        "scatter",
        f"Mean score of each item against log p ({first})",
        "A line of slope 1 holds log p once, a level one none of it. Colour: the learned part; grey: the "
        "score as it is served.",
    )
    frontier = panels(
        _drawn(compare_plots.frontier(comparison)),
        "frontier",
        "Accuracy against popularity of what is shown",
        f"{where[0].upper()}{where[1:]}. Each curve is one model over β, from popularity off (the end with a "
        "name) up; thin lines: single seeds. Up is more accurate, left is less popular. Square: standard as "
        "trained. Diamonds: no model. Dotted: levels at which frozen and post-hoc are compared.",
        most="38rem",
    )
    curves = panels(
        _drawn(compare_plots.epochs(comparison)),
        "epochs",
        "Training, epoch by epoch",
        f"One line a seed; dots: the arm's best epoch by {comparison.get('best_by', 'validation NLL')}; "
        "dotted: the equal epochs.",
        least="13rem",
    )
    return (
        f'<div class="story">{_key(comparison) if scatter or frontier or curves else ""}'
        f'<div class="two">{frontier}{curves}</div>{scatter}</div>'
    )


def _drawn(chosen: Sequence[Panel]) -> list[tuple[Any, str]]:
    return [(compare_plots.alone(panel), panel.alt) for panel in chosen]


def _key(comparison: Comparison) -> str:
    """Which line is which arm, above the pictures."""
    items = []
    for arm in compare_plots.key_arms(comparison):
        style = look(arm)
        dashes = "" if style["ls"] == "-" else " ".join(f"{2 * dash:g}" for dash in style["ls"][1])
        colour = "currentColor" if arm == OTHERS else style["color"]
        items.append(
            f'<li><svg width="34" height="8" aria-hidden="true"><line x1="0" x2="34" y1="4" y2="4" '
            f'stroke="{colour}" stroke-width="3" stroke-dasharray="{dashes}" '
            f'opacity="{style["alpha"]}"/></svg>{escape(arm)}</li>'
        )
    return f'<ul class="key">{"".join(items)}</ul>' if len(items) > 1 else ""


def _beside(
    comparison: Comparison, made: Callable[[Comparison, Sequence[str]], Table], heading: str = "h2"
) -> str:
    """One table a reading, side by side where there is room."""
    found = [made(comparison, [epochs]) for epochs in comparison["readings"]]
    found = [one for one in found if any(group.rows for group in one.groups)]
    if not found:
        return ""
    both = "".join(html_table(one, caption=False) for one in found)
    return (
        f'<{heading}>{escape(found[0].title)}</{heading}><p class="soft">{escape(found[0].note)}</p>'
        f'<div class="tables">{both}</div>'
    )


def html_table(found: Table, caption: bool = True) -> str:
    """Groups as rows of their own between the others; "" where there are no rows."""
    body: list[list[str] | str] = []
    for group in found.groups:
        if group.heading and group.rows:
            body.append(escape(group.heading))
        body += [[html_text(label), *map(_cell, cells)] for label, cells in group.rows]
    words = f"{found.title}. {found.note}" if caption else ""
    return table(words, [escape(head) for head in found.head], body) if body else ""


def _cell(cell: Cell) -> str:
    around = cell.spread or (f"{cell.least} … {cell.most}" if cell.least else "")
    return escape(cell.value) + (f"<small>{escape(around)}</small>" if around else "")


def _tests(comparison: Comparison) -> str:
    picture = panels(
        _drawn(compare_plots.paired_test(comparison)),
        "null",
        "Shared energy: what relabelled popularity gives, and what was found (first seed)",
        "The label null shuffles log p over items; norms that go with popularity fool it. The sign null "
        "keeps the sizes item by item. Neither shows that a difference is popularity and nothing else: for "
        "that see cos².",
        most="44rem",
    )
    numbers = _beside(comparison, compare_tables.p_values, "h3")
    return f"<h2>Tests</h2>{picture}{numbers}" if picture or numbers else ""


def _exposure(comparison: Comparison) -> str:
    picture = panels(
        _drawn(compare_plots.exposure(comparison)),
        "exposure",
        "Share of the slots of all lists by tenths of popularity (first seed)",
        "Tenths of the training events, items from the most popular to the least. Dashed: lists in "
        "proportion to popularity.",
        least="11rem",
        most="20rem",
    )
    examples = _examples(comparison)
    return f"<h2>Who is shown</h2>{picture}{examples}" if picture or examples else ""


def _examples(comparison: Comparison) -> str:
    """What a few users are shown by each arm."""
    found = []
    for example in comparison.get("examples", []):
        came = {item["id"] for item in example["targets"]}
        rows = [
            [escape(one["arm"]), f"{one['popularity_weight']:g}", _items(one["items"], came)]
            for one in example["lists"]
        ]
        events = example["num_events"]
        found.append(
            f"<p>A user of {events:,} event{'s' * (events != 1)}, at the end "
            f"{_items(example['history']) or 'none'}; then came {_items(example['targets'])}.</p>"
            + table("", ["arm", "β", "shown, best first; bold: what came"], rows, text=(2,))
        )
    return fold("What a few users are shown (first seed)", "".join(found)) if found else ""


def _items(items: Sequence[Item], bold: Collection[str] = ()) -> str:
    """Titles, or ids where there is none."""
    words = [
        f"<strong>{html_text(name)}</strong>" if item["id"] in bold else html_text(name)
        for item in items
        for name in [item.get("title", item["id"])]
    ]
    return " · ".join(words)


def _folded(comparison: Comparison) -> list[str]:
    readings = comparison["readings"]
    parts = [
        fold("Arms: how they are trained and served", _arms(comparison)),
        fold("Geometry of tables and scores", _beside(comparison, compare_tables.geometry, "h3")),
    ]
    for epochs in readings:
        where = compare_tables.reading_words(comparison, epochs)
        lists = html_table(compare_tables.served(comparison, epochs))
        parts.append(fold(f"Lists at every β, {where}", lists))
        parts.append(
            fold(
                f"Energies of the served scores, {where}",
                "".join(
                    html_table(compare_tables.energies(comparison, [epochs], beta))
                    for beta in (0.0, 0.5, 1.0)
                ),
            )
        )
        parts.append(
            fold(
                f"Differences from standard, {where}",
                "".join(
                    html_table(compare_tables.differences(comparison, weight, epochs))
                    for weight in (LEARNED, 1.0)
                ),
            )
        )
    parts.append(fold("Exposure in numbers", _exposure_table(comparison)))
    parts.append(fold("Rules: how these numbers came about", rules_table(comparison["rules"])))
    parts.append(
        fold(
            "What each number means",
            definitions(dict.fromkeys(key for entry in comparison["summary"] for key in entry["values"])),
        )
    )
    parts.append(
        f'<p class="soft">Every run by itself, {len(comparison["rows"]):,} rows: rows.csv and '
        "comparison.json beside this page.</p>"
    )
    parts.append(_made_by(comparison.get("made_by")))
    return parts


def _arms(comparison: Comparison) -> str:
    rows = [
        [escape(arm["name"]), escape(arm.get("trained_on", "-")), escape(arm.get("served_as", "-"))]
        for arm in comparison["arms"]
    ]
    return table("s: the learned part of the score.", ["arm", "trained on", "served at β"], rows, text=(1, 2))


def _exposure_table(comparison: Comparison) -> str:
    entries = comparison.get("exposure", [])
    rows = [
        [
            escape(entry["arm"]),
            f"{entry['popularity_weight']:g}",
            *(f"{100 * share:.1f}" for share in entry["share"]),
        ]
        for entry in entries
    ]
    head = ["arm", "β", "top tenth", *map(str, range(2, 10)), "last"]
    return table("Per cent of the slots, by tenths of popularity.", head, rows) if rows else ""


def _made_by(made_by: Mapping[str, Any] | None) -> str:
    """What is short in a line, what is nested folded."""
    if not made_by:
        return ""
    flat = {key: value for key, value in made_by.items() if not isinstance(value, Mapping)}
    words = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in flat.items())
    nested = json.dumps(tables.plain({key: made_by[key] for key in made_by if key not in flat}), indent=1)
    return f'<p class="soft">{escape(words)}</p>' + (
        fold("Configuration", f"<pre>{escape(nested)}</pre>") if len(flat) < len(made_by) else ""
    )
