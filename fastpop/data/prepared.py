"""The prepared folder: a log as .npy columns that are mapped, and one card with every checksum.

log.json            sizes, kinds, facts; bytes and SHA-256 of every file, and of itself
user.npy item.npy   [N] dense ids, the narrowest of uint8, uint16, uint32, int64
row.npy             [N] row in the source, likewise
time.npy weight.npy [N] int64 seconds, float64; where the log has them
offsets.npy         [U+1] int64
user_ids.npy        [U] int64, or user_ids.utf8.npy [bytes] and user_ids.offsets.npy [U+1]
item_ids…           likewise
rejected.csv        where rows were skipped
"""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Self

import numpy as np

from fastpop import files
from fastpop.checks import wrong, wrong_type
from fastpop.data import columns
from fastpop.data.text_ids import TextIds, encoded

FORMAT, VERSION, CARD, REJECTED = "fastpop interactions", 2, "log.json", "rejected.csv"
SIDES = ("user", "item")
KEYS = {
    "num_events",
    "num_users",
    "num_items",
    "has_order",
    "has_time",
    "has_weight",
    "user_ids",
    "item_ids",
    "files",
    "facts",
    "sha256",
}


def is_name_of_log(name: str) -> bool:
    """Whether a prepared folder may hold a file of this name."""
    column = r"(user|item|row|time|weight|offsets|(user|item)_ids(\.utf8|\.offsets)?)\.npy"
    return name in (CARD, REJECTED) or re.fullmatch(column, name) is not None


class PreparedWriter:
    """Writes a prepared folder slice by slice, in memory that does not grow with the log.

    First every id, in rising order (`add_ids` of both sides, as many slices as it takes); then
    every event, in the order of user, time, row (`add`, likewise); then `finish`. `with` closes its
    files, whatever happens. Give it the draft of `files.atomic_folder`, and what it wrote appears whole
    or not at all:

        with atomic_folder(folder) as draft, PreparedWriter(draft, time=True, weight=False) as out:
            out.add_ids("user", user_ids)
            out.add_ids("item", item_ids)
            for part in slices:
                out.add(part.user, part.item, part.row, time=part.time)
            out.finish(facts=facts)

    Args:
        folder: an empty folder. time, weight: whether the log has them.
        row_stop: all rows are below; lets `row` have its type at once instead of by a second pass.
    Raises:
        ValueError: ids or events out of order or out of range; says which. OSError: as the system
            says it.
    """

    def __init__(self, folder: Path, *, time: bool, weight: bool, row_stop: int | None = None) -> None:
        self.folder, self.has_time, self.has_weight = folder, time, weight
        self.row_stop = row_stop
        self.ids: dict[str, _Ids] = {side: _Ids(folder, side) for side in SIDES}
        self.columns: dict[str, _Column] = {}
        self.num_events = 0
        self.last: tuple[int, int] | None = None  # user and time of the event before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files of a log that was not finished."""
        for column in (*self.ids["user"].parts, *self.ids["item"].parts, *self.columns.values()):
            column.close()

    def add_ids(self, side: str, ids: Any) -> None:
        """The next ids of a side ("user", "item"): int64, or objects that are str."""
        if self.columns:
            raise wrong("ids", "every id before the first event", text=f"more of side {side!r}")
        self.ids[side].add(np.asarray(ids))

    def add(
        self,
        user: np.ndarray,
        item: np.ndarray,
        row: np.ndarray,
        *,
        time: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ) -> None:
        """The next events: [n] dense users and items, rows, times where the log has them."""
        if not self.columns:
            self._start()
        if len(user) == 0:
            return
        given = {"user": user, "item": item, "row": row}
        given |= {"time": time} if self.has_time else {}  # type: ignore[dict-item]
        given |= {"weight": weight} if self.has_weight else {}  # type: ignore[dict-item]
        self._check(given)
        for name, column in self.columns.items():
            column.write(given[name])
            columns.let_go(given[name])
        self._count(np.asarray(user, dtype=np.int64))
        self.num_events += len(user)

    def _start(self) -> None:
        size = {side: self.ids[side].finish() for side in SIDES}
        kinds: dict[str, Any] = {side: columns.narrowest(size[side]) for side in SIDES}
        kinds["row"] = np.int64 if self.row_stop is None else columns.narrowest(self.row_stop)
        kinds |= {"time": np.int64} if self.has_time else {}
        kinds |= {"weight": np.float64} if self.has_weight else {}
        self.size = size
        self.columns = {name: _Column(self.folder / f"{name}.npy", kind) for name, kind in kinds.items()}
        self.offsets = columns.DISK.empty(size["user"] + 1, np.int64)
        self.offsets[:] = 0

    def _check(self, given: dict[str, Any]) -> None:
        user = given["user"]
        for name, array in given.items():
            if array is None or len(array) != len(user):
                raise wrong(name, f"{len(user)} entries, as user", array)
        for side in SIDES:
            array = given[side]
            if array.min() < 0 or array.max() >= self.size[side]:
                raise wrong(
                    side, f"ids in [0, {self.size[side]})", text=f"{int(array.min())} to {int(array.max())}"
                )
        time = given.get("time")
        if (user[1:] < user[:-1]).any() or (self.last and int(user[0]) < self.last[0]):
            raise wrong("user", "users in order", text="others")
        if time is not None:
            back = (time[1:] < time[:-1]) & (user[1:] == user[:-1])
            joint = (
                self.last == (int(user[0]), self.last[1]) and int(time[0]) < self.last[1]
                if self.last
                else False
            )
            if back.any() or joint:
                raise wrong("time", "each user's events in order of time", text="others")
        row = given["row"]
        if row.min() < 0 or (self.row_stop is not None and row.max() >= self.row_stop):
            raise wrong("row", f"rows in [0, {self.row_stop})", text=f"{int(row.min())} to {int(row.max())}")
        if "weight" in given and not (np.isfinite(given["weight"]) & (given["weight"] >= 0)).all():
            raise wrong("weight", "finite numbers >= 0", text="others")
        self.last = int(user[-1]), 0 if time is None else int(time[-1])

    def _count(self, user: np.ndarray) -> None:
        first, last = int(user[0]), int(user[-1])
        self.offsets[first + 1 : last + 2] += np.bincount(user - first, minlength=last - first + 1)

    def finish(self, *, has_order: bool = True, facts: dict | None = None, rejected: Any = None) -> None:
        """Write what is left and the card. facts: JSON-able; rejected: `Rejected` or None."""
        if not self.columns:
            self._start()
        for name, column in self.columns.items():
            kind = columns.narrowest(column.largest + 1) if name == "row" else column.kind
            column.finish(kind)
        np.cumsum(self.offsets, out=self.offsets)
        with contextlib.closing(_Column(self.folder / "offsets.npy", np.int64)) as offsets:
            for at in columns.pieces(self.offsets.size):
                offsets.write(self.offsets[at])
            offsets.finish()
        if rejected is not None:
            rejected.save(self.folder / REJECTED)
        card = {
            "format": FORMAT,
            "version": VERSION,
            "num_events": self.num_events,
            "num_users": self.size["user"],
            "num_items": self.size["item"],
            "has_order": bool(has_order),
            "has_time": self.has_time,
            "has_weight": self.has_weight,
            "user_ids": self.ids["user"].kind,
            "item_ids": self.ids["item"].kind,
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
                for path in sorted(self.folder.iterdir())
            },
            "facts": facts or {},
        }
        (self.folder / CARD).write_text(card_text(card), encoding="ascii")


