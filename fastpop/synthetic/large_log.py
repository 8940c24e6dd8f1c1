# ruff: noqa: N802 -- properties are named by their dimensions, as arrays are
"""A log of any length whose every distribution is known, for work at the size of a large catalogue.

Item of rank r = 0..V-1 is drawn with p(r) ~ (r + 1)^-zipf, whatever went before: the marginal. It is of
group g = r mod G, and who meets it is drawn then: a user of group k = g + x mod G with

    w(x) ~ exp(strength cos(2 pi x / G)),  users of a group alike

so p(k) = sum_g P_g w(k - g), P_g the mass of group g, and with nothing left out

    PMI(user of group k, item of group g) = log w(k - g) - log p(k)
    log p(item | user) = log p(item) + PMI

Two dimensions hold the personal signal, log p the rest. Item ids are ranks scattered over the catalogue
(times a number that has no divisor with V), so that popular rows of a table do not lie side by side.
Event n is a function of (seed, n), so the log is made in pieces of any size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import bars, checks, files
from fastpop.data.columns import narrowest
from fastpop.data.paths import local_path
from fastpop.ops.alias_table import MAX_ITEMS, AliasTable, table_of

BLOCK = 1 << 16  # events of one counter of the generators
ROW_GROUP = 1 << 20  # events of a row group of the file
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class LargeLog:
    """The model above, and what a log of it holds. Made by `large_log`, or from its numbers to draw from.

    num_events, num_items, num_users: N, V, U. zipf, groups, strength, seed: as in `large_log`.
    start, span: the first second, and how many the log covers.
    """

    num_events: int
    num_items: int
    num_users: int
    zipf: float = 1.0
    groups: int = 32
    strength: float = 2.0
    seed: int = 0
    start: int = 1_700_000_000
    span: int = 30_000_000

    def __post_init__(self) -> None:
        checks.number("span", self.span, ge=1, integer=True)
        checks.number("num_events", self.num_events, ge=1, le=(2**63 - 1) // self.span, integer=True)
        checks.number("num_items", self.num_items, ge=2, le=MAX_ITEMS, integer=True)
        checks.number("groups", self.groups, ge=2, integer=True)
        checks.number("num_users", self.num_users, ge=self.groups, le=2**53, integer=True)
        checks.number("zipf", self.zipf, ge=0)
        checks.number("strength", self.strength, ge=0, le=100)
        checks.number("seed", self.seed, ge=0, le=2**64 - 1, integer=True)
        checks.number("start", self.start, integer=True)

    @cached_property
    def _step(self) -> int:
        """What ranks are multiplied with: near the golden section of V, without a divisor with it."""
        step = max(1, round(self.num_items * GOLDEN))
        while gcd(step, self.num_items) > 1:
            step += 1
        return step

    @cached_property
    def _table(self) -> AliasTable:
        """By rank."""
        table_V2, log_p_V = table_of(np.arange(1.0, self.num_items + 1.0) ** -self.zipf)
        return AliasTable(self.num_items, log_p_V, table_V2)

    @cached_property
    def _shift_G(self) -> np.ndarray:
        """w(x), x = 0..G-1, sums to 1."""
        w_G = np.exp(self.strength * (np.cos(2 * np.pi * np.arange(self.groups) / self.groups) - 1))
        return w_G / w_G.sum()

    @cached_property
    def item_group_probability_G(self) -> np.ndarray:
        """P_g: mass of the items of each group."""
        p_V = np.exp(self._table.log_proposal_V)
        return np.bincount(np.arange(self.num_items) % self.groups, p_V, self.groups)

    @cached_property
    def user_group_probability_G(self) -> np.ndarray:
        """p(k): mass of the events of each group's users."""
        shift_GG = (np.arange(self.groups)[:, None] - np.arange(self.groups)) % self.groups
        return self._shift_G[shift_GG] @ self.item_group_probability_G

    @property
    def log_prior_V(self) -> np.ndarray:
        """log p(i) by item id, float64, nats: of what is drawn, to its last bit. Made at each call."""
        return self._table.log_proposal_V[self.rank(np.arange(self.num_items))]

    def rank(self, items: Any) -> np.ndarray:
        """Ranks of item ids, 0 the most popular."""
        return np.asarray(items, np.int64) * pow(self._step, -1, self.num_items) % self.num_items

    def item(self, ranks: Any) -> np.ndarray:
        """Item ids of ranks."""
        return np.asarray(ranks, np.int64) * self._step % self.num_items

    def pmi(self, users: Any, items: Any) -> np.ndarray:
        """log p(item | user) - log p(item), nats: what the best personal score is, beside log p."""
        group_k = np.asarray(users, np.int64) % self.groups
        shift = (group_k - self.rank(items) % self.groups) % self.groups
        return np.log(self._shift_G[shift]) - np.log(self.user_group_probability_G[group_k])

    @property
    def entropy(self) -> float:
        """Of the marginal, nats: the NLL of log p alone."""
        log_p_V = self._table.log_proposal_V
        return float(-np.sum(np.exp(log_p_V) * log_p_V, where=log_p_V > -np.inf))

    @property
    def mutual_information(self) -> float:
        """Of user and item, nats: entropy less this is the least NLL that any model has."""
        w_G, k_G = self._shift_G, self.user_group_probability_G
        return float(w_G @ np.log(w_G) - k_G @ np.log(k_G))

    def events(self, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """{"user", "item", "time"}: int64 [stop - start], those events of the log, whatever else is drawn.

        Users are 0..U-1, of group user mod G; times rise evenly. Cost: some 60 ns an event, and once the
        alias table's: 50 ns an item, 24 bytes of it while that is made, 16 afterwards.
        """
        stop = self.num_events if stop is None else stop
        checks.number("start", start, ge=0, le=self.num_events, integer=True)
        checks.number("stop", stop, ge=start, le=self.num_events, integer=True)
        drawn = [self._block(n) for n in range(start // BLOCK, -(-stop // BLOCK))]
        first = start // BLOCK * BLOCK
        found = {
            name: np.concatenate([np.empty(0, np.int64), *(block[name] for block in drawn)])[
                start - first : stop - first
            ]
            for name in ("user", "item")
        }
        found["time"] = self.start + np.arange(start, stop) * self.span // self.num_events
        return found

    def _block(self, number: int) -> dict[str, np.ndarray]:
        rank_n = self._table.sample(self.seed, number, BLOCK)
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, number, 0, 0]))
        shift_u, own_u = generator.random((2, BLOCK))
        # The last bin takes what rounding leaves of 1.
        shift = np.searchsorted(np.cumsum(self._shift_G)[:-1], shift_u, side="right")
        group = (rank_n + shift) % self.groups
        of_group = (self.num_users - 1 - group) // self.groups + 1  # users of it
        nth = np.minimum((own_u * of_group).astype(np.int64), of_group - 1)
        return {"user": group + self.groups * nth, "item": self.item(rank_n)}


