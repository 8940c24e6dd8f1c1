"""What each figure of the GPU day should be, from counts: docs/performance.md has the model in words.

A kernel's time is that of the unit it keeps busiest: products on tensor cores, exponentials, slots of the
schedulers, bytes of device memory or of the L2 cache. Where one block alone fits on a multiprocessor,
its warps multiply together and then exponentiate together: those two times add up. Nothing here was
fitted to a measurement of this project's kernels. No torch is needed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of an H100 (SXM, 80 GB). bfloat16 and the copy were measured on such a card. exp and issue are counts times
# a clock of 1.9 GHz: 132 multiprocessors with 16 exponentials and 4 x 32 lanes of instructions a cycle. The
# others are guesses.
H100 = {
    "gemm bfloat16": 798e12,
    "gemm tf32": 400e12,
    "gemm float32": 50e12,
    "copy": 3.0e12,
    "gather": 2.6e12,
    "exp": 132 * 16 * 1.9e9,
    "issue": 132 * 4 * 32 * 1.9e9,
    "l2": 5.5e12,
}
OLD_PRODUCTS = 0.62  # of the rate of Hopper's own matrix instructions that the older ones (HMMA) reach
LAUNCH = 3e-6  # from one small kernel to the next in a full stream
HOST = 7e-6  # of one operator of torch called from Python, where the device waits for the host
# Launches and host calls are counted: python -P bench/step_calls.py. Of a step as a graph: a copy of its
# batch, two numbers for dropout's generator, the graph, its loss.
GRAPH_STEP = 5
COUNTS: dict[str, Any] = json.loads((Path(__file__).parent / "instructions.json").read_text())


@dataclass(frozen=True)
class Kernel:
    """work: amount by ceiling. alone: one block a multiprocessor, so products and the rest take turns."""

    work: dict[str, float]
    alone: bool = False

    def parts(self) -> dict[str, float]:
        return {unit: amount / H100[unit] for unit, amount in self.work.items()}

    def seconds(self) -> float:
        parts = self.parts()
        products = max((time for unit, time in parts.items() if unit.startswith("gemm")), default=0.0)
        others = max((time for unit, time in parts.items() if not unit.startswith("gemm")), default=0.0)
        return products + others if self.alone else max(products, others)


@dataclass(frozen=True)
class Cost:
    """kernels: one after the other. launches: small kernels besides. host: operators called from Python,
    whose time counts where it is the longer."""

    kernels: tuple[Kernel, ...] = ()
    launches: int = 0
    host: int = 0

    def seconds(self) -> float:
        return max(sum(one.seconds() for one in self.kernels) + self.launches * LAUNCH, self.host * HOST)

    def bound(self) -> str:
        """What takes most of it."""
        device: dict[str, float] = {"launches": self.launches * LAUNCH}
        for one in self.kernels:
            unit, time = max(one.parts().items(), key=lambda part: part[1])
            device[unit] = device.get(unit, 0.0) + time
        return "host" if self.host * HOST >= self.seconds() else max(device, key=device.__getitem__)


def counts_of(name: str, dim: int, dtype: str) -> dict[str, float]:
    """Of the nearest dimension that was counted."""
    found = {
        int(key.split()[-2]): value
        for key, value in COUNTS["kernels"].items()
        if key.startswith(f"{name} ") and key.endswith(f" {dtype}")
    }
    return found[min(found, key=lambda one: abs(one - dim))]


def tiles(
    name: str,
    dim: int,
    logits: float,
    products: float,
    *,
    dtype: str = "bfloat16",
    exps: bool = True,
    bytes_: float = 0.0,
) -> Kernel:
    """A Triton kernel on tiles of logits. products: 1, or 2 for one that multiplies twice.

    Instructions for a logit are counted in its machine code (instructions.py), which is where most of the
    time goes.
    """
    counted = counts_of(name, dim, dtype)
    unit, times = ("gemm bfloat16", 1.0) if dtype != "float32" else ("gemm tf32", 3.0)
    if not counted["wgmma"]:
        times /= OLD_PRODUCTS
    # A program keeps the rows of one side of its tile, and reads all of the other side through the L2 cache.
    kept = counted["candidates" if name.endswith("d_item") else "rows"]
    work = {
        unit: 2 * logits * dim * products * times,
        "issue": logits * counted["per_logit"],
        "l2": logits / kept * dim * (4 if dtype == "float32" else 2),
        "copy": bytes_,
    }
    if exps:
        work["exp"] = logits
    return Kernel(work, alone=counted["blocks"] == 1)


MERGING = {"launches": 3, "host": 6}  # draws, their sort, and where each different one begins


def least_saved(dtype: str, dim: int = 64) -> float:
    """Logits of forward and backward that take as long as looking for repeats does: `LEAST_SAVED` of the
    sampled softmax, which is the power of two beside it. Looking is three launches of 3 us; a logit, 6 D
    operations and its instructions, exponentials and bytes of the L2 cache in three kernels. A card's own
    number stands in its record (`draws that repeat`, sections/softmax.py)."""
    few, many = 65_536 * 8192, 2 * 65_536 * 8192
    taken = [
        sum(one.seconds() for one in shared_both(65_536, logits // 65_536, dim, dtype).kernels)
        for logits in (few, many)
    ]
    return MERGING["launches"] * LAUNCH / ((taken[1] - taken[0]) / (many - few))


def shared_forward(
    rows: int, negatives: int, dim: int, dtype: str = "bfloat16", distinct: float | None = None
) -> Cost:
    """distinct: how many of the negatives differ, where repeats are looked for; each is multiplied once."""
    size = 2 if dtype != "float32" else 4
    once = rows * dim * size + negatives * dim * size
    logits = rows * (negatives if distinct is None else distinct)
    more = {name: 0 if distinct is None else number for name, number in MERGING.items()}
    return Cost(
        (tiles("sampled forward", dim, logits, 1, dtype=dtype, bytes_=once),),
        launches=6 + more["launches"],
        host=37 + more["host"],
    )


def shared_both(
    rows: int, negatives: int, dim: int, dtype: str = "bfloat16", distinct: float | None = None
) -> Cost:
    """Forward and backward: d_query and d_items each make the logits again."""
    size = 2 if dtype != "float32" else 4
    entries = rows + negatives
    logits = rows * (negatives if distinct is None else distinct)
    forward = shared_forward(rows, negatives, dim, dtype, distinct)
    query = tiles("sampled d_query", dim, logits, 2, dtype=dtype, bytes_=2 * rows * dim * size)
    item = tiles(
        "sampled d_item", dim, logits, 2, dtype=dtype, bytes_=rows * dim * size + 4 * negatives * dim
    )
    # Rows read and written once, and a sort of 32-bit keys as below.
    by_id = Kernel({"copy": entries * dim * (2 * size + 4) + entries * 4 * 2 * 12})
    more = forward.launches - 6, forward.host - 37
    return Cost((*forward.kernels, query, item, by_id), launches=17 + more[0], host=69 + more[1])


def rows_forward(rows: int, negatives: int, dim: int, size: int) -> Cost:
    """A set for each row: gathered items and the ids; log q comes from the L2 cache."""
    logits = rows * negatives
    return Cost((Kernel({"gather": logits * (dim * size + 8)}),), launches=4, host=25)


def rows_both(rows: int, negatives: int, dim: int, size: int, items: int) -> Cost:
    """Twice the gather; then the table's gradient: N entries sorted (32-bit keys with 64-bit places, four
    passes that read and write both), cut, and summed from queries in the L2 cache."""
    logits = rows * negatives
    entries = logits + rows
    gather = Kernel({"gather": logits * (dim * size + 8)})
    back = Kernel({"gather": logits * (dim * size + 16)})
    sort = Kernel({"copy": entries * (4 * 2 * 12 + 30)})
    sums = Kernel({"l2": entries * dim * size, "copy": entries * 44 + 8 * min(entries, items) * dim})
    return Cost((gather, back, sort, sums), launches=40, host=110)


def row_update(rule: str, rows: int, dim: int) -> Cost:
    """And the sort of the ids."""
    moved = rows * (row_update_bytes(rule, dim) + 28 + 4 * 2 * 12)
    return Cost((Kernel({"gather": moved}),), launches=16, host=25)


def row_update_bytes(rule: str, dim: int) -> int:
    """fp32: gradient, table and state of a row, read and written once."""
    return 12 * dim + {"adagrad": 8, "adam": 8 * dim + 24}[rule]


def energy(contexts: int, items: int, dim: int, dtype: str) -> Cost:
    scores = tiles("score sums", dim, contexts * items, 1, dtype=dtype, exps=False)
    return Cost((scores,), launches=20, host=40)


def top_items(rows: int, items: int, dim: int, k: int, dtype: str) -> Cost:
    """Every score once; then the k best of V / 64 maxima and of 64 k scores a row, read some ten times."""
    best = tiles("top maxima", dim, rows * items, 1, dtype=dtype, exps=False)
    kept = Kernel({"copy": rows * (items / 64 + 64 * k) * 4 * 12})
    return Cost((best, kept), launches=120, host=160)


def target_ranks(rows: int, items: int, dim: int, dtype: str) -> Cost:
    """Every score once, for one target a row; pairs, sorts and counts beside it are small. The host checks
    the lists, too."""
    return Cost((tiles("ranks", dim, rows * items, 1, dtype=dtype),), launches=25, host=40)


def train_step(rows: int, negatives: int, dim: int) -> Cost:
    """The host binds: operators of the model, the loss, backward and two optimisers."""
    both = shared_both(rows, negatives, dim, "float32")
    return Cost(both.kernels, launches=44, host=131)


def full_both(rows: int, items: int, dim: int) -> Cost:
    """Full softmax in bfloat16, on tiles."""
    logits = float(rows) * items
    return Cost(
        (
            tiles("full forward", dim, logits, 1),
            tiles("full d_query", dim, logits, 2),
            tiles("full d_item", dim, logits, 2),
        ),
        launches=20,
        host=60,
    )


def through_memory(rows: int, negatives: int, dim: int, bytes_a_logit: float) -> Cost:
    """A pass over every logit for every operator: bytes_a_logit in all, and 6 B K D of products."""
    logits = float(rows) * negatives
    return Cost(
        (Kernel({"gemm bfloat16": 6 * logits * dim}), Kernel({"copy": logits * bytes_a_logit})),
        launches=40,
        host=60,
    )
