"""Cases: what evaluation and serving read. A history, and what came after it."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import files
from fastpop.checks import ids_in_range, wrong, wrong_type
from fastpop.data import columns
from fastpop.data.csr import Csr, check_offsets
from fastpop.data.interactions import Interactions
from fastpop.data.paths import local_path
from fastpop.data.prepared import card_text
from fastpop.frozen import deep_frozen, frozen_array

_ARRAYS = ("user", "history_offsets", "history_item", "target_offsets", "target_item")


@dataclass(frozen=True, eq=False)
class Cases:
    """C questions "what comes next", each with its answer; CSR on both sides, all read-only.

    Attributes:
        user: [C] int64 dense user, −1 for an anonymous session.
        history_offsets: [C+1] int64; history_item: whole numbers (of the log's type), in order.
            Everything known before the targets: the encoder's input and the set of seen items.
        target_offsets: [C+1] int64; target_item: likewise, distinct within a case, in the order
            they came: the relevant set. A case's NLL is the mean over its targets.
        num_items: size V of the catalogue the item indices live in.
        time: [C] int64 seconds at which the first target came, or None: what is known by then may be
            counted (`evaluation.recency_scorer`).
        facts: JSON-able notes (what a reader of cases had to drop); read-only.
        storage: where the columns of cases made from these go, as for `Interactions`.
    """

    user: np.ndarray
    history_offsets: np.ndarray
    history_item: np.ndarray
    target_offsets: np.ndarray
    target_item: np.ndarray
    num_items: int
    facts: dict = field(default_factory=dict)
    storage: columns.Memory = columns.MEMORY
    time: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", deep_frozen(self.facts))
        for name in _ARRAYS:
            value = np.asarray(getattr(self, name))
            if value.dtype.kind not in "iu" and value.size:
                raise wrong_type(name, "whole numbers", value)
            # items stay as narrow as a log holds them; -1 and differences need a sign
            if value.dtype.kind != "u" or not name.endswith("item"):
                value = value.astype(np.int64, copy=False)
            object.__setattr__(self, name, frozen_array(value))
        if self.time is not None:
            time = np.asarray(self.time)
            if time.dtype.kind not in "iu" or time.shape != self.user.shape:
                raise wrong("time", f"whole seconds, shape [{self.user.size}]", time)
            object.__setattr__(self, "time", frozen_array(time.astype(np.int64, copy=False)))
        for side in ("history", "target"):
            offsets, item = getattr(self, f"{side}_offsets"), getattr(self, f"{side}_item")
            check_offsets(f"{side}_offsets", offsets, item.size, self.user.size)
            ids_in_range(f"{side}_item", item, self.num_items)

    @classmethod
    def of(
        cls,
        histories: Any,
        targets: Any,
        num_items: int,
        *,
        user: Any = None,
        time: Any = None,
        facts: dict | None = None,
    ) -> "Cases":
        """Cases of rows as anybody has them.

        histories, targets: one row a case: a `Csr`, a tuple (offsets, item), a list of lists, or a sparse
            matrix of scipy (users x items, whatever its numbers). Repeats within a row of targets are
            left out. user: [C]; None: anonymous. The rest as the attributes.
        Raises TypeError, ValueError: rows of other numbers, items beyond num_items.
        """
        history = Csr.of("histories", histories, num_items=num_items)
        target = Csr.of("targets", targets, num_items=num_items)
        if len(target) != len(history):
            raise wrong("targets", f"{len(history):,} rows, as histories", text=f"{len(target):,}")
        user = np.full(len(history), -1) if user is None else np.asarray(user)
        if user.shape != (len(history),):
            raise wrong("user", f"[{len(history)}], one a row of histories", user)
        return cls._of(
            user, history, target.distinct()[0], num_items, {} if facts is None else facts, time=time
        )

    @classmethod
    def _of(
        cls, user: np.ndarray, history: Csr, target: Csr, num_items: int, facts: Any, **rest: Any
    ) -> "Cases":
        return cls(user, history.offsets, history.item, target.offsets, target.item, num_items, facts, **rest)

    @property
    def history_rows(self) -> Csr:
        """The histories, one row a case."""
        return Csr(self.history_offsets, self.history_item)

    @property
    def target_rows(self) -> Csr:
        """The targets, one row a case."""
        return Csr(self.target_offsets, self.target_item)

    @property
    def num_cases(self) -> int:
        return int(self.user.shape[0])

    def __len__(self) -> int:
        return self.num_cases

    def __repr__(self) -> str:
        return f"Cases({self.num_cases:,} cases, {self.target_item.size:,} targets, {self.num_items:,} items)"

    def history(self, case: int) -> np.ndarray:
        """`history_item[history_offsets[case]:history_offsets[case + 1]]`: int64 [n], in order."""
        return frozen_array(self.history_rows.row(case).astype(np.int64, copy=False))

    def targets(self, case: int) -> np.ndarray:
        """`target_item[target_offsets[case]:target_offsets[case + 1]]`: int64 [n]."""
        return frozen_array(self.target_rows.row(case).astype(np.int64, copy=False))

    def take(self, index: Any) -> "Cases":
        """The chosen cases, in the order asked for: a slice, bool [C], or whole numbers."""
        if isinstance(index, slice):
            index = np.arange(self.num_cases)[index]
        chosen = np.asarray(index)
        if chosen.dtype == bool:
            if chosen.shape != self.user.shape:
                raise wrong("index", f"shape [{self.num_cases}]", chosen)
            chosen = np.flatnonzero(chosen)
        elif chosen.size and (chosen.dtype.kind not in "iu" or chosen.ndim != 1):
            raise wrong_type("index", "a slice, or a 1-d array of bool or whole numbers", chosen)
        chosen = chosen.astype(np.int64).reshape(-1)
        ids_in_range("index", chosen, self.num_cases)
        return Cases._of(
            self.user[chosen],
            self.history_rows.take(chosen, self.storage),
            self.target_rows.take(chosen, self.storage),
            self.num_items,
            self.facts,
            storage=self.storage,
            time=None if self.time is None else self.time[chosen],
        )

    def with_targets(self) -> "Cases":
        """Those that have a target: what can be judged."""
        return self.take(self.target_rows.lengths() > 0)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return arrays if self.time is None else arrays | {"time": self.time}

    def save(self, folder: str | Path) -> Path:
        """Write folder/cases.npz and folder/cases.json, all or nothing; an older one is replaced.

        Raises OSError where the folder cannot be written.
        """
        folder = local_path(folder, "folder")
        with files.atomic_folder(folder, replaces=_has_cases_alone) as draft:
            np.savez(draft / "cases.npz", **self._arrays())  # type: ignore[arg-type]
            sums = {"cases.npz": files.sha256(draft / "cases.npz")}
            card = {"num_items": self.num_items, "facts": self.facts, "files": sums}
            (draft / "cases.json").write_text(card_text(card), encoding="ascii")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Cases":
        """Inverse of `save`. Raises ValueError where there are no cases to read."""
        folder = local_path(folder, "folder")
        files.recover(folder)
        try:
            text = (folder / "cases.json").read_text(encoding="utf-8")
            described = json.loads(text)
            known = described.get("sha256")  # of cases.npz, or none, in folders of earlier versions
            if "files" in described:
                if card_text({key: described[key] for key in described if key != "sha256"}) != text:
                    raise ValueError("cases.json is another (its checksum differs)")
                known = described["files"]["cases.npz"]
            if known not in (None, files.sha256(folder / "cases.npz")):
                raise ValueError("cases.npz is another (its checksum differs from cases.json)")
            with np.load(folder / "cases.npz") as arrays:
                read = {name: arrays[name] for name in (*_ARRAYS, *({"time"} & set(arrays)))}
            about = {name: described[name] for name in ("num_items", "facts")}
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            zipfile.BadZipFile,
        ) as error:
            raise wrong("folder", "a folder that Cases.save wrote", text=f"{folder}: {error}") from None
        return cls(**read, **about)


def _has_cases(folder: Path) -> bool:
    return (folder / "cases.json").is_file()


def _has_cases_alone(folder: Path) -> bool:
    return _has_cases(folder) and files.holds_only(folder, ("cases.json", "cases.npz"))


def build_cases(
    users: np.ndarray, before: Interactions, after: Interactions, keep_new: bool
) -> tuple[Cases, int]:
    """(cases of `users`, repeated targets merged): each user's events `before` are the history, those
    `after` the targets, in the order they came. A user without history has a case only with `keep_new`."""
    if not keep_new:
        users = users[np.diff(before.offsets)[users] > 0]
    targets, repeats = after.items_by_user.take(users, before.storage).distinct()
    time = None if after.time is None else np.asarray(after.time[after.offsets[users]])
    history = before.items_by_user.take(users, before.storage)
    cases = Cases._of(users, history, targets, before.num_items, {}, storage=before.storage, time=time)
    return cases, repeats
