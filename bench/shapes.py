"""Every shape that is measured, in one place. FASTPOP_BENCH=small takes the second of each pair."""

import os
from dataclasses import dataclass

SMALL = os.environ.get("FASTPOP_BENCH", "full") == "small"


@dataclass(frozen=True)
class Softmax:
    rows: int
    negatives: int  # of a draw; the catalogue itself for the full softmax
    dim: int
    items: int

    def __str__(self) -> str:
        return f"B={self.rows} K={self.negatives} D={self.dim} V={self.items}"


def pick(full, small):
    return small if SMALL else full


SAMPLED = pick(
    [Softmax(4096, 8192, 64, 1_000_000), Softmax(1024, 4096, 128, 1_000_000)],
    [Softmax(128, 256, 16, 5_000)],
)
FULL = pick([Softmax(2048, 50_000, 64, 50_000)], [Softmax(64, 500, 16, 500)])
# (touched rows, table rows, dim)
ROW_UPDATE = pick([(20_000, 2_000_000, 64)], [(200, 5_000, 16)])
# (items, dim, permutations)
PERMUTATION = pick([(200_000, 64, 100)], [(2_000, 8, 20)])
# (contexts, items, dim)
ENERGY = pick([(20_000, 100_000, 64)], [(300, 500, 8)])
# (queries, items, dim, k)
TOP_ITEMS = pick([(4096, 200_000, 64, 100)], [(64, 1_000, 8, 10)])
# (items, draws)
DRAWS = pick([(1_000_000, 1_000_000)], [(1_000, 10_000)])
