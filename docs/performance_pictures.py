"""The charts of docs/performance.md: python docs/performance_pictures.py bench/records/sweep.json."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAMES = {"items": "items V", "rows": "rows B", "negatives": "negatives K", "dim": "dimension D"}
STYLE = {
    "fastpop": ("#1f5fa8", "o", "-"),
    "torch eager, sparse gradient": ("#d1702a", "s", "--"),
    "torch eager, dense gradient": ("#7a7a7a", "^", ":"),
}
HERE = Path(__file__).parent / "pictures"


def draw(axes: dict, value: str, label: str, factor: float, path: Path) -> None:
    """One panel for each size that grows, all with the same vertical axis."""
    figure, panels = plt.subplots(1, len(axes), figsize=(11, 3.2), sharey=True, layout="constrained")
    for panel, (axis, points) in zip(panels, axes.items()):
        for name, (color, marker, line) in STYLE.items():
            shown = [
                (point["size"], one[value] * factor)
                for point in points
                for one in point["contenders"]
                if one["contender"] == name and one[value]
            ]
            if shown:
                panel.plot(*zip(*shown), color=color, marker=marker, linestyle=line, label=name, markersize=5)
        panel.set(xscale="log", yscale="log", xlabel=NAMES[axis])
        if axis != "items":
            panel.set_xticks([point["size"] for point in points], [f"{point['size']:,}" for point in points])
            panel.minorticks_off()
        panel.grid(alpha=0.3, which="major")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(label)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(path: str) -> None:
    axes = json.loads(Path(path).read_text())["axes"]
    draw(axes, "seconds", "milliseconds a step", 1e3, HERE / "step-time.png")
    draw(axes, "peak_bytes", "MiB above the inputs", 2.0**-20, HERE / "step-memory.png")


if __name__ == "__main__":
    main(sys.argv[1])