class _Column:
    """A .npy file that grows; its header is written again once its length is known."""

    def __init__(self, path: Path, kind: Any) -> None:
        self.path, self.kind = path, np.dtype(kind).newbyteorder("<")
        self.size, self.largest = 0, 0
        self.file = path.open("wb")
        self.file.write(_header(self.kind, 0))

    def write(self, array: Any) -> None:
        part = np.ascontiguousarray(array, dtype=self.kind)
        self.file.write(part.data)  # not tofile, which does not say why it failed
        self.size += part.size
        if self.kind.kind in "iu" and part.size:
            self.largest = max(self.largest, int(part.max()))

    def close(self) -> None:
        """Close a file that may not have been finished."""
        with contextlib.suppress(OSError):  # no room for what is left in it: that has been said
            self.file.close()

    def finish(self, narrow: Any = None) -> None:
        """Close the file; with a narrower type, write it once more."""
        header = _header(self.kind, self.size)
        self.file.seek(0)
        self.file.write(header)
        self.file.close()
        if narrow is None or np.dtype(narrow).itemsize >= self.kind.itemsize:
            return
        wide = self.path.with_suffix(".wide")
        self.path.rename(wide)
        with wide.open("rb") as file:
            column = columns.mapped(file, self.kind, self.size, len(header))
        with contextlib.closing(_Column(self.path, narrow)) as again:
            for at in columns.pieces(self.size):
                again.write(column[at])
                columns.let_go(column[at])
            again.finish()
        wide.unlink()


