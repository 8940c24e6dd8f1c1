"""What it should save a GPU to multiply draws that repeat each other once: python -P bench/repeated_draws.py

Counts are 1 / rank, draws by their powers; forward and backward of shared negatives, by the cost model
(gpu/costs.py), launches included and the host left out, as in a step that was recorded.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from gpu import costs

from fastpop.ops.sampled_softmax import LEAST_SAVED

CASES = [
    (items, power, *shape)
    for items, power in ((20_000, 1.0), (100_000, 0.75), (1_000_000, 0.75))
    for shape in ((65_536, 8192, 128, "bfloat16"), (4096, 8192, 128, "bfloat16"), (4096, 4096, 64, "float32"))
]


def expected_distinct(items: int, power: float, draws: int) -> float:
    q_V = np.arange(1.0, items + 1) ** -power
    return float(-np.expm1(draws * np.log1p(-q_V / q_V.sum())).sum())


def microseconds(cost: costs.Cost) -> float:
    return 1e6 * (sum(one.seconds() for one in cost.kernels) + cost.launches * costs.LAUNCH)


def rows() -> list[str]:
    """Of the table in docs/performance.md."""
    found = []
    for items, power, rows, draws, dim, dtype in CASES:
        distinct = expected_distinct(items, power, draws)
        each, once = (microseconds(costs.shared_both(rows, draws, dim, dtype, n)) for n in (None, distinct))
        pays = rows * (draws - distinct) >= LEAST_SAVED[4 if dtype == "float32" else 2]
        found.append(
            f"| {items:,} | counts^{power:g} | B={rows:,} K={draws:,} D={dim} {dtype} "
            f"| {distinct:,.0f} | {each:,.0f} us | {once:,.0f} us | {'yes' if pays else 'no'} |"
        )
    return found


if __name__ == "__main__":
    print("\n".join(rows()))
