"""Text tables of at most 80 columns, and files written whole or not at all."""

import csv
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpop import checks, files
from fastpop.data.paths import local_path
from fastpop.report.schema import NOT_CALIBRATED, Comparison, Summary

WIDTH = 80
MEANING = "Mean over seeds, ± half of the 95 % interval; p: median over seeds"

# (title, [(key, heading)]); a key that ends in @ takes the smallest k that is there.
BLOCKS: list[tuple[str, list[tuple[str, str]]]] = [
    ("Energy of the scores, nats²", [
        ("energy_total", "total"), ("energy_direction", "along log p"),
        ("energy_shared", "shared"), ("energy_heterogeneous", "heterogen."),
    ]),
    ("Popularity in the scores", [
        ("fraction_direction", "along p %"), ("fraction_shared", "shared %"),
        ("mean_slope", "slope"), ("amplitude_ratio", "amplitude"),
        ("p_value_direction", "p along"), ("p_value_shared", "p shared"),
    ]),
    ("Popularity in the scores: other null, other half of the events", [
        ("p_value_sign_direction", "p along, signs"), ("p_value_sign_shared", "p shared, signs"),
        ("energy_shared_b", "shared, B"), ("fraction_shared_b", "shared %, B"),
        ("mean_slope_b", "slope, B"), ("p_value_shared_b", "p shared, B"),
    ]),
    ("Accuracy", [
        ("nll", "NLL"), ("hr@", "HR"), ("recall@", "recall"), ("ndcg@", "NDCG"), ("mrr@", "MRR"),
    ]),
    ("Head, middle, tail", [
        ("recall_head@", "head recall"), ("recall_mid@", "mid recall"),
        ("recall_tail@", "tail recall"), ("ndcg_repeat@", "NDCG repeat"),
        ("ndcg_new@", "NDCG new"),
    ]),
    ("What is shown", [
        ("coverage@", "coverage"), ("gini@", "Gini"), ("arp@", "ARP"), ("aplt@", "APLT"),
        ("novelty@", "novelty"),
    ]),
]
# What a terminal shows: (title, learned part or served scores, columns). The rest is in the page.
TEXT_BLOCKS: list[tuple[str, bool, list[tuple[str, str]]]] = [
    ("The learned part of the scores: energy, nats²", True, [
        ("energy_total", "total"), ("energy_direction", "along log p"),
        ("energy_shared", "shared"), ("energy_shared_b", "shared, B"),
    ]),
    ("The learned part of the scores: how much is popularity", True, [
        ("fraction_direction", "along p %"), ("fraction_shared", "shared %"),
        ("mean_slope", "slope"), ("amplitude_ratio", "amplitude"),
        ("p_value_shared", "p shuffled"), ("p_value_sign_shared", "p signs"),
    ]),
    ("The served scores: popularity and accuracy", False, [
        ("energy_shared", "shared"), ("fraction_shared", "shared %"), ("nll", "NLL"),
        ("hr@", "HR"), ("ndcg@", "NDCG"),
    ]),
    ("The served scores: who and what is reached", False, [
        ("recall_head@", "head rec."), ("recall_mid@", "mid rec."), ("recall_tail@", "tail rec."),
        ("coverage@", "coverage"), ("gini@", "Gini"),
    ]),
]
_PERCENT = ("fraction_direction", "fraction_shared", "fraction_shared_b")


def resolve(key: str, values: Mapping[str, Any]) -> str:
    """"ndcg@" -> "ndcg@10", the smallest k there; other keys as they are."""
    if not key.endswith("@"):
        return key
    ks = [int(name[len(key):]) for name in values if name.startswith(key)]
    return f"{key}{min(ks)}" if ks else key


def number(value: float | None, digits: int = 4) -> str:
    """A number in few characters: 0.0512, 12.34, 1.2e-5; "-" for a missing one."""
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
    """How a row was looked at: "s" is the learned part alone, else beta."""
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
    if key.startswith("p_value") or high - low <= 1e-12 * abs(entry["mean"]):
        return mean, ""
    return mean, "±" + number((high - low) / 2 * factor, 2)


def blocks(
    summary: Sequence[Summary],
) -> list[tuple[str, list[tuple[str, str]], list[Summary]]]:
    """(title, [(key with its k, heading)], entries that have one) of each block with numbers."""
    return _filled(summary, BLOCKS)


def text_blocks(
    summary: Sequence[Summary],
) -> list[tuple[str, list[tuple[str, str]], list[Summary]]]:
    """The blocks of a terminal: the learned part and the served scores apart."""
    out = []
    for title, learned, columns in TEXT_BLOCKS:
        entries = [e for e in summary if (e["popularity_weight"] is None) == learned]
        out += _filled(entries, [(title, columns)])
    return out


