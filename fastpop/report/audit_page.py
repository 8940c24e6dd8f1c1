"""The page of one model's audit, with words that have rules."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastpop import checks
from fastpop.diagnostics import p_short, p_words
from fastpop.report import audit_figures, tables
from fastpop.report.glossary import term
from fastpop.report.page import data_line, page, table
from fastpop.report.schema import NOT_CALIBRATED, Curve, Data, Interval, Lorenz, Rules
from fastpop.text import html_text


def write_audit_report(
    path: str | Path,
    audit: Mapping[str, Any],
    *,
    title: str = "Popularity audit",
    headline: str | None = None,
    sentences: Sequence[str] = (),
    rules: Rules | None = None,
    data: Data | None = None,
    metrics: Mapping[str, float] | None = None,
    lorenz: Sequence[Lorenz] = (),
    curves: Sequence[Curve] = (),
    items: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    name: str = "model",
    made_by: Mapping[str, Any] | None = None,
) -> Path:
    """Write report.html for one model; returns the path.

    Args:
        audit: `Audit.to_dict(samples=True)`; without samples the two pictures of it and the text
            table are left out.
        title, headline, sentences: words; a headline is made from the audit when none is given.
        rules, data, lorenz, curves: as `schema` says. made_by: version, seed, ...: a line at the end.
        metrics: `Evaluation.metrics`, shown as a table.
        items: `Audit.extremes()`, each item with a "name" for people, say its id and title.
        name: what to call the model in pictures.
    Raises: as `write_compare_report`.
    """
    for key in ("energy_total", "energy_direction", "energy_shared"):
        if key not in audit:
            raise checks.wrong("audit", f"a key {key!r}", text=", ".join(audit))
    stated: dict[str, Any] = {
        **({"items": audit["items"]} if audit.get("items") else {}),
        "context_weighting": audit.get("weighting", "not stated"),
        **(
            {}
            if audit.get("logits")
            else {"scores": "not known to be logits: energies are squared scores, and the slope has no unit"}
        ),
        "null": _null_words(audit),
        "calibration": audit.get("calibration", NOT_CALIBRATED),
        **(rules or {}),
    }
    names = {
        key: key
        for key in (
            "energy_total",
            "energy_direction",
            "energy_shared",
            "energy_heterogeneous",
            "energy_off_direction",
            "fraction_direction",
            "fraction_shared",
            "chance_level",
            "p_value_direction",
            "p_value_shared",
            "correlation",
        )
    }
    if audit.get("no_direction"):
        names = {key: of for key, of in names.items() if not key.startswith("p_value")}
    logits = bool(audit.get("logits"))
    names |= {"slope" if logits else "slope_no_unit": "slope_mean", "slope_std": "slope_std"}
    values: dict[str, Interval] = {
        key: {"mean": audit[of]} for key, of in names.items() if audit.get(of) is not None
    }
    if audit.get("top_lists"):
        values[f"arp@{audit['top_lists']['k']}"] = {"mean": audit["top_lists"]["mean_count"]}
    entry: Any = {"arm": name, "popularity_weight": None, "values": values}
    sentences = [*(text[0].upper() + text[1:] + "." for text in audit_cautions(audit)), *sentences]
    parts = [audit_figures.opening(title, headline or audit_headline(audit), sentences), data_line(data)]
    parts.append("<h2>Numbers</h2>")
    parts.append(_value_table("The audit", values, audit))
    parts.append(_audit_shares(audit))
    parts.append(_measured(audit))
    if metrics:
        found = {k: {"mean": v} for k, v in metrics.items()}
        parts.append(_value_table("Evaluation", found, {}))
    parts.append(_items(items or {}))
    parts.append("<h2>Pictures</h2>")
    unit = "nats" if logits else "score"
    if "mean_score" in audit and "log_prior" in audit:
        parts.append(audit_figures.scatter_figure([audit_scatter(audit, name)], [name], unit))
    parts.append(audit_figures.energy_figure([entry], unit))
    nulls = [
        {
            "arm": name,
            **{k: test[k] for k in ("statistic", "observed", "p_value", "kind")},
            "samples": test["samples"],
        }
        for test in (audit.get("test_direction"), audit.get("test_shared"))
        if test and test.get("samples") and not audit.get("no_direction")
    ]
    parts.append(audit_figures.null_figure(nulls, unit))
    parts.append(audit_figures.lorenz_figure(lorenz, [name]))
    parts.append(audit_figures.curve_figure(curves, [name]))
    if audit.get("table"):
        parts.append(
            "<h2>The whole audit</h2>\n<p>With smoothing and its sensitivity, centring, "
            "exact null moments and geometry, as a terminal shows it.</p>\n"
            f"<pre>{escape(audit['table'])}</pre>"
        )
    parts.append(audit_figures.rules(stated))
    terms = audit_figures.glossary([*values, *(metrics or {})])
    parts.append(terms if logits else terms.replace("nats²", "squared scores"))
    parts.append(audit_figures.made_by(made_by))
    return tables.write_text(path, page(title, parts))


def audit_headline(audit: Mapping[str, Any]) -> str:
    """The audit in one or two sentences, without more than it shows.

    Rule: energies are associated with log p where the whole Monte-Carlo interval of p is at most .05,
    not shown to be where it is above. Nothing is said of p where log p has no direction.
    """
    total, direction, shared = (float(audit[f"energy_{k}"]) for k in ("total", "direction", "shared"))
    if audit.get("no_direction"):
        text = str(audit["no_direction"])
        return f"{text[0].upper()}{text[1:]}."
    share = f"{100 * direction / total:.3g} %" if total > 0 else "None"
    text = f"{share} of the energy of the scores lies along log popularity"
    if audit.get("chance_level"):
        text += f" (by chance {100 * audit['chance_level']:.2g} %)"
    if audit.get("correlation") is not None:
        text += f"; the mean score correlates {tables.number(audit['correlation'], 3)} with it"
    unit = " nats²" if audit.get("logits") else ""
    text += f". The part that all contexts share is {tables.number(shared, 3)}{unit}"
    return text + _association(audit) + "." + _lists_sentence(audit)


def _association(audit: Mapping[str, Any]) -> str:
    test = audit.get("test_shared") or {}
    p_value = audit.get("p_value_shared")
    if p_value is None:
        return ""
    low, high = test.get("p_value_interval") or (p_value, p_value)
    word = (
        "associated with log p beyond relabelling"
        if high <= 0.05
        else "not shown to be associated with log p beyond relabelling"
        if low > 0.05
        else "at the edge of what so many draws can tell from relabelling"
    )
    p = p_words(p_value, int(audit.get("num_permutations") or 0), test.get("p_value_interval"))
    return f", {word} ({p})"


def _lists_sentence(audit: Mapping[str, Any]) -> str:
    lists = audit.get("top_lists")
    if not lists:
        return ""
    return (
        f" The {lists['k']} best items of a context have {tables.number(lists['mean_count'])} events on "
        f"average, where the items audited have {tables.number(lists['catalogue_mean'])}."
    )


def audit_cautions(audit: Mapping[str, Any]) -> list[str]:
    """What to know before reading the numbers; a missing direction is the headline already."""
    return [audit["unseen"]] if audit.get("unseen") else []


def _audit_shares(audit: Mapping[str, Any]) -> str:
    """Shares under the other centring and over items of other counts."""
    under_p, shares = audit.get("energy_prior_centred"), audit.get("shares_by_count") or []
    if audit.get("no_direction") or not under_p:
        return ""
    cells = [
        [
            "centred under p",
            f"{audit['num_items']:,}",
            *(
                tables.number(under_p.get(k))
                for k in ("fraction_direction", "chance_level", "fraction_shared")
            ),
            "-",
        ]
    ]
    for one in shares:
        least = f"at least {one['min_count']:g}" if one["min_count"] else "any count"
        cells.append(
            [
                f"events: {least}",
                f"{one['num_items']:,}",
                tables.number(one["fraction_direction"]),
                tables.number(1 / (one["num_items"] - 1)),
                tables.number(one["fraction_shared"]),
                tables.number(one["correlation"]),
            ]
        )
    head = ["items", "number", "share along log p", "by chance", "share shared", "correlation"]
    return table(
        "The same over other items, and under the other centring.",
        head,
        [[escape(cell) for cell in row] for row in cells],
    )


def _measured(audit: Mapping[str, Any]) -> str:
    """What diagnostics that were asked for found; they bring their own words."""
    rows = [
        [
            escape(f"{one['label']}, {key}" if key else one["label"]),
            tables.number(value),
            escape(one["definition"]),
        ]
        for one in audit.get("measured", ())
        for key, value in one["values"].items()
    ]
    return table("Also measured.", ["number", "value", "what it is"], rows, text=(2,)) if rows else ""


def _items(items: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Items by name: of the largest mean score, and the furthest off the line."""
    captions = {
        "largest": "Items of the largest mean score.",
        "above": "Items furthest above the line: liked more than their log p says.",
        "below": "Items furthest below the line: liked less than their log p says.",
    }
    head = ["item", "log p", "mean score", "off the line"]
    return "".join(
        table(
            captions[kind],
            head,
            [
                [
                    html_text(one["name"]),
                    *(tables.number(one[key]) for key in ("log_prior", "mean_score", "off_line")),
                ]
                for one in rows
            ],
        )
        for kind, rows in items.items()
    )


