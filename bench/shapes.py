"""Every shape that is measured, in one place. FASTPOP_BENCH=small takes the tiny ones."""

import os
from dataclasses import dataclass

SMALL = os.environ.get("FASTPOP_BENCH", "full") == "small"


@dataclass(frozen=True)
class Softmax:
    """rows B, negatives K (0: the whole catalogue), dim D, items V; group: rows that share a draw."""

    rows: int
    negatives: int
    dim: int
    items: int
    dtype: str = "float32"
    group: int | None = None

    def __str__(self) -> str:
        negatives = f"K={self.negatives:,} " if self.negatives else ""
        group = f" groups of {self.group}" if self.group else ""
        return f"B={self.rows:,} {negatives}D={self.dim} V={self.items:,} {self.dtype}{group}"


@dataclass(frozen=True)
class RowUpdate:
    """`draws` gradient rows that fall on `touched` of V rows; more draws than rows: duplicates."""

    draws: int
    touched: int
    items: int
    dim: int

    def __str__(self) -> str:
        return f"{self.draws:,} gradients on {self.touched:,} rows, V={self.items:,} D={self.dim}"


@dataclass(frozen=True)
class Permutation:
    items: int
    dim: int
    permutations: int

    def __str__(self) -> str:
        return f"V={self.items:,} D={self.dim} P={self.permutations:,}"


@dataclass(frozen=True)
class Energy:
    contexts: int
    items: int
    dim: int

    def __str__(self) -> str:
        return f"C={self.contexts:,} V={self.items:,} D={self.dim}"


@dataclass(frozen=True)
class TopItems:
    rows: int
    items: int
    dim: int
    k: int
    seen: int  # items left out for each row

    def __str__(self) -> str:
        return f"B={self.rows:,} V={self.items:,} D={self.dim} k={self.k} seen={self.seen}"


@dataclass(frozen=True)
class TargetRanks:
    rows: int
    items: int
    dim: int
    seen: int  # items left out for each row

    def __str__(self) -> str:
        return f"B={self.rows:,} V={self.items:,} D={self.dim} seen={self.seen}"


@dataclass(frozen=True)
class Draws:
    items: int
    draws: int

    def __str__(self) -> str:
        return f"V={self.items:,} draws={self.draws:,}"


def pick(full: list, small: list) -> list:
    return small if SMALL else full


SAMPLED = pick(
    [
        Softmax(4096, 8192, 64, 1_000_000),
        Softmax(4096, 8192, 64, 1_000_000, "bfloat16"),
        Softmax(4096, 8192, 64, 100_000),
        Softmax(1024, 4096, 128, 1_000_000),
        Softmax(1024, 4096, 128, 1_000_000, "bfloat16"),
        Softmax(4096, 8192, 64, 1_000_000, group=128),
    ],
    [
        Softmax(96, 200, 16, 3_000),
        Softmax(96, 200, 16, 3_000, "bfloat16"),
        Softmax(96, 200, 16, 3_000, group=32),
    ],
)
FULL = pick(
    [Softmax(2048, 0, 64, 50_000), Softmax(2048, 0, 64, 50_000, "bfloat16")], [Softmax(64, 0, 16, 500)]
)
TRAIN_STEP = pick(
    [Softmax(4096, 4096, 64, items) for items in (100_000, 1_000_000, 10_000_000)], [Softmax(64, 100, 8, 500)]
)
ROW_UPDATE = pick(
    [RowUpdate(20_000, 20_000, 2_000_000, 64), RowUpdate(40_000, 20_000, 2_000_000, 64)],
    [RowUpdate(200, 200, 2_000, 16), RowUpdate(400, 200, 2_000, 16)],
)
PERMUTATION = pick([Permutation(200_000, 64, 500)], [Permutation(2_000, 8, 50)])
ENERGY = pick([Energy(20_000, 100_000, 64)], [Energy(300, 500, 8)])
TOP_ITEMS = pick([TopItems(4096, 200_000, 64, 100, 20)], [TopItems(64, 1_000, 8, 10, 5)])
TARGET_RANKS = pick([TargetRanks(4096, 200_000, 64, 20)], [TargetRanks(64, 1_000, 8, 5)])
DRAWS = pick([Draws(1_000_000, 1_000_000)], [Draws(1_000, 10_000)])

# Of a card: large enough that a launch is long beside its overhead (bench/gpu_day.py).
GPU_SHARED = pick(
    [Softmax(65_536, 8192, dim, 1_000_000, "bfloat16") for dim in (64, 128, 256)],
    [Softmax(96, 200, 16, 3_000, "bfloat16")],
)
GPU_GRAPH = pick(
    [Softmax(4096, 8192, dim, 1_000_000, "bfloat16") for dim in (64, 128)],
    [Softmax(64, 100, 16, 1_000, "bfloat16")],
)
GPU_ROWS = pick(
    [Softmax(65_536, 1024, 128, 1_000_000, "bfloat16", group=1)],
    [Softmax(64, 50, 16, 1_000, "bfloat16", group=1)],
)
GPU_ROWS_CHECKED = pick(
    [Softmax(256, 1024, 128, 1_000_000, "bfloat16", group=1)],
    [Softmax(16, 50, 16, 1_000, "bfloat16", group=1)],
)
GPU_ROW_UPDATE = pick(
    [RowUpdate(20_000, 20_000, 2_000_000, 64), RowUpdate(1_000_000, 1_000_000, 4_000_000, 128)],
    [RowUpdate(200, 200, 2_000, 16)],
)
GPU_ENERGY = pick([Energy(20_000, 100_000, 64), Energy(65_536, 200_000, 128)], [Energy(300, 500, 16)])
GPU_TOP_ITEMS = pick(
    [TopItems(4096, 200_000, 64, 100, 20), TopItems(4096, 1_000_000, 128, 100, 20)],
    [TopItems(64, 1_000, 16, 10, 5)],
)
GPU_TARGET_RANKS = pick(
    [TargetRanks(4096, 200_000, 64, 20), TargetRanks(4096, 1_000_000, 128, 20)],
    [TargetRanks(64, 1_000, 16, 5)],
)
GPU_FULL = pick([Softmax(8192, 0, 128, 100_000, "bfloat16")], [Softmax(64, 0, 16, 500, "bfloat16")])
GPU_STEP = pick([Softmax(4096, 4096, 64, 1_000_000)], [Softmax(64, 100, 16, 500)])