def _filled(
    summary: Sequence[Summary], layout: list[tuple[str, list[tuple[str, str]]]]
) -> list[tuple[str, list[tuple[str, str]], list[Summary]]]:
    have = {name: None for entry in summary for name in entry["values"]}
    out = []
    for title, columns in layout:
        keys = []
        for key, heading in columns:
            full = resolve(key, have)
            if full in have:
                keys.append((full, heading + (full[full.index("@"):] if "@" in full else "")))
        entries = [e for e in summary if any(key in e["values"] for key, _ in keys)]
        if entries:
            out.append((title, keys, entries))
    return out


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Columns two spaces apart, the first `left` aligned left, the rest right; <= 80 columns.

    Raises: ValueError when the cells do not fit, naming the width needed.
    """
    body = [list(header), *map(list, rows)]
    if len({len(row) for row in body}) != 1:
        raise checks.wrong("rows", f"{len(header)} cells in every row", "=other lengths")
    widths = _widths(body)
    needed = sum(widths) + 2 * (len(widths) - 1)
    if needed > WIDTH:
        raise checks.wrong("rows", f"cells that fit {WIDTH} columns", f"={needed} columns")
    lines = []
    for row in body:
        cells = [
            cell.ljust(width) if c < left else cell.rjust(width)
            for c, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * needed)
    return "\n".join(lines)


def comparison_text(comparison: Comparison) -> str:
    """The blocks that a terminal shows, the sentences above and the rules below."""
    parts = [comparison["title"], textwrap.fill(comparison["headline"], WIDTH)]
    parts += [
        textwrap.fill(sentence, WIDTH, initial_indent="* ", subsequent_indent="  ")
        for sentence in comparison["sentences"]
    ]
    summary = comparison["summary"]
    for title, keys, entries in text_blocks(summary):
        head = textwrap.fill(f"{title}. {MEANING}.", WIDTH)
        parts.append(head + "\n" + "\n\n".join(_narrow(keys, entries)))
    parts.append("beta s: the learned part alone; a number: the score served at that weight of\n"
                 "log p (standard at 0 is post-hoc subtraction). B: along log p of the other half.")
    parts += [textwrap.fill(line, WIDTH) for line in chance_words(comparison)]
    rules = {**comparison["rules"]}
    rules.setdefault("calibration", NOT_CALIBRATED)
    parts.append("\n".join(
        textwrap.fill(f"{name.replace('_', ' ')}: {text}", WIDTH, subsequent_indent="    ")
        for name, text in rules.items()
    ))
    return "\n\n".join(parts) + "\n"


def chance_words(comparison: Comparison) -> list[str]:
    """The share of energy that a direction unrelated to the scores has, where V is known."""
    num_items = comparison.get("data", {}).get("num_items", 0)
    if num_items < 2:
        return []
    share = number(100 / (num_items - 1), 3)
    return [f"Chance level of the share along log p: 1/(V - 1) = {share} % with V = "
            f"{num_items:,} items."]


def rows_csv(comparison: Comparison) -> str:
    """One line a row of the comparison; the columns are all values that any row has."""
    names = list(dict.fromkeys(n for row in comparison["rows"] for n in row["values"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "popularity_weight", "seed", *names])
    for row in comparison["rows"]:
        weight = weight_words(row["popularity_weight"])
        cells = [row["values"].get(name) for name in names]
        writer.writerow([row["arm"], weight, row["seed"],
                         *("" if c is None else repr(float(c)) for c in cells)])
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


def _narrow(keys: list[tuple[str, str]], entries: Sequence[Summary]) -> list[str]:
    """One table, or as many as it takes for each to fit the width."""
    rows = []
    for entry in entries:
        cells = [interval_cells(entry, key) for key, _ in keys]
        arm = _short(entry["arm"], 14)
        rows.append([arm, weight_words(entry["popularity_weight"]), *(c[0] for c in cells)])
        if any(c[1] for c in cells):
            rows.append(["", "", *(c[1] for c in cells)])
    header = ["arm", "beta", *(heading for _, heading in keys)]
    if len(keys) > 1 and sum(_widths([header, *rows])) + 2 * (len(header) - 1) > WIDTH:
        half = -(-len(keys) // 2)
        return [*_narrow(keys[:half], entries), *_narrow(keys[half:], entries)]
    return [text_table(header, rows)]


def _widths(body: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[c]) for row in body) for c in range(len(body[0]))]


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