def audit_scatter(audit: Mapping[str, Any], name: str) -> Any:
    """A `schema.Scatter` from an audit with samples; the line has the audited slope."""
    return {
        "arm": name,
        "log_prior": audit["log_prior"],
        "mean_score": audit["mean_score"],
        "slope": float(audit["slope_mean"]),
    }


def _value_table(caption: str, values: Mapping[str, Any], audit: Mapping[str, Any]) -> str:
    rows = []
    for key, value in values.items():
        note = ""
        test = audit.get("test_" + key.removeprefix("p_value_")) if "p_value" in key else None
        shown = tables.number(value["mean"])
        if test:
            draws = int(audit.get("num_permutations") or 0)
            shown = p_short(value["mean"], draws)
            low, high = test.get("p_value_interval") or (None, None)
            note = "" if low is None else f"Monte-Carlo interval [{low:.2g}, {high:.2g}]"
        rows.append([escape(term(key)[0] or key.replace("_", " ")), escape(shown), escape(note)])
    head = ["number", "value", ""]
    if not any(row[2] for row in rows):
        rows, head = [row[:2] for row in rows], head[:2]
    return table(caption, head, rows, text=(2,))


def _null_words(audit: Mapping[str, Any]) -> str:
    if not audit.get("num_permutations"):
        return "no permutations drawn"
    name, words = audit.get("null", "label"), audit.get("null_words")
    return (f"{name}: {words}, " if words else f"{name}, ") + (
        f"{audit['num_permutations']:,} draws, seed {audit.get('seed', '-')}"
    )
