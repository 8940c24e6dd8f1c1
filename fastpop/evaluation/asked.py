"""Who is asked for, and which items may be shown: ids as anybody has them, as places in the catalogue."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fastpop import checks
from fastpop.data import ids as edge
from fastpop.data.cases import Cases
from fastpop.data.csr import Csr

UNKNOWN = ("warn", "error", "ignore")


class HasItems(Protocol):
    """What has ids of items: a log, say."""

    @property
    def item_ids(self) -> Any: ...

    @property
    def num_items(self) -> int: ...

    def decode_items(self, index: Any) -> np.ndarray: ...


@dataclass
class Unknown:
    """Ids that the log does not have, counted by argument, and told once.

    what: "warn", "error" or "ignore". new: ids that the log need not have.
    """

    what: str = "warn"
    new: frozenset[Any] = frozenset()
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        checks.one_of("unknown", self.what, UNKNOWN)

    def places(self, argument: str, log: HasItems, flat: Any) -> np.ndarray:
        """[n] places of item ids in the log, -1 where it lacks one."""
        wanted = edge.id_array(argument, flat)
        if wanted.size == 0:
            return np.empty(0, np.int64)
        kind = log.item_ids.dtype.kind
        if wanted.dtype.kind != kind:
            expected = "strings" if kind == "O" else "whole numbers"
            raise checks.wrong_type(
                argument, f"ids of items that are {expected}, as the log's are", wanted[0]
            )
        found = edge.find(log.item_ids, wanted)
        bad = np.flatnonzero(found < 0)
        if self.new:
            bad = np.array([at for at in bad if wanted[at] not in self.new], dtype=np.int64)
        if bad.size:
            first = wanted[bad[0]]
            first = first.item() if isinstance(first, np.generic) else first
            text = f"{first!r}" + (f" and {bad.size - 1:,} more" if bad.size > 1 else "")
            if self.what == "error":
                raise checks.wrong(argument, "ids of items of the log", text=f"{text} of {found.size:,}")
            self.counts[argument] = int(bad.size)
            self.notes.append(f"{argument}: {bad.size:,} of {found.size:,} ids left out, {text}")
        return found

    def tell(self) -> None:
        """One warning for all that was left out."""
        if self.notes and self.what == "warn":
            text = "items that the log does not have: " + "; ".join(self.notes)
            warnings.warn(text, UserWarning, stacklevel=checks.level_outside())


@dataclass(frozen=True, eq=False)
class Shown:
    """Which items a list may hold.

    allowed_V: bool [V]; None: all. candidates: those of each case; None: all.
    """

    allowed_V: np.ndarray | None = None
    candidates: Csr | None = None

    def take(self, rows: np.ndarray) -> "Shown":
        """For some of the cases."""
        return Shown(self.allowed_V, None if self.candidates is None else self.candidates.take(rows))


def shown(
    candidates: Any,
    allow: Any,
    deny: Any,
    *,
    num_cases: int,
    num_items: int,
    log: HasItems | None,
    unknown: Unknown,
) -> Shown:
    """Of candidates, a list of ids a case, and of allow and deny, ids or a mask [V] for all cases.

    Ids are those of the log's items; without a log, places in the item table.
    Raises ValueError where nothing of allow is known, or too few or too many candidates are given.
    """
    allowed_V = None
    if allow is not None:
        allowed_V = _mask("allow", allow, num_items, log, unknown)
        if not allowed_V.any():
            raise checks.wrong("allow", "at least one item of the catalogue", text="none")
    if deny is not None:
        denied_V = _mask("deny", deny, num_items, log, unknown)
        allowed_V = ~denied_V if allowed_V is None else allowed_V & ~denied_V
    rows = None
    if candidates is not None:
        rows = _rows("candidates", candidates, num_items, log, unknown)
        if len(rows) != num_cases:
            raise checks.wrong("candidates", f"{num_cases:,} lists, one a case", text=f"{len(rows):,}")
        rows = rows.distinct()[0]
    return Shown(allowed_V, rows)


def histories_of(histories: Any, log: HasItems, users: Any, unknown: Unknown) -> tuple[np.ndarray, Cases]:
    """(names of the histories, their cases) of lists of item ids, oldest first; unknown items are left out.

    histories: a list of lists, or a dict from name to list. users: names; None: those of the dict, or places.
    """
    if isinstance(histories, Mapping):
        if users is not None:
            raise checks.wrong("users", "None beside a dict of histories, whose keys are names", users)
        users, histories = list(histories), list(histories.values())
    rows = _rows("histories", histories, log.num_items, log, unknown)
    names = np.arange(len(rows)) if users is None else edge.id_array("users", users)
    if len(names) != len(rows):
        raise checks.wrong("users", f"{len(rows):,} names, one a history", text=f"{len(names):,}")
    return names, Cases.of(rows, [[]] * len(rows), log.num_items)


def _rows(argument: str, rows: Any, num_items: int, log: HasItems | None, unknown: Unknown) -> Csr:
    """Lists of ids as rows of places, without what the log lacks."""
    if log is None:
        return Csr.of(argument, rows, num_items=num_items)
    lists = list(_lists(argument, rows))
    flat = [one for row in lists for one in row]
    found = unknown.places(argument, log, flat)
    offsets = np.cumsum([0, *map(len, lists)])
    known = np.concatenate([[0], np.cumsum(found >= 0)])
    return Csr(known[offsets], found[found >= 0])


def _lists(argument: str, rows: Any) -> Iterator[list[Any]]:
    if isinstance(rows, (str, bytes)) or not hasattr(rows, "__iter__"):
        raise checks.wrong_type(argument, "a list of lists of item ids", rows)
    for number, row in enumerate(rows):
        if isinstance(row, (str, bytes, Mapping)) or not hasattr(row, "__iter__"):
            raise checks.wrong_type(argument, "a list of lists of item ids", text=f"{row!r} as list {number}")
        yield row.tolist() if hasattr(row, "tolist") else list(row)


def _mask(argument: str, given: Any, num_items: int, log: HasItems | None, unknown: Unknown) -> np.ndarray:
    """[V] bool of ids, or of a mask."""
    if getattr(given, "dtype", None) is not None and str(given.dtype).endswith("bool"):
        mask_V = np.asarray(given)
        checks.shape(argument, mask_V, (num_items,))
        return mask_V
    if log is None:
        places = checks.int_array(argument, given)
        checks.ids_in_range(argument, places, num_items)
    else:
        places = unknown.places(argument, log, given)
    mask_V = np.zeros(num_items, bool)
    mask_V[places[places >= 0]] = True
    return mask_V