def large_log(
    num_events: int,
    num_items: int,
    out: str | Path,
    *,
    num_users: int | None = None,
    zipf: float = 1.0,
    groups: int = 32,
    strength: float = 2.0,
    seed: int = 0,
    chunk: int = ROW_GROUP,
    progress: bool | None = None,
) -> LargeLog:
    """Write a log with a Zipf marginal and a personal signal, both known exactly, to one parquet file.

    `fastpop prepare FILE --user user --item item --time time --out FOLDER`, or `fastpop.read_log`, reads it.

    Args:
        num_events, num_items: N and V. Items that are not drawn are in no row.
        out: the file, replaced where there is one. Columns user, item, time (seconds), whole numbers.
        num_users: U; None: one for twenty events. They are alike within a group.
        zipf: exponent of the marginal, >= 0.
        groups: G, of users and of items. strength: of the association, 0: none.
        seed: the log is a function of it and of the numbers above.
        chunk: events drawn at once, >= 1; the bytes of the file are the same whatever it is.
        progress: show a bar; None shows one on a terminal or in a notebook.
    Returns:
        LargeLog: log_prior_V, pmi(users, items), entropy, mutual_information, events(start, stop).
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came. ImportError: without pyarrow.
        OSError: the file cannot be written; what was there stays.
    Cost: as `LargeLog.events`, and 24 bytes an event of a chunk and of a row group (1,048,576 events); about
        9 bytes an event on disk.
    """
    if num_users is None:
        checks.number("num_events", num_events, ge=1, integer=True)
        num_users = max(num_events // 20, groups)
    log = LargeLog(num_events, num_items, num_users, float(zipf), groups, float(strength), seed)
    checks.number("chunk", chunk, ge=1, integer=True)
    place = local_path(out, "out")
    checks.needed("pyarrow", "arrow", "writing a large log")
    import pyarrow
    from pyarrow import parquet

    kinds = {"user": narrowest(num_users), "item": narrowest(num_items), "time": np.dtype(np.int64)}
    schema = pyarrow.schema([(name, pyarrow.from_numpy_dtype(kind)) for name, kind in kinds.items()])
    with (
        files.atomic_file(place, "wb") as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
        bars.progress_bar(num_events, "write", show=progress, unit=" events") as bar,
    ):
        for group in _row_groups(log, chunk):
            arrays = [pyarrow.array(group[name].astype(kind)) for name, kind in kinds.items()]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), row_group_size=ROW_GROUP)
            bar.update(group["user"].size)
    return log


def _row_groups(log: LargeLog, chunk: int) -> Iterator[dict[str, np.ndarray]]:
    """The log in pieces of ROW_GROUP, drawn in pieces of `chunk`."""
    for first in range(0, log.num_events, ROW_GROUP):
        last = min(first + ROW_GROUP, log.num_events)
        parts = [log.events(at, min(at + chunk, last)) for at in range(first, last, chunk)]
        yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
