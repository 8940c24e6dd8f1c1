"""The pictures of a comparison: panels, each drawn on axes of its own.

A page sets panels side by side or one below the other as its width allows; `together` makes one figure of
them. Four arms have a colour (Okabe & Ito's, which colour-blind people tell apart) and a dash, and are named
where they are drawn; all others are grey and stand behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop.report.cells import p_cell
from fastpop.report.compare_tables import arms_of
from fastpop.report.drawing import INK, figure_of, halo, styled_axes, words
from fastpop.report.schema import Comparison, Curve, Exposure, Scatter
from fastpop.report.tables import number

COLOURS = {"standard": "#0072B2", "post-hoc": "#009E73", "frozen": "#D55E00", "learned-from-log-p": "#AA4499"}
DASHES: dict[str, Any] = {
    "standard": "-",
    "post-hoc": (0, (5, 1.5)),
    "frozen": "-",
    "learned-from-log-p": (0, (2, 1.5)),
}
WIDTHS = {"standard": 1.5, "post-hoc": 1.5, "frozen": 1.7, "learned-from-log-p": 0.9}  # over one another
HUES = {"label": COLOURS["standard"], "sign": "#B8860B"}  # of the nulls
OTHERS = "other arms"
SMALL = 8
ACCURACY, POPULARITY = "ndcg@10", "arp@10"


@dataclass(frozen=True)
class Panel:
    """One axes: inches wide and high, and who draws on it. alt: the same in words."""

    draw: Callable[[Any], None]
    alt: str
    width: float = 3.9
    height: float = 2.15


def alone(panel: Panel) -> Any:
    """A figure of one panel."""
    fig = figure_of(panel.width, panel.height)
    panel.draw(styled_axes(fig)[0, 0])
    return fig


def together(panels: Sequence[Panel], columns: int) -> Any:
    """One figure of several panels."""
    lines = -(-len(panels) // columns)
    fig = figure_of(sum(panel.width for panel in panels[:columns]), lines * max(p.height for p in panels))
    axes = styled_axes(fig, lines, columns)
    for ax, panel in zip(axes.flat, panels):
        panel.draw(ax)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    return fig


def sheets(comparison: Comparison) -> dict[str, Any]:
    """The three pictures of the story as one figure each, by name; those that there are."""
    made = {
        "score-against-log-p": (scatter(comparison), 3),
        "frontier": (frontier(comparison), 1),
        "epochs": (epochs(comparison), 2),
    }
    return {name: together(found, columns) for name, (found, columns) in made.items() if found}


def look(arm: str) -> dict[str, Any]:
    """Colour, dash and depth of an arm."""
    known = arm in COLOURS
    return {
        "color": COLOURS.get(arm, INK),
        "ls": DASHES.get(arm, "-"),
        "zorder": 3 if known else 2,
        "alpha": 1.0 if known else 0.55,
    }


def scatter(comparison: Comparison, arms: Sequence[str] = ("standard", "post-hoc", "frozen")) -> list[Panel]:
    """Mean score of every item against log p, learned and served, a panel an arm on common axes."""
    chosen = [entry for arm in arms for entry in comparison.get("scatter", []) if entry["arm"] == arm]
    chosen = chosen or comparison.get("scatter", [])[:3]
    if not chosen:
        return []
    scores = [
        _centred(entry[key])
        for entry in chosen  # type: ignore[literal-required]
        for key in ("mean_score", "served_score")
        if key in entry
    ]
    scores += [entry["slope"] * _centred(entry["log_prior"]) for entry in chosen]
    low, high = min(y.min() for y in scores), max(y.max() for y in scores)
    limits = low - 0.04 * (high - low or 1), high + 0.04 * (high - low or 1)
    return [_scatter(entry, limits) for entry in chosen]


def _centred(score: Any) -> np.ndarray:
    score = np.asarray(score, float)
    return score - score.mean()


def _scatter(entry: Scatter, limits: tuple[float, float]) -> Panel:
    x = np.asarray(entry["log_prior"], float)
    arm, served = entry["arm"], "served_score" in entry
    slopes = f"learned: slope {entry['slope']:.2f}"
    if served:
        slopes += f"; served at β = 1: {entry['served_slope']:.2f}"

    def draw(ax: Any) -> None:
        ends = np.array([x.min(), x.max()])
        many = {"s": 5, "linewidths": 0, "rasterized": True}
        clouds = [("mean_score", "slope", COLOURS.get(arm, "#555555"), 0.35)]
        if served:
            clouds.insert(0, ("served_score", "served_slope", INK, 0.22))
        for score, _, colour, alpha in clouds:
            ax.scatter(x, _centred(entry[score]), color=colour, alpha=alpha, **many)  # type: ignore[literal-required]
        for score, slope, colour, _ in clouds:
            line = {"lw": 1.8} if score == "mean_score" else {"lw": 1.2, "ls": (0, (4, 2))}
            ax.plot(ends, entry[slope] * (ends - x.mean()), color=colour, **line)  # type: ignore[literal-required]
        ax.set_ylim(limits)
        ax.set_xlabel("log p of the item, nats")
        ax.set_ylabel("mean score, centred")
        _heading(ax, arm, slopes if served else "learned and served: slope " + f"{entry['slope']:.2f}")

    return Panel(draw, f"{arm}, {slopes}")


def frontier(comparison: Comparison) -> list[Panel]:
    """Accuracy against popularity of what is shown: a curve over beta an arm, a mark what needs no model."""
    epochs = comparison["readings"][0]
    arms = arms_of(comparison, "trained", "afterwards")
    runs = {
        arm: _runs(comparison, arm, epochs)
        for arm in arms_of(comparison, "trained", "afterwards", "reference")
    }
    if not any(runs.values()):
        return []
    means = {
        arm: np.mean(list(found.values()), axis=0)
        for arm, found in runs.items()
        if found and len({len(run) for run in found.values()}) == 1
    }

    def draw(ax: Any) -> None:
        labels = []
        for arm in sorted((arm for arm in arms if arm in means), key=lambda arm: arm in COLOURS):
            style, mean = look(arm), means[arm]
            if len(mean) == 1:
                ax.plot(*mean[0], marker="s", ms=6.5, color=style["color"], zorder=5, mec="white", mew=0.8)
                labels.append((mean[0], arm, style["color"], False))
                continue
            if arm in COLOURS:
                for run in runs[arm].values():
                    ax.plot(*np.array(run).T, color=style["color"], lw=0.7, alpha=0.4, zorder=style["zorder"])
            ax.plot(*mean.T, lw=1.4 * WIDTHS.get(arm, 0.7), **style)
            if arm in COLOURS:
                ax.plot(*mean[0], marker="o", ms=4, color=style["color"], zorder=4)
            labels.append((mean[0], arm, style["color"], True))
        for arm in arms_of(comparison, "reference"):
            if arm in means:
                ax.plot(*means[arm][0], marker="D", ms=5.5, color=INK, zorder=5)
                labels.append((means[arm][0], arm, INK, False))
        for level in _levels(comparison, epochs):
            ax.axvline(level, color=INK, lw=0.8, ls=(0, (1, 3)), zorder=1)
        ax.set_xlabel("ARP@10: mean count of what is shown")
        ax.set_ylabel("NDCG@10")
        ax.margins(x=0.06, y=0.1)
        _place(ax, labels)

    found = "; ".join(
        f"{arm} from {points[0][1]:.3g} at ARP {points[0][0]:.3g}"
        + (f" to {points[-1][1]:.3g} at {points[-1][0]:.3g}" if len(points) > 1 else "")
        for arm, points in means.items()
    )
    return [Panel(draw, f"NDCG@10 against ARP@10 over beta: {found}", 4.7, 3.3)]


def _runs(comparison: Comparison, arm: str, epochs: str) -> dict[int, list[tuple[float, float]]]:
    """seed -> (ARP, NDCG) by rising beta."""
    found: dict[int, list] = {}
    for row in comparison["rows"]:
        values = row["values"]
        if row["arm"] == arm and row["epochs"] == epochs and ACCURACY in values and POPULARITY in values:
            found.setdefault(row["seed"], []).append(
                (row["popularity_weight"], values[POPULARITY], values[ACCURACY])
            )
    return {seed: [point[1:] for point in sorted(points)] for seed, points in found.items()}


def _levels(comparison: Comparison, epochs: str) -> list[float]:
    """Where frozen and post-hoc are compared at equally popular lists."""
    return [
        entry["arp"]
        for entry in comparison.get("matched", [])
        if (entry["arm"], entry["epochs"], entry["metric"]) == ("frozen", epochs, ACCURACY)
    ]


def epochs(comparison: Comparison) -> list[Panel]:
    """Validation NLL and NDCG, slope and energy off log p after every epoch, or the training loss: a thin
    line a seed, a dot at the best epoch."""
    curves = comparison.get("curves", [])
    kinds = [
        ("nll", "validation NLL, nats"),
        ("slope", "slope of the learned part"),
        ("energy_off_direction", "energy off log p, nats²"),
        ("ndcg@10", "validation NDCG@10"),
    ]
    kinds = [(key, title) for key, title in kinds if any(curve.get(key) is not None for curve in curves)]
    kinds = kinds or [("loss", "training loss, nats")] * bool(curves)
    return [_epochs(curves, key, title, first=n == 0) for n, (key, title) in enumerate(kinds)]


def _epochs(curves: Sequence[Curve], key: str, title: str, first: bool) -> Panel:
    def draw(ax: Any) -> None:
        for curve in sorted(curves, key=lambda curve: curve["arm"] in COLOURS):
            series: Any = curve.get(key)  # type: ignore[literal-required]
            if series is None:
                continue
            x = np.asarray(curve["epoch"], float)
            y = np.array([np.nan if value is None else value for value in series], float)
            style, arm = look(curve["arm"]), curve["arm"]
            ax.plot(x, y, lw=WIDTHS.get(arm, 0.8), **style)
            best = curve.get("readings", {}).get("best")
            if best is not None and arm in COLOURS and (x == best).any():
                ax.plot(
                    best,
                    y[x == best][0],
                    marker="o",
                    ms=4.5,
                    color=style["color"],
                    zorder=5,
                    mec="white",
                    mew=0.6,
                )
        equal = {curve["readings"]["equal"] for curve in curves if "equal" in curve.get("readings", {})}
        for epoch in equal:
            ax.axvline(epoch, color=INK, lw=0.8, ls=(0, (1, 3)), zorder=1)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        _heading(ax, title, "")

    found = {curve["arm"]: None for curve in curves}
    return Panel(draw, f"{title} by epoch, of {', '.join(found)}", 3.1, 2.0)


def paired_test(comparison: Comparison) -> list[Panel]:
    """Draws under both nulls and what was observed, on one pair of axes."""
    nulls, draws = comparison.get("nulls", []), comparison.get("permutations", 0)
    if not nulls:
        return []
    samples = [np.asarray(null["samples"], float) for null in nulls]
    observed = float(nulls[0]["observed"])  # the same under both
    told = "; ".join(
        f"{null.get('kind', 'null')} null p = {p_cell(null['p_value'], draws)}" for null in nulls
    )

    def draw(ax: Any) -> None:
        low, high = (side(side(sample) for sample in samples) for side in (min, max))
        edges = np.linspace(low, high, 51) if high > low else np.array([low - 0.5, low + 0.5])
        reach = edges[-1] - edges[0]
        far = not low - reach < observed < high + reach  # then it stands at the edge, as an arrow
        for null, sample in zip(nulls, samples):
            colour = HUES.get(null.get("kind", ""), INK)
            ax.hist(sample, edges, histtype="stepfilled", color=colour, alpha=0.3)
            ax.hist(sample, edges, histtype="step", color=colour, lw=1.2)
        side = 1 if observed > (low + high) / 2 else -1
        text = f"observed {number(observed, 3)}"
        if far:
            ends = (edges[0] - 0.05 * reach, edges[-1] + 0.6 * reach)
            ax.set_xlim(ends if side > 0 else (edges[0] - 0.6 * reach, edges[-1] + 0.05 * reach))
            tip = ax.get_xlim()[side > 0]
            ax.annotate(
                "",
                (tip, 0.5),
                (tip - side * 0.2 * reach, 0.5),
                xycoords=("data", "axes fraction"),
                arrowprops={"arrowstyle": "-|>", "color": COLOURS["frozen"], "lw": 2},
            )
            text += ", outside"
        else:
            tip = observed
            ax.axvline(observed, color=COLOURS["frozen"], lw=2)
            ax.set_xlim(
                min(edges[0], observed - 0.45 * reach * (side < 0)) - 0.05 * reach,
                max(edges[-1], observed + 0.45 * reach * (side > 0)) + 0.05 * reach,
            )
        lines = [(text, COLOURS["frozen"])] + [
            (
                f"{null.get('kind', 'null')} null: p = {p_cell(null['p_value'], draws)}",
                HUES.get(null.get("kind", ""), INK),
            )
            for null in nulls
        ]
        inside = -side if far else side
        for n, (said, colour) in enumerate(lines):
            ax.annotate(
                words(said),
                (tip, 1),
                xycoords=("data", "axes fraction"),
                xytext=(6 * inside, -3 - 13 * n),
                textcoords="offset points",
                va="top",
                ha="left" if inside > 0 else "right",
                fontsize=8.5,
                color=colour,
            )
        ax.set_xlabel(f"shared energy, {words(nulls[0]['arm'])}, nats²")
        ax.set_ylabel(f"of {len(samples[0]):,} draws")

    alt = f"Paired test of {nulls[0]['arm']}: observed {number(observed, 3)}; {told}"
    return [Panel(draw, alt, 5.0, 2.3)]


def exposure(comparison: Comparison) -> list[Panel]:
    """Where the slots go, by tenths of popularity: small bars, a panel an arm and beta."""
    entries = comparison.get("exposure", [])
    chosen = [
        entry
        for entry in entries
        if entry["arm"] in COLOURS and not (entry["arm"] == "post-hoc" and entry["popularity_weight"] == 1)
    ]  # which is standard
    chosen = chosen or entries[:4]
    top = max((max(entry["share"]) for entry in chosen), default=1.0)
    drawn = [entry["arm"] for entry in chosen]
    return [
        _exposure(entry, top, drawn.count(entry["arm"]) > 1 or entry["popularity_weight"] != 1)
        for entry in chosen
    ]


def _exposure(entry: Exposure, top: float, says_beta: bool) -> Panel:
    name = entry["arm"] + (f", β = {entry['popularity_weight']:g}" if says_beta else "")

    def draw(ax: Any) -> None:
        ax.bar(range(1, 11), entry["share"], width=0.8, color=COLOURS.get(entry["arm"], INK))
        ax.axhline(0.1, color=INK, lw=1, ls=(0, (2, 2)))
        ax.set_ylim(0, top * 1.05)
        ax.set_xticks([1, 5, 10], ["top tenth", "5", "last"])
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        _heading(ax, name, "")

    shares = ", ".join(f"{100 * share:.0f}" for share in entry["share"])
    return Panel(draw, f"{name}: per cent of slots by tenths of popularity: {shares}", 2.5, 1.7)


def key_arms(comparison: Comparison) -> list[str]:
    """The arms with a colour that this comparison has, then OTHERS where there are more."""
    arms = arms_of(comparison, "trained", "afterwards")
    known = [arm for arm in COLOURS if arm in arms]
    return known + [OTHERS] * (len(arms) > len(known))


def _heading(ax: Any, title: str, more: str) -> None:
    ax.set_title(words(title), loc="left", color=INK, size=9.5, weight="bold", pad=16 if more else 6)
    if more:
        ax.annotate(
            words(more),
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )


def _place(ax: Any, labels: Sequence[tuple[Any, str, str, bool]]) -> None:
    """Names beside their points, moved up or down until none covers another: (point, name, colour, whether a
    curve starts there and runs to the right).

    Names of points on the right stand in a column beyond all curves, of others where no curve runs.
    """
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    wide, high = ax.figure.get_size_inches() * 72 * (0.86, 0.84)  # of the axes, roughly, in points
    line, letter = SMALL + 1.5, 0.54 * SMALL
    first, furthest = (side(point[0] for point, *_ in labels) for side in (min, max))
    middle, last = first + 0.55 * (furthest - first), ax.dataLim.x1
    left = max((len(text) for point, text, _, starts in labels if starts and point[0] <= middle), default=0)
    right = max((len(text) for point, text, _, _ in labels if point[0] > middle), default=4)
    # Room for names on both sides of the points.
    span = max(last - first, 1e-9) / max(1 - (letter * (left + right) + 40) / wide, 0.2)
    x0 = first - span * (letter * left + 16) / wide
    x1 = x0 + span
    ax.set_xlim(x0, x1)
    ax.set_xticks([tick for tick in ax.get_xticks() if max(x0, 0) <= tick <= last + 0.05 * span])
    column = (last - x0) / span * wide + 14
    taken: list[tuple[float, float, float]] = []
    for point, text, colour, starts in sorted(labels, key=lambda label: -label[0][1]):
        px, py = (point[0] - x0) / (x1 - x0) * wide, (point[1] - y0) / (y1 - y0) * high
        length = letter * len(text)
        if point[0] > middle:
            at, side = column, "left"
        elif starts:
            at, side = px - 7, "right"
        else:
            at, side = px + 8, "left"
        near = at - length if side == "right" else at
        steps = sorted((step * line / 2 for step in range(-24, 25)), key=lambda step: (abs(step), -step))
        place = next(
            (
                py + step
                for step in steps
                if line < py + step < high
                and not any(
                    abs(py + step - other) < line and near < end and start < near + length
                    for start, end, other in taken
                )
            ),
            py,
        )
        taken.append((near, near + length, place))
        far = abs(place - py) > line or abs(at - px) > 16
        leader = {"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5, "shrinkA": 1, "shrinkB": 3}
        ax.annotate(
            words(text),
            point,
            xytext=(at - px, place - py),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=SMALL,
            color=colour,
            path_effects=halo(),
            zorder=6,
            arrowprops=leader if far else None,
        )
