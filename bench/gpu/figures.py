"""Every figure of the GPU day: its name in the record, its prediction, and its bar.

bench/gpu_predictions.json holds them as they were before a card was at hand. `python bench/gpu_day.py
--count` writes it, and the tables of docs/performance.md, again from the cost model (costs.py); a test holds
them equal.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import shapes

from gpu import costs, judging
from gpu.costs import Cost

PATH = Path(__file__).resolve().parents[1] / "gpu_predictions.json"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
GEMM = "gemm bfloat16"
# Of the scores of a catalogue, by the dtype of the rows: the ceiling, and products for one product
# (float32 rows are multiplied as tf32, three times).
SCORES = {"float32": ("gemm tf32", 3.0), "bfloat16": (GEMM, 1.0)}


class Bar(NamedTuple):
    """Met when work / seconds reaches `least` of a ceiling."""

    ceiling: str
    work: float
    least: float


class Figure(NamedTuple):
    cost: Cost
    bar: Bar | None = None


def shared(shape: shapes.Softmax, what: str) -> str:
    return f"shared B={shape.rows:,} K={shape.negatives:,} D={shape.dim} {what}"


def per_row(shape: shapes.Softmax, what: str) -> str:
    return f"per-row B={shape.rows:,} K={shape.negatives:,} D={shape.dim} {what}"


def update(shape: shapes.RowUpdate, rule: str) -> str:
    return f"{rule} {shape.draws:,} rows of {shape.items:,} x {shape.dim}"


def energy(shape: shapes.Energy, dtype: str) -> str:
    return f"energy C={shape.contexts:,} V={shape.items:,} D={shape.dim} {dtype}"


def top(shape: shapes.TopItems, dtype: str) -> str:
    return f"top {shape.k} B={shape.rows:,} V={shape.items:,} D={shape.dim} {dtype}"


def ranks(shape: shapes.TargetRanks, dtype: str) -> str:
    return f"ranks B={shape.rows:,} V={shape.items:,} D={shape.dim} {dtype}"


def step(shape: shapes.Softmax) -> str:
    return f"train step B=K={shape.rows:,} D={shape.dim} V={shape.items:,}"


def graph_step(shape: shapes.Softmax) -> str:
    return f"{step(shape)}, graph"


def sampled_peer(shape: shapes.Softmax, name: str) -> str:
    return f"sampled B={shape.rows:,} D={shape.dim} {name}"


def full(shape: shapes.Softmax, name: str) -> str:
    return f"full B={shape.rows:,} V={shape.items:,} D={shape.dim} {name}"


@cache
def figures() -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for shape in (*shapes.GPU_SHARED, *shapes.GPU_GRAPH):
        add_shared(found, shape, graph=shape in shapes.GPU_GRAPH)
    for shape in shapes.GPU_ROWS:
        sizes = (shape.rows, shape.negatives, shape.dim, 2)
        gathered = 2.0 * shape.rows * shape.negatives * shape.dim
        found[per_row(shape, "forward")] = Figure(costs.rows_forward(*sizes), Bar("copy", gathered, 0.8))
        found[per_row(shape, "both")] = Figure(costs.rows_both(*sizes, shape.items))
    for shape in shapes.GPU_ROW_UPDATE:
        for rule in ("adagrad", "adam"):
            add_update(found, shape, rule)
    for dtype, (ceiling, times) in SCORES.items():
        for shape in shapes.GPU_ENERGY:
            sizes = (shape.contexts, shape.items, shape.dim)
            work = 2.0 * shape.contexts * shape.items * shape.dim * times
            found[energy(shape, dtype)] = Figure(costs.energy(*sizes, dtype), Bar(ceiling, work, 0.6))
        for shape in shapes.GPU_TOP_ITEMS:
            sizes = (shape.rows, shape.items, shape.dim)
            found[top(shape, dtype)] = Figure(costs.top_items(*sizes, shape.k, dtype))
        for shape in shapes.GPU_TARGET_RANKS:
            sizes = (shape.rows, shape.items, shape.dim)
            found[ranks(shape, dtype)] = Figure(costs.target_ranks(*sizes, dtype))
    for shape in shapes.GPU_STEP:
        cost = costs.train_step(shape.rows, shape.negatives, shape.dim)
        found[step(shape)] = Figure(cost)
        found[graph_step(shape)] = Figure(replace(cost, host=costs.GRAPH_STEP))
    for shape in shapes.GPU_SHARED:
        if shape.dim in (16, 128):
            sizes = (shape.rows, shape.negatives, shape.dim)
            # Of the operators of an eager pass and its backward, and of the loops that they fuse into.
            found[sampled_peer(shape, "torch eager")] = Figure(costs.through_memory(*sizes, 40.0))
            found[sampled_peer(shape, "torch.compile")] = Figure(costs.through_memory(*sizes, 16.0))
    for shape in shapes.GPU_FULL:
        sizes = (shape.rows, shape.items, shape.dim)
        found[full(shape, "fastpop")] = Figure(costs.full_both(*sizes))
        found[full(shape, "torch eager")] = Figure(costs.through_memory(*sizes, 24.0))
    return found


def add_shared(found: dict[str, Figure], shape: shapes.Softmax, *, graph: bool) -> None:
    """The bars count 2 B K D operations forward and 8 for both, or an exponential a logit where those
    bind, at D = 64."""
    sizes = (shape.rows, shape.negatives, shape.dim)
    logits = float(shape.rows) * shape.negatives
    forward = Bar("exp", logits, 0.6) if shape.dim == 64 else Bar(GEMM, 2 * logits * shape.dim, 0.6)
    both = Bar(GEMM, 8 * logits * shape.dim, 0.5)
    for what, cost, bar in (
        ("forward", costs.shared_forward(*sizes), forward),
        ("both", costs.shared_both(*sizes), both),
    ):
        found[shared(shape, what)] = Figure(cost, None if graph else bar)
        if graph:
            found[shared(shape, f"{what}, graph")] = Figure(replace(cost, host=0), bar)


def add_update(found: dict[str, Figure], shape: shapes.RowUpdate, rule: str) -> None:
    """The bar counts gradient, table and state of each row; only a large update fills a card."""
    cost = costs.row_update(rule, shape.draws, shape.dim)
    moved = float(shape.draws) * costs.row_update_bytes(rule, shape.dim)
    bar = Bar("copy", moved, 0.8) if shape.draws >= 1_000_000 else None
    found[update(shape, rule)] = Figure(cost, bar)
    found[f"{update(shape, rule)}, graph"] = Figure(replace(cost, host=0), bar)


def predictions() -> dict[str, dict[str, Any]]:
    """As JSON: seconds, what binds them, and of a bar the part that is expected."""
    found: dict[str, dict[str, Any]] = {}
    for name, (cost, bar) in figures().items():
        found[name] = {"seconds": float(f"{cost.seconds():.4g}"), "bound": cost.bound()}
        if bar is not None:
            reaches = bar.work / cost.seconds() / costs.H100[bar.ceiling]
            found[name] |= {"of": bar.ceiling, "reaches": round(reaches, 3), "bar": bar.least}
    return found


def write() -> None:
    """The predictions, and the tables of the page that shows them."""
    PATH.write_text(json.dumps(predictions(), indent=1) + "\n")
    text = PAGE.read_text()
    for name, table in tables().items():
        first, rest = text.split(f"<!-- {name} -->\n", 1)
        text = f"{first}<!-- {name} -->\n{table}<!-- end -->\n{rest.split('<!-- end -->' + chr(10), 1)[1]}"
    PAGE.write_text(text)


def tables() -> dict[str, str]:
    """Markdown, by the name of the comment that it stands behind."""
    columns = [(64, "bfloat16"), (128, "bfloat16"), (256, "bfloat16"), (64, "float32"), (128, "float32")]
    counted = costs.COUNTS["kernels"]
    kernels = list(dict.fromkeys(key.rsplit(" ", 2)[0] for key in counted))
    rows = [
        "| kernel | " + " | ".join(f"D={dim} {dtype}" for dim, dtype in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for kernel in kernels:
        cells = [counted.get(f"{kernel} {dim} {dtype}") for dim, dtype in columns]
        rows.append(
            f"| {kernel} | "
            + " | ".join(f"{one['per_logit']:.1f} ({one['blocks']})" if one else "" for one in cells)
            + " |"
        )
    figure_rows = ["| figure | predicted | bound by | of its bar |", "|---|---|---|---|"]
    for name, one in predictions().items():
        bar = f"{one['reaches']:.0%} of {one['of']}, wanted {one['bar']:.0%}" if "bar" in one else ""
        figure_rows.append(f"| {name} | {judging.shown(one['seconds'])} | {one['bound']} | {bar} |")
    return {"instructions": "\n".join(rows) + "\n", "predictions": "\n".join(figure_rows) + "\n"}


if __name__ == "__main__":
    write()
