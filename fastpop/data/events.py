"""Good rows of a reading → events in order: dense ids, and one counting sort a range of users.

`Events.slices` hands the sorted columns out in order, a few megabytes at a time, so that a log larger
than memory can go to a file; `Events.arrays` fills whole arrays, which lie in an unlinked file where
they are larger than the budget allows.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import files
from fastpop.checks import wrong
from fastpop.data import columns as columns_on_disk
from fastpop.data.faults import BAD_BEHAVIOR, Faults, Times, used_codes
from fastpop.data.presets import UNITS, Preset
from fastpop.data.staging import Piece, Reading
from fastpop.data.text_ids import TextIds
from fastpop.data.workbench import Workbench
from fastpop.ops import event_order, log_rows
from fastpop.ops.event_order import DROPPED, KEPT, REJECTED

SHARE_OF_RANGES = 0.25  # of the memory budget, for the ranges of users being sorted
RANGE = 1 << 26  # bytes of a range where memory is no question: more would miss the caches
SLICE = 1 << 20  # events handed out at a time, or what this share of the memory budget holds
SHARE_OF_SLICES = 0.1
SHARE_OF_ARRAYS = 0.5  # of the memory budget, before arrays lie in a file
MOST_ROWS = 2**32


def mark_behaviors(reading: Reading, layout: Preset, faults: Faults) -> tuple[list[str], list[np.ndarray]]:
    """(names of the kinds of event, for each reader the name's index of each code); a code that the
    preset does not know is a fault."""
    role = log_rows.ROLES.index("behavior")
    texts = [reader.texts(role) for reader in reading.readers]
    known = layout.behaviors or {text: text for part in texts for text in part}
    names = sorted(set(known.values()))
    index = {code: names.index(name) for code, name in known.items()}
    maps = [np.array([*(index.get(text, -1) for text in part), -1], dtype=np.int64) for part in texts]
    for piece in reading.pieces:
        codes = reading.columns.get(piece, "behavior")
        if codes is not None and layout.behaviors:
            faults.mark(piece, maps[piece.reader][codes] < 0, BAD_BEHAVIOR)
    return names, maps


def settle_fates(
    reading: Reading,
    faults: Faults,
    layout: Preset,
    kept: tuple[str, ...] | None,
    min_rating: float | None,
    facts: dict,
) -> bool:
    """Give every piece its rows' fates; returns whether all rows are kept."""
    by_name = layout.columns is not None and layout.columns.behavior is not None
    names, maps = mark_behaviors(reading, layout, faults) if by_name else ([], [])
    totals = np.zeros(len(names) + 1, dtype=np.int64)
    good = events = unwanted = unrated = 0
    for piece in reading.pieces:
        mask = faults.good(piece)
        fate = None if mask is None else np.where(mask, KEPT, REJECTED).astype(np.uint8)
        good += piece.rows if mask is None else int(mask.sum())
        if by_name and piece.rows:
            behavior = maps[piece.reader][_there(reading, piece, "behavior")]
            sound = behavior if mask is None else behavior[mask]
            totals += np.bincount(sound, minlength=totals.size)
            if kept is not None:
                fate, out = _drop(fate, ~np.isin(behavior, [names.index(n) for n in kept if n in names]))
                unwanted += out
        if min_rating is not None and piece.rows:
            low = ~(_there(reading, piece, "rating") >= min_rating)
            fate, out = _drop(fate, low)
            unrated += out
        piece.fate = fate
        events += piece.rows if fate is None else int((fate == KEPT).sum())
    if not good:
        raise wrong("source", "at least one good row", text="none: every row was rejected")
    if by_name:
        facts["behaviors"] = {name: int(n) for name, n in zip(names, totals) if n}
    if kept is not None:
        facts |= {"keep_behavior": list(kept), "dropped_by_behavior": unwanted}
    if min_rating is not None:
        facts |= {"min_rating": float(min_rating), "dropped_by_rating": unrated}
    if not events:
        raise wrong(
            "keep_behavior, min_rating",
            "filters that leave an event",
            text=f"({kept}, {min_rating}), which drop all {good}",
        )
    return all(piece.fate is None for piece in reading.pieces)


def _drop(fate: np.ndarray | None, out: np.ndarray) -> tuple[np.ndarray, int]:
    if fate is None:
        fate = np.zeros(out.size, dtype=np.uint8)
    dropped = out & (fate == KEPT)
    fate[dropped] = DROPPED
    return fate, int(dropped.sum())


def _there(reading: Reading, piece: Piece, name: str) -> np.ndarray:
    column = reading.columns.get(piece, name)
    assert column is not None
    return column


@dataclass
class Events:
    """Events that can be handed out in order.

    Attributes:
        user_ids, item_ids: original ids in rising order.
        offsets: int64 [U + 1], events of each user.
    """

    reading: Reading
    times: Times
    weighted: bool
    user_ids: np.ndarray | TextIds
    item_ids: np.ndarray | TextIds
    offsets: np.ndarray
    first_rows: list[int]

    @classmethod
    def of(
        cls,
        reading: Reading,
        times: Times,
        weighted: bool,
        whole: dict[str, bool],
        all_kept: bool,
        by_session: bool,
    ) -> "Events":
        """Dense ids over what is kept."""
        keep = None
        if not all_kept or any(len(piece.faults) for piece in reading.pieces):
            keep = {p.number: None if p.fate is None else p.fate == KEPT for p in reading.pieces}
        ids: dict[str, np.ndarray | TextIds] = {}
        maps: dict[str, list[np.ndarray]] = {}
        with ThreadPoolExecutor(2) as pool:
            roles = [role for role in ("user", "item") if not (role == "user" and by_session)]
            jobs = {
                role: pool.submit(
                    log_rows.dense_ids, reading.readers, role, used_codes(reading, role, keep), whole[role]
                )
                for role in roles
            }
            for role, job in jobs.items():
                found, maps[role] = job.result()
                ids[role] = found if whole[role] else TextIds(*found)
        reading.readers.clear()  # their texts are the ids now
        if by_session:
            ids["user"] = _number_sessions(reading)
        counts = np.zeros(ids["user"].size, dtype=np.int64)
        first_rows, row = [], 0
        for piece in reading.pieces:
            first_rows.append(row)
            row += piece.rows if piece.fate is None else int((piece.fate != REJECTED).sum())
            for role, tables in maps.items():
                codes = reading.columns.get(piece, role)
                if codes is not None:
                    event_order.map_codes(tables[piece.reader], codes)
                    reading.columns.replace(piece, role, codes)
            event_order.count_events(_rows(reading, piece, 0, False), counts)
        if row >= MOST_ROWS:
            raise wrong("source", f"fewer than {MOST_ROWS:,} rows", text=f"{row:,}")
        offsets = np.zeros(counts.size + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        return cls(reading, times, weighted, ids["user"], ids["item"], offsets, first_rows)

    @property
    def num_events(self) -> int:
        return int(self.offsets[-1])

    @property
    def columns(self) -> dict[str, type]:
        """Names and types of what `slices` gives."""
        kinds: dict[str, type] = {"user": np.int64, "item": np.int64, "row": np.int64}
        if self.times.kind != "none":
            kinds["time"] = np.int64
        if self.weighted:
            kinds["weight"] = np.float64
        return kinds

    @property
    def row_bytes(self) -> int:
        return sum(np.dtype(kind).itemsize for kind in self.columns.values())

    def storage(self, bench: Workbench) -> columns_on_disk.Memory:
        """Where `arrays` lie, and what is made of them."""
        large = self.num_events * self.row_bytes > SHARE_OF_ARRAYS * bench.budget
        return columns_on_disk.DISK if large else columns_on_disk.MEMORY

    def arrays(self, bench: Workbench) -> dict[str, np.ndarray]:
        """The sorted columns, in memory or, where they are large for the budget, in a mapped file."""
        with bench.bar("sort", self.num_events, " events") as bar:
            if self.storage(bench) is columns_on_disk.DISK:
                return self._mapped(bench, bar)
            arrays: dict[str, np.ndarray] = {
                name: np.empty(self.num_events, dtype=kind) for name, kind in self.columns.items()
            }

            def fill(first: int, last: int) -> int:
                self._finish(
                    self._range(first, last),
                    first,
                    last,
                    {name: array[self.offsets[first] : self.offsets[last]] for name, array in arrays.items()},
                )
                return int(self.offsets[last] - self.offsets[first])

            self._in_turn(bench, RANGE, fill, bar.update)
        return arrays

    def slices(self, bench: Workbench) -> Iterator[dict[str, np.ndarray]]:
        """The sorted columns in order, some users at a time."""
        rows = max(1 << 12, min(SLICE, int(SHARE_OF_SLICES * bench.budget / self.row_bytes)))
        for first, last in self._ranges(bench, SHARE_OF_RANGES * bench.budget):
            part = self._range(first, last)
            for a, b in self._cut(first, last, rows):
                size = int(self.offsets[b] - self.offsets[a])
                columns: dict[str, np.ndarray] = {
                    name: np.empty(size, dtype=kind) for name, kind in self.columns.items()
                }
                self._finish(part, a, b, columns)
                yield columns
            del part  # before the next one takes its room

    def _mapped(self, bench: Workbench, bar: Any) -> dict[str, np.ndarray]:
        """Arrays in a file that goes when they do: the scratch folder's name for it goes first."""
        path = bench.folder / "events"
        starts, end = {}, 0
        for name, kind in self.columns.items():
            starts[name] = end
            end += self.num_events * np.dtype(kind).itemsize
        with files.temporary(bench.folder), path.open("w+b") as file:
            file.truncate(end)
            done = 0
            for columns in self.slices(bench):
                for name, column in columns.items():
                    file.seek(starts[name] + done * column.itemsize)
                    file.write(column.data)
                done += columns["user"].size
                bar.update(columns["user"].size)
            file.flush()
            return {
                name: columns_on_disk.mapped(file, kind, self.num_events, starts[name])
                for name, kind in self.columns.items()
            }

    def _in_turn(self, bench: Workbench, size: int, work: Any, advance: Any) -> None:
        pool = ThreadPoolExecutor(bench.threads)
        try:
            jobs = [
                pool.submit(work, first, last)
                for first, last in self._ranges(bench, min(size, SHARE_OF_RANGES * bench.budget))
            ]
            for job in jobs:
                advance(job.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ranges(self, bench: Workbench, size: float) -> Iterator[tuple[int, int]]:
        """Ranges of users, each with events of about `size` bytes while it is sorted."""
        rows = max(1, int(size / (24 if self.weighted else 16)))
        return self._cut(0, self.offsets.size - 1, max(rows, 1 << 12))

    def _cut(self, first: int, last: int, rows: int) -> Iterator[tuple[int, int]]:
        """Users [first, last) in parts of about `rows` events, one user at least."""
        while first < last:
            stop = int(np.searchsorted(self.offsets, self.offsets[first] + rows, side="right")) - 1
            stop = min(max(stop, first + 1), last)
            yield first, stop
            first = stop

    def _range(self, first: int, last: int) -> Any:
        part = event_order.EventRange(self.offsets, first, last, self.weighted)
        for piece, first_row in zip(self.reading.pieces, self.first_rows):
            if piece.rows:
                timed = self.times.kind != "none"
                part.add(_rows(self.reading, piece, first_row, True, timed, self.weighted))
        return part

    def _finish(self, part: Any, first: int, last: int, columns: dict[str, np.ndarray]) -> None:
        part.finish(
            first=first,
            last=last,
            per_second=self.times.per_second,
            real=self.times.real,
            unit=UNITS[self.times.unit],
            user=columns["user"],
            item=columns["item"],
            time=columns.get("time"),
            weight=columns.get("weight"),
            row=columns["row"],
        )


def _rows(
    reading: Reading, piece: Piece, first_row: int, whole: bool, timed: bool = False, weighted: bool = False
) -> tuple:
    """A piece as the sort takes it; without `whole`, its users alone."""
    get = reading.columns.get
    return (
        piece.rows,
        first_row,
        get(piece, "user"),
        get(piece, "item") if whole else None,
        get(piece, "tick") if timed else None,
        get(piece, "weight") if weighted else None,
        piece.fate,
    )


def _number_sessions(reading: Reading) -> np.ndarray:
    """Users of sessions are lines: their numbers, over all inputs; the column of users follows."""
    before = 0
    starts = []
    one = None
    end = 0
    for piece in reading.pieces:
        if piece.input is not one:
            one, before = piece.input, end
        starts.append(before + piece.first_line)
        end = before + piece.first_line + piece.found["lines"] - piece.found.get("trailing", 0)
    has_events = np.zeros(end + 1, dtype=bool)
    for piece, start in zip(reading.pieces, starts):
        if piece.rows:
            lines = start + piece.found["line"]
            has_events[lines if piece.fate is None else lines[piece.fate == KEPT]] = True
    dense = np.cumsum(has_events) - 1
    for piece, start in zip(reading.pieces, starts):
        if piece.rows:
            user = np.where(has_events[start + piece.found["line"]], dense[start + piece.found["line"]], -1)
            reading.columns.replace(piece, "user", user.astype(np.int32))
    return np.flatnonzero(has_events).astype(np.int64)
