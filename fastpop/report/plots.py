"""The pictures of a model's own report. Each takes plain data of `schema` and returns a matplotlib Figure.

Arms keep colour, marker and line style in the order of the arms (Okabe & Ito's colour-blind safe palette).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpop.diagnostics import p_short
from fastpop.report.drawing import INK, figure_of, styled_axes, words
from fastpop.report.schema import Curve, Lorenz, Null, Scatter, Summary
from fastpop.report.tables import number, weight_words

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
_MANY_POINTS = 4000


def score_against_popularity(
    scatters: Sequence[Scatter], arms: Sequence[str] = (), unit: str = "nats"
) -> Any:
    """Mean score of every item against log p, one panel an arm on common axes, with the fit.

    Scores have no zero of their own: each arm's are centred over its items.
    """
    from matplotlib import patheffects

    points = [(np.asarray(s["log_prior"], float), np.asarray(s["mean_score"], float)) for s in scatters]
    points = [(x, y - y.mean()) for x, y in points]
    extent = [
        f(v)
        for axis in zip(*points)
        for f, v in ((np.min, np.concatenate(axis)), (np.max, np.concatenate(axis)))
    ]
    order = _order(scatters, arms)
    columns = min(len(scatters), 3)
    lines = -(-len(scatters) // columns)
    fig = figure_of(8.4 if columns > 1 else 5.8, 0.4 + (2.5 if columns > 1 else 3.2) * lines)
    axes = styled_axes(fig, lines, columns, sharex=True, sharey=True)
    for ax in axes.flat[len(scatters) :]:
        ax.set_visible(False)
    for place, (ax, scatter, (x, y)) in enumerate(zip(axes.flat, scatters, points)):
        colour = COLOURS[order.index(scatter["arm"]) % len(COLOURS)]
        if len(x) > _MANY_POINTS:
            ax.hexbin(
                x,
                y,
                gridsize=(48, 26),
                extent=extent,
                bins="log",
                mincnt=1,
                cmap=_tint(colour),
                linewidths=0,
                rasterized=True,
            )
        else:
            ax.scatter(x, y, s=7, color=colour, alpha=0.35, linewidths=0, rasterized=True)
        ends = np.array([x.min(), x.max()])
        halo = [patheffects.Stroke(linewidth=4.5, foreground="white"), patheffects.Normal()]
        ax.plot(ends, scatter["slope"] * (ends - x.mean()), color="black", lw=2, path_effects=halo)
        seed = f" (seed {scatter['seed']})" if "seed" in scatter else ""
        _title(ax, f"{scatter['arm']}: slope {number(scatter['slope'], 3)}{seed}")
        if place + columns >= len(scatters):
            ax.set_xlabel("log p of the item, nats")
            ax.tick_params(labelbottom=True)
        if place % columns == 0:
            ax.set_ylabel("mean score, centred" + (f", {unit}" if unit != "score" else ""))
    return fig


def energy_by_arm(summary: Sequence[Summary], unit: str = "nats") -> Any:
    """Absolute energies on a log axis, the share of the total written beside each bar."""
    kinds = [
        ("energy_total", "total", ""),
        ("energy_direction", "along log p", "//"),
        ("energy_shared", "shared by all contexts", "xx"),
    ]
    fig = figure_of(8.4, 0.9 + 0.78 * len(summary))
    ax = styled_axes(fig)[0, 0]
    present = [e["values"][k]["mean"] for e in summary for k, _, _ in kinds if k in e["values"]]
    positive = [v for v in present if v is not None and v > 0]
    floor = 10 ** np.floor(np.log10(min(positive)) - 0.4) if positive else 0.1
    top = max(positive, default=1.0)
    for place, entry in enumerate(summary):
        whole = entry["values"].get("energy_total")
        total = None if whole is None else whole["mean"]
        for n, (key, label, hatch) in enumerate(kinds):
            value = entry["values"].get(key)
            if value is None or value["mean"] is None:
                continue
            y, mean = place + (n - 1) * 0.27, value["mean"]
            ax.barh(
                y,
                max(mean, floor) - floor,
                left=floor,
                height=0.25,
                color=COLOURS[n],
                hatch=hatch,
                edgecolor="white",
                lw=0,
                label=label if place == 0 else None,
            )
            low, high = value.get("low"), value.get("high")
            edge = mean
            if low is not None and high is not None and np.isfinite([low, high]).all():
                ax.plot([max(low, floor), max(high, floor)], [y, y], color=INK, lw=1.2)
                edge = max(mean, high)
            share = ""
            if n and total:
                share = f"  ({number(100 * mean / total, 3)} % of total)"
            ax.annotate(
                number(mean, 3) + share,
                (max(edge, floor), y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
    ax.set_xscale("log")
    # Room on the right for what is written beside the longest bar.
    ax.set_xlim(floor, top * (top / floor) ** 0.3)
    ax.set_yticks(range(len(summary)), [_look(e) for e in summary])
    ax.set_ylim(len(summary) - 0.45, -0.55)
    ax.set_xlabel(f"energy, {unit}² (log scale)")
    ax.grid(axis="y", visible=False)
    _legend_above(fig, ax, 3)
    return fig


def permutation_null(nulls: Sequence[Null], unit: str = "nats") -> Any:
    """The permuted statistic as a histogram, the observed one as a line; log axis where it is far
    outside."""
    fig = figure_of(8.4, 0.3 + 2.0 * len(nulls))
    axes = styled_axes(fig, len(nulls))[:, 0]
    for ax, null in zip(axes, nulls):
        samples, observed = np.asarray(null["samples"], float), float(null["observed"])
        low, high = samples.min(), samples.max()
        far = observed > high + 2 * (high - low) or observed < low - 2 * (high - low)
        if far and low > 0 and observed > 0:
            # Squares of numbers near zero reach down many decades.
            start = np.quantile(samples, 0.01)
            ax.set_xscale("log")
            edges = np.geomspace(start, max(high, start * 1.01), 41)
            ax.set_xlim(start / 1.5, observed * 4)
        else:
            edges = np.linspace(low, high, 41) if high > low else np.array([low - 0.5, low + 0.5])
            reach = max(high, observed) - min(low, observed) or 1.0
            ax.set_xlim(min(low, observed) - 0.04 * reach, max(high, observed) + 0.22 * reach)
        ax.hist(samples, edges, color=COLOURS[5], label=f"log p permuted, {len(samples):,} draws")
        ax.axvline(observed, color=COLOURS[1], lw=2.2, label="observed")
        ax.annotate(
            f"observed {number(observed, 3)}\np = {p_short(null['p_value'], len(samples))}",
            (observed, 0.95),
            xycoords=("data", "axes fraction"),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8.5,
            color=INK,
        )
        statistic = null["statistic"].replace("_", " ")
        kind = f", {null['kind']} null" if "kind" in null else ""
        _title(ax, f"{null['arm']}: {statistic}{kind}")
        ax.set_ylabel("draws")
        log_scale = f"{unit}² (log scale; the lowest 1 % of the draws is not shown)"
        ax.set_xlabel(log_scale if ax.get_xscale() == "log" else f"{unit}²")
    _legend_above(fig, axes[0], 2)
    return fig


def lorenz_curves(curves: Sequence[Lorenz], arms: Sequence[str] = ()) -> Any:
    """Share of the slots that go to the least shown items; the diagonal is equality."""
    order = _order(curves, arms)
    fig = figure_of(8.4, 4.6)
    ax = styled_axes(fig)[0, 0]
    ax.plot([0, 1], [0, 1], color=INK, lw=1, ls=":")
    ax.annotate("every item equally", (0.40, 0.43), rotation=40, fontsize=8, color=INK, ha="center")
    met: dict[str, int] = {}
    for curve in curves:
        arm = curve["arm"]
        label = words(arm)
        if curve["popularity_weight"] is not None:
            label += f", β={curve['popularity_weight']:g}"
        if "gini" in curve:
            label += f" (Gini {curve['gini']:.3f})"
        nth = met[arm] = met.get(arm, -1) + 1  # colour says the arm, dashes its weights in turn
        ax.plot(
            curve["items"],
            curve["exposure"],
            lw=1.8,
            label=label,
            color=COLOURS[order.index(arm) % len(COLOURS)],
            ls=DASHES[nth % len(DASHES)],
        )
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="share of the catalogue, least shown first",
        ylabel="share of recommended slots",
        aspect="equal",
    )
    fig.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=INK, handlelength=3)
    return fig


def training_curves(curves: Sequence[Curve], arms: Sequence[str] = ()) -> Any:
    """Training loss, and the validation metric where there is one; one thin line a seed."""
    order = _order(curves, arms)
    valid = [c for c in curves if c.get("valid") is not None]
    fig = figure_of(8.4, 3.4)
    axes = styled_axes(fig, 1, 2 if valid else 1)[0]
    shown: set[str] = set()
    for curve in curves:
        n = order.index(curve["arm"])
        style = {
            "color": COLOURS[n % len(COLOURS)],
            "ls": DASHES[n % len(DASHES)],
            "lw": 1.2,
            "alpha": 0.85,
            "marker": MARKERS[n % len(MARKERS)],
            "ms": 2.5,
        }
        label = None if curve["arm"] in shown else words(curve["arm"])
        shown.add(curve["arm"])
        axes[0].plot(curve["epoch"], curve["loss"], label=label, **style)
        if curve.get("valid") is not None:
            y = np.array([np.nan if v is None else v for v in curve["valid"]], float)
            there = np.isfinite(y)
            axes[1].plot(np.asarray(curve["epoch"])[there], y[there], **style)
    axes[0].set(xlabel="epoch", ylabel="training loss, nats")
    if valid:
        axes[1].set(xlabel="epoch", ylabel=valid[0].get("valid_name", "validation"))
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    _legend_above(fig, axes[0], 6)
    return fig


def _title(ax: Any, text: str) -> None:
    ax.set_title(words(text), loc="left", color=INK, size=10)


def _legend_above(fig: Any, ax: Any, columns: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        fig.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=columns,
            fontsize=8.5,
            frameon=False,
            labelcolor=INK,
            handlelength=3,
        )


def _tint(colour: str) -> Any:
    """From a pale tint of the colour to the colour: dense cells darker."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    full = np.array(to_rgb(colour))
    return LinearSegmentedColormap.from_list("tint", [1 - 0.35 * (1 - full), full])


def _order(entries: Sequence[Any], arms: Sequence[str]) -> list[str]:
    """The arms in their order, then those that only the entries have."""
    return list(dict.fromkeys([*arms, *(entry["arm"] for entry in entries)]))


def _look(entry: Summary) -> str:
    weight = entry["popularity_weight"]
    name = words(entry["arm"])
    return name if weight is None else f"{name}, β={weight_words(weight)}"