class _Ids:
    """The catalogue of one side as it comes; whole numbers or text, by the first slice."""

    def __init__(self, folder: Path, side: str) -> None:
        self.folder, self.side, self.kind, self.size = folder, side, "", 0
        self.last: Any = None
        self.parts: list[_Column] = []

    def add(self, ids: np.ndarray) -> None:
        if ids.size == 0:
            return
        kind = "str" if ids.dtype.kind in "OUT" else "int64"
        if not self.kind:
            self.kind = kind
            name = f"{self.side}_ids"
            self.parts = (
                [_Column(self.folder / f"{name}.npy", np.int64)]
                if kind == "int64"
                else [
                    _Column(self.folder / f"{name}.utf8.npy", np.uint8),
                    _Column(self.folder / f"{name}.offsets.npy", np.int64),
                ]
            )
            if kind == "str":
                self.parts[1].write([0])
        if kind != self.kind:
            raise wrong_type(f"{self.side}_ids", f"ids of one kind ({self.kind})", ids)
        rising = (ids[1:] > ids[:-1]).all() and (self.last is None or ids[0] > self.last)
        if not rising:
            raise wrong(f"{self.side}_ids", "ids in rising order without repeats", ids)
        self.last = ids[-1]
        if kind == "int64":
            self.parts[0].write(ids)
        else:
            words = [encoded(one) for one in ids.tolist()]
            whole = b"".join(words)
            ends = np.cumsum([len(word) for word in words], dtype=np.int64) + self.parts[0].size
            self.parts[0].write(np.frombuffer(whole, dtype=np.uint8))
            self.parts[1].write(ends)
        self.size += ids.size

    def finish(self) -> int:
        if not self.kind:
            self.kind = "int64"
            self.parts = [_Column(self.folder / f"{self.side}_ids.npy", np.int64)]
        for part in self.parts:
            part.finish(
                columns.narrowest(part.largest + 1) if part.path.name.endswith("offsets.npy") else None
            )
        return self.size


def _header(kind: np.dtype, size: int) -> bytes:
    from io import BytesIO

    out = BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(out, about)
    return out.getvalue()


def card_text(card: dict) -> str:
    """The card as it stands in log.json: ASCII JSON, with its own checksum last."""
    try:
        json.dumps(card["facts"], default=_plain)
    except TypeError:
        raise wrong_type("facts", "a dict that JSON can hold", card["facts"]) from None
    plain = json.loads(json.dumps(card, default=_plain))
    return json.dumps({**plain, "sha256": card_sum(plain)}, indent=1) + "\n"


def card_sum(card: dict) -> str:
    """SHA-256 of a card without its own checksum."""
    return hashlib.sha256(json.dumps(card, indent=1).encode("ascii")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)


def read_card(folder: Path) -> dict:
    """log.json, checked against its own checksum (and, of an older version, not at all)."""
    path = folder / CARD
    try:
        text = path.read_text(encoding="utf-8")
        card = json.loads(text)
    except FileNotFoundError:
        raise wrong(str(folder), f"a saved log, with {CARD}", text="a folder without it") from None
    except (ValueError, RecursionError) as error:
        raise wrong(str(path), "JSON", text=f"{error}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise wrong(str(path), f"format {FORMAT!r}", text="another")
    if card.get("version") == 1:
        return card
    if card.get("version") != VERSION:
        raise wrong(str(path), f"version {VERSION}", card.get("version"))
    if not card.keys() >= KEYS:
        raise wrong(str(path), "all keys", text=f"none of {sorted(KEYS - card.keys())}")
    if card_text({key: value for key, value in card.items() if key != "sha256"}) != text:
        raise wrong(str(path), "the card that was saved", text="another (its checksum differs)")
    return card


def map_columns(folder: Path, card: dict) -> dict[str, Any]:
    """The columns, ids and offsets of a folder, mapped; sizes and headers checked."""
    for name, about in card["files"].items():
        path = folder / name
        if not re.fullmatch(r"[\w.]+", name) or not path.is_file():
            raise wrong(str(folder), f"the file {name}", text="a folder without it")
        if path.stat().st_size != about["bytes"]:
            raise wrong(
                str(path),
                f"the file that was saved ({about['bytes']:,} bytes)",
                text=f"another ({path.stat().st_size:,} bytes)",
            )
    events = card["num_events"]
    found: dict[str, Any] = {"time": None, "weight": None}
    kinds = {"user": "u1 u2 u4 i8", "item": "u1 u2 u4 i8", "row": "u1 u2 u4 i8"}
    kinds |= {"time": "i8"} if card["has_time"] else {}
    kinds |= {"weight": "f8"} if card["has_weight"] else {}
    for name, kind in kinds.items():
        found[name] = _column(folder, name, kind, events)
    found["offsets"] = _column(folder, "offsets", "i8", card["num_users"] + 1)
    for side in SIDES:
        name, size = f"{side}_ids", card[f"num_{side}s"]
        if card[name] == "int64":
            found[name] = _column(folder, name, "i8", size)
        else:
            data = _column(folder, f"{name}.utf8", "u1", None)
            found[name] = TextIds(data, _column(folder, f"{name}.offsets", "u1 u2 u4 i8", size + 1))
    return found


def _column(folder: Path, name: str, kinds: str, size: int | None) -> np.ndarray:
    path = folder / f"{name}.npy"
    expected = f"a column of {kinds.replace(' ', ', ')}" + ("" if size is None else f" [{size}]")
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of .npy")
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            fits = len(shape) == 1 and size in (None, shape[0]) and kind.str[1:] in kinds.split()
            if fits and path.stat().st_size == start + shape[0] * kind.itemsize:
                return columns.mapped(file, kind, shape[0], start)
    except Exception as error:  # numpy lets out whatever a damaged header makes of it
        raise wrong(str(path), expected, text=f"{str(error).splitlines()[0]}") from None
    raise wrong(str(path), expected, text=f"{kind} {list(shape)} in {path.stat().st_size} bytes")
