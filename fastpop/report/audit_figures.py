"""The parts of an audit's page: each takes plain data and returns HTML, nothing where there is no data."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fastpop.diagnostics import p_words
from fastpop.report import plots, tables
from fastpop.report.page import definitions, figure, heading, rules_table
from fastpop.report.schema import Summary


def opening(title: str, headline: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return heading(title, headline) + (f"\n<ul>{items}</ul>" if items else "")


def scatter_figure(scatters: Sequence[Any], arms: Sequence[str], unit: str = "nats") -> str:
    if not scatters:
        return ""
    slopes = "; ".join(f"{s['arm']} {tables.number(float(s['slope']), 3)}" for s in scatters)
    return figure(
        plots.score_against_popularity(scatters, arms, unit),
        "scatter",
        f"Mean score of each item against log p, with the fitted line; slopes: {slopes}",
        "Mean score of each item over contexts against its log popularity. The line is the "
        "popularity direction: its slope is "
        + (
            "1 when the scores contain log p once, 0 when popularity is outside the scores."
            if unit == "nats"
            else "in units of these scores, which are not known to be logits."
        ),
        narrow=len(scatters) == 1,
    )


def energy_figure(entries: Sequence[Summary], unit: str = "nats") -> str:
    if not entries:
        return ""
    words = "; ".join(
        f"{e['arm']}: total {tables.number(e['values']['energy_total']['mean'], 3)}, shared "
        f"{tables.interval_cells(e, 'energy_shared')[0]}"
        for e in entries
    )
    return figure(
        plots.energy_by_arm(entries, unit),
        "energy",
        f"Energies of the learned part in {unit}²: {words}",
        "Absolute energies of the learned part of the scores; in brackets the share of that arm's "
        "own total: a small share may only mean a large total. Post-hoc subtraction (standard at "
        "β=0) needs no retraining."
        if len(entries) > 1
        else "Absolute energies of the scores; in brackets the share of the total.",
    )


def null_figure(nulls: Sequence[Any], unit: str = "nats") -> str:
    if not nulls:
        return ""
    words = "; ".join(
        f"{n['arm']} {n['statistic']} observed {tables.number(n['observed'], 3)}, "
        f"{p_words(n['p_value'], len(n['samples']))}"
        for n in nulls
    )
    return figure(
        plots.permutation_null(nulls, unit),
        "null",
        f"Permutation null and observed value: {words}",
        "What log p would have got if it were attached to other items at random, and what it got. "
        "Where item norms follow popularity this null rejects too easily; see the rules below for "
        "the null used.",
    )


def lorenz_figure(curves: Sequence[Any], arms: Sequence[str]) -> str:
    if not curves:
        return ""
    words = "; ".join(c["arm"] + (f" Gini {c['gini']:.3f}" if "gini" in c else "") for c in curves)
    return figure(
        plots.lorenz_curves(curves, arms),
        "lorenz",
        f"Lorenz curves of exposure: {words}",
        "How the recommended slots are spread over the catalogue. The further below the diagonal, "
        "the fewer items get all the slots.",
    )


def curve_figure(curves: Sequence[Any], arms: Sequence[str], heading: str = "") -> str:
    if not curves:
        return ""
    return heading + figure(
        plots.training_curves(curves, arms),
        "training",
        "Training curves by epoch",
        "One line a seed. Losses of arms with and without log p in the score are comparable only "
        "where both are normalised over the same items.",
    )


def rules(rules: Any) -> str:
    return "<h2>Rules</h2>" + rules_table(rules)


def glossary(keys: Any) -> str:
    terms = definitions(keys)
    return f"<h2>What each number means</h2>\n{terms}" if terms else ""


def made_by(made_by: Mapping[str, Any] | None) -> str:
    if not made_by:
        return ""
    words = "; ".join(f"{k.replace('_', ' ')}: {v}" for k, v in made_by.items())
    return f'<p class="soft">{escape(words)}</p>'
