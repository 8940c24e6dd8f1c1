"""One self-contained report.html: no network, no script, light and dark, fit for paper."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastpop import checks
from fastpop.diagnostics import p_words
from fastpop.report import plots, tables
from fastpop.report.glossary import term
from fastpop.report.page import figure, page, table
from fastpop.report.schema import NOT_CALIBRATED, Comparison, Summary


def write_compare_report(path: str | Path, comparison: Comparison) -> Path:
    """Write report.html for a matched intervention (`schema.Comparison`); returns the path.

    Raises: ImportError without matplotlib; ValueError for a missing key; OSError as the system
    does. The file is written whole or not at all.
    """
    for key in ("title", "headline", "sentences", "arms", "rows", "summary", "rules"):
        if key not in comparison:
            raise checks.wrong("comparison", f"a key {key!r}", "=" + ", ".join(comparison))
    summary, arms = comparison["summary"], [arm["name"] for arm in comparison["arms"]]
    parts = [_opening(comparison["title"], comparison["headline"], comparison["sentences"])]
    parts.append(_data(comparison.get("data")))
    parts.append(_arms(comparison))
    # The learned part of each arm, and post-hoc subtraction: standard served at 0.
    at_zero = None if any(e["arm"] == "post-hoc" for e in summary) else 0
    learned = [e for e in summary if "energy_total" in e["values"] and (
        e["popularity_weight"] is None
        or (e["arm"] == "standard" and e["popularity_weight"] == at_zero))]
    alone = [e for e in summary if e["popularity_weight"] is None]
    served = [e for e in summary if e["popularity_weight"] is not None]
    energy, quality = _summary_tables(served)
    parts += ["<h2>How much of the scores is popularity</h2>", _energy_figure(learned)]
    parts += _summary_tables(alone)[0]
    if energy:
        inside = "".join(energy)
        parts.append("<details><summary>The same for the scores as served, at each β</summary>"
                     f"{inside}</details>")
    parts += [f'<p class="soft">{escape(line)}</p>' for line in tables.chance_words(comparison)]
    parts.append(_scatter_figure(comparison.get("scatter", []), arms))
    parts.append(_null_figure(comparison.get("nulls", [])))
    parts += ["<h2>What it does to the recommendations</h2>", _tradeoff_figure(summary, arms)]
    parts += [*quality, _lorenz_figure(comparison.get("lorenz", []), arms)]
    parts.append(_differences(comparison))
    parts.append(_curve_figure(comparison.get("curves", []), arms, "<h2>Training</h2>"))
    parts.append(_rules(comparison["rules"]))
    parts.append(_glossary(k for e in summary for k in e["values"]))
    parts.append(_every_run(comparison))
    parts.append(_made_by(comparison.get("made_by")))
    return tables.write_text(path, page(comparison["title"], parts))


def _opening(title: str, headline: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return (f'<h1>{escape(title)}</h1>\n<p class="headline">{escape(headline)}</p>'
            + (f"\n<ul>{items}</ul>" if items else ""))


def _data(data: Any) -> str:
    if not data:
        return ""
    words = [escape(data["name"])] if "name" in data else []
    nouns = (("num_events", "events"), ("num_users", "users"), ("num_items", "items"),
             ("num_cases", "test cases"))
    words += [f"{int(data[key]):,} {noun}" for key, noun in nouns if key in data]
    note = f" {escape(data['note'])}" if data.get("note") else ""
    return f'<p class="soft">Data: {", ".join(words)}.{note}</p>'


def _arms(comparison: Comparison) -> str:
    if not any("trained_on" in arm or "served_as" in arm for arm in comparison["arms"]):
        return ""
    rows = [[escape(a["name"]), escape(a.get("trained_on", "-")), escape(a.get("served_as", "-"))]
            for a in comparison["arms"]]
    caption = "s: the learned part of the score. In the β column, s means the learned part alone."
    head = ["arm", "trained on", "served at β"]
    return "<h2>Arms</h2>" + table(caption, head, rows, text=(1, 2))


def _summary_tables(summary: Sequence[Summary]) -> tuple[list[str], list[str]]:
    """(tables of energies, tables of what is recommended)."""
    out: tuple[list[str], list[str]] = ([], [])
    for title, keys, entries in tables.blocks(summary):
        rows = []
        for entry in entries:
            cells = [tables.interval_cells(entry, key) for key, _ in keys]
            weight = tables.weight_words(entry["popularity_weight"])
            rows.append([
                escape(entry["arm"]), "<i>s</i>" if weight == "s" else weight,
                *(mean + (f"<small>{half}</small>" if half else "") for mean, half in cells),
            ])
        caption = f"{title}. {tables.MEANING}."
        of_energy = any(key.startswith(("energy", "fraction")) for key, _ in keys)
        out[not of_energy].append(table(caption, ["arm", "β", *(h for _, h in keys)], rows))
    return out


def _differences(comparison: Comparison) -> str:
    rows = []
    for d in comparison.get("differences", []):
        base_weight = d.get("baseline_popularity_weight", d["popularity_weight"])
        low, high = d["low"], d["high"]
        known = low is not None and high is not None and math.isfinite(high - low)
        interval = f"[{tables.number(low)}, {tables.number(high)}]" if known else "-"
        rows.append([
            escape(f"{d['arm']}, β {tables.weight_words(d['popularity_weight'])}"),
            escape(f"{d['baseline']}, β {tables.weight_words(base_weight)}"),
            escape(term(d["metric"])[0] or d["metric"]), tables.number(d["mean"]), interval,
            f"{d['n']:,} {escape(d['unit'])}",
        ])
    if not rows:
        return ""
    head = ["arm", "minus", "number", "difference", "95 % interval", "pairs"]
    return table("Paired differences: same seeds, same cases.", head, rows, text=(1, 2))


def _tradeoff_figure(summary: Sequence[Summary], arms: list[str]) -> str:
    have = {name: None for e in summary for name in e["values"]}
    accuracy, popularity = tables.resolve("ndcg@", have), tables.resolve("arp@", have)
    if accuracy not in have or popularity not in have:
        return ""
    return figure(
        plots.accuracy_against_popularity(summary, arms, accuracy, popularity), "tradeoff",
        "Accuracy against popularity of what is shown, one curve an arm over β",
        "The knob β moves an arm along its curve without retraining. Up is more accurate, left "
        "is less popular. Bars: 95 % intervals over seeds.")


def _scatter_figure(scatters: Sequence[Any], arms: Sequence[str], unit: str = "nats") -> str:
    if not scatters:
        return ""
    slopes = "; ".join(f"{s['arm']} {tables.number(float(s['slope']), 3)}" for s in scatters)
    return figure(
        plots.score_against_popularity(scatters, arms, unit), "scatter",
        f"Mean score of each item against log p, with the fitted line; slopes: {slopes}",
        "Mean score of each item over contexts against its log popularity. The line is the "
        "popularity direction: its slope is " + (
            "1 when the scores contain log p once, 0 when popularity is outside the scores."
            if unit == "nats" else "in units of these scores, which are not known to be logits."),
        narrow=len(scatters) == 1)


def _energy_figure(entries: Sequence[Summary], unit: str = "nats") -> str:
    if not entries:
        return ""
    words = "; ".join(
        f"{e['arm']}: total {tables.number(e['values']['energy_total']['mean'], 3)}, shared "
        f"{tables.interval_cells(e, 'energy_shared')[0]}" for e in entries)
    return figure(
        plots.energy_by_arm(entries, unit), "energy", f"Energies of the learned part in {unit}²: {words}",
        "Absolute energies of the learned part of the scores; in brackets the share of that arm's "
        "own total: a small share may only mean a large total. Post-hoc subtraction (standard at "
        "β=0) needs no retraining." if len(entries) > 1 else
        "Absolute energies of the scores; in brackets the share of the total.")


def _null_figure(nulls: Sequence[Any], unit: str = "nats") -> str:
    if not nulls:
        return ""
    words = "; ".join(f"{n['arm']} {n['statistic']} observed {tables.number(n['observed'], 3)}, "
                      f"{p_words(n['p_value'], len(n['samples']))}" for n in nulls)
    return figure(
        plots.permutation_null(nulls, unit), "null", f"Permutation null and observed value: {words}",
        "What log p would have got if it were attached to other items at random, and what it got. "
        "Where item norms follow popularity this null rejects too easily; see the rules below for "
        "the null used.")


def _lorenz_figure(curves: Sequence[Any], arms: Sequence[str]) -> str:
    if not curves:
        return ""
    words = "; ".join(c["arm"] + (f" Gini {c['gini']:.3f}" if "gini" in c else "") for c in curves)
    return figure(
        plots.lorenz_curves(curves, arms), "lorenz", f"Lorenz curves of exposure: {words}",
        "How the recommended slots are spread over the catalogue. The further below the diagonal, "
        "the fewer items get all the slots.")


def _curve_figure(curves: Sequence[Any], arms: Sequence[str], heading: str = "") -> str:
    if not curves:
        return ""
    return heading + figure(
        plots.training_curves(curves, arms), "training", "Training curves by epoch",
        "One line a seed. Losses of arms with and without log p in the score are comparable only "
        "where both are normalised over the same items.")


def _rules(rules: Any) -> str:
    lines: dict[str, Any] = {"calibration": NOT_CALIBRATED, **rules}
    lines["calibration"] = lines.pop("calibration")  # last
    rows = [[escape(name.replace("_", " ")), escape(str(text))] for name, text in lines.items()]
    return "<h2>Rules</h2>" + table("How these numbers came about.", ["what", "how"], rows,
                                     text=(1,))


def _glossary(keys: Any) -> str:
    stems = dict.fromkeys(key.split("@")[0] for key in keys)
    known = [(term(stem)) for stem in stems]
    items = "".join(f"<dt>{escape(n)}</dt><dd>{escape(t)}</dd>" for n, t in known if n)
    return f"<h2>What each number means</h2>\n<dl>{items}</dl>" if items else ""


def _every_run(comparison: Comparison) -> str:
    rows = comparison["rows"]
    names = list(dict.fromkeys(n for row in rows for n in row["values"]))
    if not names:
        return ""
    body = [
        [escape(row["arm"]), tables.weight_words(row["popularity_weight"]), str(row["seed"]),
         *(escape(tables.number(row["values"].get(n))) for n in names)]
        for row in rows
    ]
    runs = table("", ["arm", "β", "seed", *map(escape, names)], body)
    return f"<h2>Every run</h2>\n<details><summary>{len(rows)} rows</summary>{runs}</details>"


def _made_by(made_by: Mapping[str, Any] | None) -> str:
    if not made_by:
        return ""
    words = "; ".join(f"{k.replace('_', ' ')}: {v}" for k, v in made_by.items())
    return f'<p class="soft">{escape(words)}</p>'
