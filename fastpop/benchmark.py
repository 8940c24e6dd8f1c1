"""`fastpop bench step`: seconds of one training step against the size of the catalogue."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastpop import checks
from fastpop.data.interactions import Interactions
from fastpop.synthetic import LargeLog
from fastpop.text import aligned
from fastpop.training import TrainConfig, build
from fastpop.training.loop import train_step


class Steps:
    """Training steps of one catalogue, as `fastpop.train` makes them, one at a time.

    A factor model with log p frozen, sampled softmax with log Q, sparse gradients and row-wise Adam, unless
    options say otherwise, on a `fastpop.synthetic.LargeLog`: popular rows are scattered over the table.
    """

    def __init__(
        self,
        num_items: int,
        dim: int,
        negatives: int,
        batch: int,
        *,
        steps: int,
        seed: int = 0,
        **options: Any,
    ):
        checks.number("items", num_items, ge=2, integer=True)
        num_events = batch * steps
        made = LargeLog(num_events, num_items, max(num_events // 20, 2), groups=2, seed=seed)
        user, item, time_N = made.events().values()
        users, items = np.arange(made.num_users), np.arange(num_items)
        log = Interactions.from_arrays(user, item, time_N, user_ids=users, item_ids=items)
        config = TrainConfig(
            encoder="factor", dim=dim, num_negatives=negatives, batch_size=batch, seed=seed, **options
        )
        log_prior_V = np.log((log.item_counts() + 1) / (num_events + num_items))
        self.parts = build.assemble(config, log, log, log_prior_V)
        self._rows, self._step = self.parts.epoch(0), 0

    def step(self) -> tuple[float, float]:
        """(seconds, seconds of cores) of the next one."""
        rows = next(self._rows)
        start, cores = time.perf_counter(), time.process_time()
        train_step(self.parts, rows, self._step)
        self._step += 1
        return time.perf_counter() - start, time.process_time() - cores


def time_steps(
    items: Sequence[int],
    dim: int,
    negatives: int,
    batch: int,
    *,
    rounds: int = 15,
    seed: int = 0,
    threads: int = 0,
) -> list[dict[str, Any]]:
    """One row a catalogue size: the median time of a training step of `Steps`.

    Args:
        items: catalogue sizes V. dim: D. negatives: K, shared by the batch. batch: B.
        rounds: steps timed, after three that are not.
        threads: of torch and of the kernels; 0: as many as torch has.
    Returns:
        dicts with items, dim, negatives, batch, seconds_per_step, examples_per_second.
    """
    for name, value in (("dim", dim), ("negatives", negatives), ("batch", batch), ("rounds", rounds)):
        checks.number(name, value, ge=1, integer=True)
    if not items:
        raise checks.wrong("items", "at least one catalogue size", list(items))
    checks.number("threads", threads, ge=0, integer=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return [_row(int(num_items), dim, negatives, batch, rounds, seed) for num_items in items]
    finally:
        torch.set_num_threads(before)


def _row(num_items: int, dim: int, negatives: int, batch: int, rounds: int, seed: int) -> dict[str, Any]:
    steps = Steps(num_items, dim, negatives, batch, steps=rounds + 3, seed=seed)
    median = float(np.median([steps.step()[0] for _ in range(rounds + 3)][3:]))
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
