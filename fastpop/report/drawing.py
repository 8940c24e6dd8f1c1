"""The house style of pictures: ink, axes, and figures as SVG.

Text and axes are drawn in one ink that `to_svg` turns into CSS `currentColor`, so that a picture reads on
light, dark and paper.
"""

import io
import re
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.text import LONGEST, shortened

PAPER = "#fefefd"  # behind words that lie on lines; `to_svg` makes it the page's own
INK = "#707274"  # mid grey: legible on white and on near-black where the svg is used as a file


def figure_of(width: float, height: float) -> Any:
    """An empty figure, inches. Raises ImportError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        checks.missing_package("matplotlib", "report", "drawing a report")
    return Figure(figsize=(width, height), layout="constrained")


def styled_axes(fig: Any, rows: int = 1, columns: int = 1, **share: Any) -> np.ndarray:
    """fig.subplots in the house style, [rows, columns]; nothing global is changed."""
    axes = fig.subplots(rows, columns, squeeze=False, **share)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(INK)
        ax.tick_params(colors=INK, which="both", labelsize=8.5)
        ax.xaxis.label.set(color=INK, size=9.5)
        ax.yaxis.label.set(color=INK, size=9.5)
        ax.grid(color=INK, alpha=0.22, lw=0.6)
        ax.set_axisbelow(True)
    return axes


def halo() -> list[Any]:
    """Path effects of text: lines that run behind it do not strike it through."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2.2, foreground=PAPER)]


def words(text: str) -> str:
    """A name as it is, not as mathematics; a long one shortened."""
    return shortened(text, LONGEST).replace("$", r"\$")


def to_svg(fig: Any, prefix: str = "") -> str:
    """The figure as an <svg> element without background, ink as currentColor, paper as the page's, same bytes
    each time. `prefix` keeps ids apart when several stand in one page."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fastpop" + prefix, "svg.fonttype": "path"}):
        fig.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    return text.replace(INK, "currentColor").replace(PAPER, "var(--paper, #fff)")


def save_figure(fig: Any, path: Any) -> None:
    """fig.savefig on white, 150 dots an inch; the ending of `path` says the format."""
    fig.savefig(path, dpi=150, facecolor="white")
