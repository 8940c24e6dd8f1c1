"""`fastpop bench step`: seconds of one training step against the size of the catalogue."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.data.interactions import Interactions
from fastpop.text import aligned
from fastpop.training import TrainConfig, build
from fastpop.training.loop import train_step


def time_steps(
    items: Sequence[int], dim: int, negatives: int, batch: int, *, rounds: int = 15, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a catalogue size: the median time of a training step, as `fastpop.train` makes it.

    A factor model with log p frozen, sampled softmax with log Q, sparse row gradients and row-wise
    Adam, on random events whose items follow a Zipf distribution.

    Args:
        items: catalogue sizes V. dim: D. negatives: K, shared by the batch. batch: B.
        rounds: steps timed, after three that are not.
    Returns:
        dicts with items, dim, negatives, batch, seconds_per_step, examples_per_second.
    """
    for name, value in (("dim", dim), ("negatives", negatives), ("batch", batch), ("rounds", rounds)):
        checks.number(name, value, ge=1, integer=True)
    if not items:
        raise checks.wrong("items", "at least one catalogue size", list(items))
    return [_row(int(num_items), dim, negatives, batch, rounds, seed) for num_items in items]


def _row(num_items: int, dim: int, negatives: int, batch: int, rounds: int, seed: int) -> dict[str, Any]:
    checks.number("items", num_items, ge=2, integer=True)
    rng = np.random.default_rng(seed)
    num_events = batch * (rounds + 3)
    item = (rng.zipf(1.3, num_events) - 1) % num_items
    user = rng.integers(0, max(num_events // 20, 1), num_events)
    log = Interactions.from_arrays(
        user, item, user_ids=np.arange(max(num_events // 20, 1)), item_ids=np.arange(num_items)
    )
    config = TrainConfig(encoder="factor", dim=dim, num_negatives=negatives, batch_size=batch, seed=seed)
    log_prior_V = np.log((log.item_counts() + 1) / (num_events + num_items))
    parts = build.assemble(config, log, log, log_prior_V)
    seconds = []
    for step, rows in enumerate(parts.batches.epoch(0)):
        start = time.perf_counter()
        train_step(parts, rows, step)
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds[3:]))
    return {
        "items": num_items,
        "dim": dim,
        "negatives": negatives,
        "batch": batch,
        "seconds_per_step": median,
        "examples_per_second": batch / median,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    cells = [["items", "ms a step", "examples/s"]]
    cells += [
        [f"{row['items']:,}", f"{row['seconds_per_step'] * 1e3:.2f}", f"{row['examples_per_second']:,.0f}"]
        for row in rows
    ]
    return "\n".join(aligned(cells, least=(12, 12, 14), left=0, gap=0))
