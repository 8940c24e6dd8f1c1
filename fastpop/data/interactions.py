"""Interactions: a frozen log of events with dense ids, sorted by user and time.

Made by `read_log` from files and frames, or by `Interactions.from_arrays` from arrays alone
(which needs numpy and nothing else). Ids are converted here, at the edges, and nowhere behind.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import array_like, float_array, ids_in_range, number, wrong, wrong_type
from fastpop.data import columns
from fastpop.data import ids as edge
from fastpop.data.csr import Csr
from fastpop.data.paths import local_path
from fastpop.data.rejected import Rejected
from fastpop.data.store import COLUMNS, load_log, open_log, save_log
from fastpop.frozen import deep_frozen, frozen_array

FAR = 100_000_000_000  # seconds: the year 5138; larger numbers are in another unit


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events of users on items, sorted by (user, time, source row); every array is read-only.

    Attributes:
        user: [N] whole numbers, dense user index; rises.
        item: [N] whole numbers, dense item index. int64 where the log was made in memory; a log
            that is opened from a folder has the narrowest of uint8, uint16, uint32 and int64
            (do arithmetic on them in int64).
        time: [N] int64 seconds since 1970 (UTC), or None where the log has no times.
        weight: [N] float64 ≥ 0, or None; multiplies counts and the loss.
        row: [N] whole numbers, 0-based row in the source, rows that were rejected not counted.
            Events of a user at the same time stand in the order of their rows.
        user_ids, item_ids: [U], [V] original ids in rising order, int64 or str; the position is
            the dense index. Items without an event may be in the catalogue. Text of an opened log
            is decoded where it is asked for (`numpy.asarray` gives all of it).
        offsets: [U+1] int64; events of user u are slice(offsets[u], offsets[u+1]).
        has_order: False for a log with neither times nor an order of rows that means anything.
        facts: JSON-able account of the source, filters, and what was dropped and why; read-only.
        rejected: the rows skipped under on_bad_row="skip", or None.
        storage: where the columns of logs made from this one go: memory, or for an opened log
            temporary files without a name.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None
    weight: np.ndarray | None
    row: np.ndarray
    user_ids: Any
    item_ids: Any
    offsets: np.ndarray
    has_order: bool = True
    facts: dict = field(default_factory=dict)
    rejected: Rejected | None = None
    storage: columns.Memory = columns.MEMORY

    def __post_init__(self) -> None:
        for name in (*COLUMNS, "user_ids", "item_ids", "offsets"):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, frozen_array(value))
        object.__setattr__(self, "facts", deep_frozen(self.facts))

    @property
    def num_events(self) -> int:
        return int(self.user.shape[0])

    @property
    def num_users(self) -> int:
        return int(self.user_ids.shape[0])

    @property
    def num_items(self) -> int:
        return int(self.item_ids.shape[0])

    def __len__(self) -> int:
        return self.num_events

    def __repr__(self) -> str:
        return f"Interactions({self.num_events:,} events, {self.num_users:,} users, {self.num_items:,} items)"

    @classmethod
    def from_arrays(
        cls,
        user: Any,
        item: Any,
        time: Any = None,
        weight: Any = None,
        *,
        user_ids: Any = None,
        item_ids: Any = None,
        ordered: bool = True,
        facts: dict | None = None,
    ) -> "Interactions":
        """`order = np.lexsort((time, user))`, dense ids by `np.unique`, offsets by `np.bincount`.

        Needs numpy only: the way in on machines without duckdb.

        Args:
            user, item: [N] original ids, all whole numbers or all strings; with `user_ids`
                (`item_ids`) given, dense indices into it instead.
            time: [N] whole or real seconds, or datetime64; None: rows stand in order.
            weight: [N] finite, ≥ 0.
            user_ids, item_ids: the catalogue, in rising order without repeats. May name users
                and items that have no event.
            ordered: False says that without `time` the order of rows means nothing.
            facts: JSON-able notes to keep with the log.
        Returns:
            Interactions. Real seconds order the events and are then rounded down.
        Raises:
            ValueError, TypeError: lengths differ, an id is missing or of another kind, a time is
                not finite, a weight is negative or not finite.
        Cost: O(N log N) time, four copies of N numbers.
        """
        user_ids, user_N = _dense("user", user, "user_ids", user_ids)
        item_ids, item_N = _dense("item", item, "item_ids", item_ids)
        if user_N.shape != item_N.shape:
            raise wrong("item", f"as many entries as user ({user_N.size})", text=f"{item_N.size}")
        tick_N = None if time is None else _ticks(time, user_N.size)
        weight_N = None if weight is None else _weights(weight, user_N.size)
        order = np.lexsort((user_N,) if tick_N is None else (tick_N, user_N))
        time_N = None if tick_N is None else np.floor(tick_N[order]).astype(np.int64)
        return cls._sorted(
            user_N[order],
            item_N[order],
            time_N,
            None if weight_N is None else weight_N[order],
            order.astype(np.int64, copy=False),
            user_ids,
            item_ids,
            has_order=bool(ordered) or time_N is not None,
            facts={"source": "arrays"} if facts is None else facts,
        )

    @classmethod
    def _sorted(
        cls,
        user: Any,
        item: Any,
        time: np.ndarray | None,
        weight: np.ndarray | None,
        row: Any,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        **rest: Any,
    ) -> "Interactions":
        """From arrays already sorted by (user, time, row)."""
        offsets = columns.csr_offsets(user, user_ids.shape[0])
        return cls(user, item, time, weight, row, user_ids, item_ids, offsets, **rest)

    def item_counts(self, *, first_events: bool = True) -> np.ndarray:
        """`np.bincount(item, weight, minlength=V)`: float64 [V], weighted if the log is.

        first_events=False leaves out each user's first event, which nothing comes before: what is
        left are the events that a sequence model predicts.
        """
        if first_events:
            return columns.bincount(self.item, self.num_items, self.weight).astype(np.float64)
        count_V = np.zeros(self.num_items)
        first = self.offsets[:-1][np.diff(self.offsets) > 0]
        for at in columns.pieces(self.num_events):
            size = at.stop - at.start
            weight = np.ones(size) if self.weight is None else np.array(self.weight[at])
            begin, end = np.searchsorted(first, (at.start, at.stop))
            weight[first[begin:end] - at.start] = 0.0
            np.add.at(count_V, self.item[at], weight)
            columns.let_go(self.item[at], None if self.weight is None else self.weight[at])
        return count_V

    @property
    def items_by_user(self) -> Csr:
        """The items of each user's events, in order; nothing is copied."""
        return Csr(self.offsets, self.item)

    def user_counts(self) -> np.ndarray:
        """`np.diff(offsets)`: int64 [U], events of each user, without weights."""
        return np.diff(self.offsets)

    def history(self, user: int) -> np.ndarray:
        """`item[offsets[user]:offsets[user + 1]]`: int64 [n], in order; `user` is a dense index."""
        number("user", user, ge=0, le=self.num_users - 1, integer=True)
        mine = self.item[self.offsets[user] : self.offsets[user + 1]]
        return frozen_array(mine.astype(np.int64, copy=False))

    def with_facts(self, **facts: Any) -> "Interactions":
        """The same log, told apart by further facts."""
        return replace(self, facts={**self.facts, **facts})

    def take(self, mask_or_index: Any) -> "Interactions":
        """The chosen events over the same ids and catalogue, in the log's own order.

        Args:
            mask_or_index: bool [N], or whole numbers in [0, N) (sorted here; repeats repeat).
        Raises:
            ValueError: wrong length or an index out of range. TypeError: neither kind.
        """
        chosen = array_like("mask_or_index", mask_or_index)
        chosen = chosen.detach().cpu().numpy() if hasattr(chosen, "detach") else chosen
        if chosen.dtype == bool:
            if chosen.shape != self.user.shape:
                raise wrong("mask_or_index", f"shape [{self.num_events}]", chosen)
            size = int(np.count_nonzero(chosen))
        else:
            if chosen.size == 0:
                chosen = np.zeros(0, dtype=np.int64)
            elif chosen.dtype.kind not in "iu" or chosen.ndim != 1:
                raise wrong_type("mask_or_index", "a 1-d array of bool or whole numbers", chosen)
            ids_in_range("mask_or_index", chosen, self.num_events)
            chosen, size = np.sort(chosen), chosen.size
        user, item, time, weight, row = (
            None if column is None else self._picked(column, chosen, size)
            for column in (self.user, self.item, self.time, self.weight, self.row)
        )
        return self._sorted(
            user,
            item,
            time,
            weight,
            row,
            self.user_ids,
            self.item_ids,
            has_order=self.has_order,
            facts=self.facts,
            rejected=self.rejected,
            storage=self.storage,
        )

    def _picked(self, column: np.ndarray, chosen: np.ndarray, size: int) -> np.ndarray:
        """`column[chosen]` of `size` entries, a piece at a time."""
        out = self.storage.empty(size, column.dtype)
        filled = 0
        for at in columns.pieces(chosen.size):
            part = column[at][chosen[at]] if chosen.dtype == bool else column[chosen[at]]
            out[filled : filled + part.size] = part
            columns.let_go(column[at], out[filled : filled + part.size])
            filled += part.size
        return out

    def k_core(self, min_user: int = 5, min_item: int = 5) -> "Interactions":
        """Drop users and items with too few events until none is left to drop; ids become dense
        again. The counts see the whole log, test events too, and `facts` say so.

        Args:
            min_user, min_item: least number of events, ≥ 1 (repeats count, weights do not).
        Raises:
            ValueError: nothing is left.
        Cost: O(N) a round; a handful of rounds on real logs. One byte per event beside the result.
        """
        number("min_user", min_user, ge=1, integer=True)
        number("min_item", min_item, ge=1, integer=True)
        keep = np.ones(self.num_events, dtype=bool)
        rounds, left = 0, self.num_events
        while True:
            user_U, item_V = self._kept_counts(keep)
            good_U, good_V = user_U >= min_user, item_V >= min_item
            for at in columns.pieces(self.num_events):
                keep[at] &= good_U[self.user[at]] & good_V[self.item[at]]
                columns.let_go(self.user[at], self.item[at])
            rounds += 1
            if (still := int(np.count_nonzero(keep))) == left:
                break
            left = still
        if not left:
            raise wrong(
                "min_user, min_item",
                "a core with events left in it",
                text=f"({min_user}, {min_item}), which drops all {self.num_events} events",
            )
        taken = self.take(keep)
        old_user, old_item = np.flatnonzero(user_U), np.flatnonzero(item_V)
        renamed = {}
        for name, old, size in (("user", old_user, self.num_users), ("item", old_item, self.num_items)):
            column = getattr(taken, name)
            new = np.zeros(size, dtype=column.dtype)
            new[old] = np.arange(old.size)
            renamed[name] = columns.mapped_through(new, column, self.storage.empty(column.size, column.dtype))
        facts = {
            **self.facts,
            "k_core": {
                "min_user_events": int(min_user),
                "min_item_events": int(min_item),
                "rounds": rounds,
                "dropped_events": int(self.num_events - left),
                "dropped_users": int(self.num_users - old_user.size),
                "dropped_items": int(self.num_items - old_item.size),
                "saw_test_events": True,
            },
        }
        return self._sorted(
            renamed["user"],
            renamed["item"],
            taken.time,
            taken.weight,
            taken.row,
            self.user_ids[old_user],
            self.item_ids[old_item],
            has_order=self.has_order,
            facts=facts,
            rejected=self.rejected,
            storage=self.storage,
        )

    def _kept_counts(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Events that are kept, of each user and of each item."""
        user_U = np.zeros(self.num_users, dtype=np.int64)
        item_V = np.zeros(self.num_items, dtype=np.int64)
        for users, at in columns.user_pieces(self.offsets):
            user = self.user[at][keep[at]].astype(np.int64) - users.start
            user_U[users] = np.bincount(user, minlength=users.stop - users.start)
            item_V += np.bincount(self.item[at][keep[at]], minlength=self.num_items)
        return user_U, item_V

    def encode_users(self, ids: Any) -> np.ndarray:
        """`np.searchsorted(user_ids, ids)`: int64 [n]; ValueError names an id the log lacks."""
        return edge.encode("users", self.user_ids, ids)

    def encode_items(self, ids: Any) -> np.ndarray:
        """`np.searchsorted(item_ids, ids)`: int64 [n]; ValueError names an id the log lacks."""
        return edge.encode("items", self.item_ids, ids)

    def decode_users(self, index: Any) -> np.ndarray:
        """`user_ids[index]`: original ids in the shape of `index`."""
        return _decode("index", self.user_ids, index)

    def decode_items(self, index: Any) -> np.ndarray:
        """`item_ids[index]`: original ids in the shape of `index`."""
        return _decode("index", self.item_ids, index)

    def save(self, folder: str | Path) -> Path:
        """Write a prepared folder: .npy files of the columns in the narrowest types that hold the
        ids, the ids, log.json with a checksum of each (and rejected.csv where rows were skipped),
        all or nothing.

        Everything goes to a hidden folder beside it, which is then renamed: a crash leaves the
        old folder. An existing folder is replaced only if it is a saved log or empty. `~` is the
        home folder; nothing else in the path means anything.

        Raises:
            FileExistsError: the folder holds something else. OSError: it cannot be written, or
                another process writes it now; names the folder.
        """
        return save_log(self, local_path(folder, "folder"))

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> "Interactions":
        """Map what `save` or `fastpop prepare` wrote: a log of any length, at once, with almost
        nothing in memory. All that takes a log takes this one.

        Args:
            folder: the prepared folder. It may be replaced while the log is in use, but not
                changed.
            verify: read every byte once and compare checksums, order and ranges; otherwise only
                log.json's own checksum and each file's size and header are checked.
        Raises:
            FileNotFoundError: no such folder. ValueError: not a saved log, or a damaged one;
                says which file and what is wrong.
        """
        return open_log(cls, local_path(folder, "folder"), verify)

    @classmethod
    def load(cls, folder: str | Path) -> "Interactions":
        """Read what `save` wrote into memory, and verify sizes, checksums, order and ranges.

        Raises: as `open`.
        """
        return load_log(cls, local_path(folder, "folder"))


def _dense(name: str, value: Any, ids_name: str, ids: Any) -> tuple[np.ndarray, np.ndarray]:
    if ids is None:
        return edge.densify(name, value)
    ids = edge.catalogue(ids_name, ids)
    index = edge.id_array(name, value)
    if index.dtype.kind == "O":
        raise wrong_type(name, f"dense indices, since {ids_name} is given", index)
    ids_in_range(name, index, ids.size)
    return ids, index


def _ticks(time: Any, size: int) -> np.ndarray:
    """Times as numbers of seconds that sort right: int64, or float64 where they have fractions."""
    value = array_like("time", time, objects=True)
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if array.dtype.kind == "O":
        array = _moments("time", array)
    if array.shape != (size,):
        raise wrong("time", f"shape [{size}]", array)
    if array.dtype.kind == "M":
        missing = np.isnat(array)
        if missing.any():
            raise wrong("time", "no missing times", text=f"NaT at position {int(missing.argmax())}")
        return array.astype("datetime64[us]").astype(np.int64) / 1e6
    if array.dtype.kind in "iu":
        if size and int(array.max()) >= FAR:
            raise wrong("time", "seconds before the year 5138", text=f"{int(array.max())}")
        return array.astype(np.int64)
    narrow = array.dtype.kind == "f" and array.dtype.itemsize < 8
    if narrow and size and np.abs(array).max() > 1 << (24 if array.dtype.itemsize == 4 else 11):
        raise wrong(
            "time",
            f"whole or float64 seconds ({array.dtype} has steps of "
            f"{np.spacing(np.abs(array).max()):g} s there)",
            text=f"{array.dtype}",
        )
    array = float_array("time", array, 1)
    if size and np.abs(array).max() >= FAR:
        raise wrong("time", "seconds before the year 5138", text=f"{array[np.abs(array).argmax()]:g}")
    return array


def _moments(argument: str, array: np.ndarray) -> np.ndarray:
    """Numbers as they are; datetime objects as datetime64, those without a zone taken as UTC."""
    if not all(isinstance(one, datetime) for one in array.flat):
        return array
    told = [one.astimezone(UTC).replace(tzinfo=None) if one.tzinfo else one for one in array]
    return np.array(told, dtype="datetime64[us]")


def _weights(weight: Any, size: int) -> np.ndarray:
    array = float_array("weight", weight, 1)
    if array.shape != (size,):
        raise wrong("weight", f"shape [{size}]", array)
    if array.size and array.min() < 0:
        at = int((array < 0).argmax())
        raise wrong("weight", "numbers >= 0", text=f"{array[at]} at position {at}")
    return array.copy()


def _decode(name: str, ids: np.ndarray, index: Any) -> np.ndarray:
    value = array_like(name, index)
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if array.size and array.dtype.kind not in "iu":
        raise wrong_type(name, "whole numbers", array)
    ids_in_range(name, array, ids.size)
    return ids[array.astype(np.int64)]
