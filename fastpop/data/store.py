"""A log on disk: saving, opening, loading, and telling a sound folder from a damaged one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import files
from fastpop.checks import wrong
from fastpop.data import columns
from fastpop.data.parquet_log import load_parquet_log
from fastpop.data.prepared import (
    CARD,
    FORMAT,
    REJECTED,
    PreparedWriter,
    is_name_of_log,
    map_columns,
    read_card,
)
from fastpop.data.rejected import read_rejected
from fastpop.data.text_ids import TextIds

if TYPE_CHECKING:
    from fastpop.data.interactions import Interactions

COLUMNS = ("user", "item", "time", "weight", "row")
IDS_AT_ONCE = 1 << 18
TRIES = 5  # to open a folder that another process puts in its place


def save_log(log: "Interactions", folder: Path) -> Path:
    with files.atomic_folder(folder, replaces=is_saved_log_alone) as draft:
        write_log(log, draft)
    return folder


def write_log(log: "Interactions", draft: Path) -> None:
    """The log in an empty folder, a piece at a time."""
    row_stop = int(log.row.max()) + 1 if log.num_events else 0
    has = {name: getattr(log, name) is not None for name in ("time", "weight")}
    with PreparedWriter(draft, **has, row_stop=row_stop) as out:
        for side, ids in (("user", log.user_ids), ("item", log.item_ids)):
            for at in columns.pieces(ids.shape[0], IDS_AT_ONCE):
                out.add_ids(side, ids[at])
        with columns.bar(log.num_events, "writing the log") as bar:
            for at in columns.pieces(log.num_events):
                part = {
                    name: None if getattr(log, name) is None else getattr(log, name)[at] for name in COLUMNS
                }
                out.add(**part)  # type: ignore[arg-type]
                bar.update(at.stop - at.start)
        out.finish(has_order=log.has_order, facts=log.facts, rejected=log.rejected)


def is_saved_log(folder: Path) -> bool:
    """Whether a folder holds a saved or prepared log, sound or not: by its card, or, where that is damaged,
    by the names of all files."""
    try:
        if f'"{FORMAT}"'.encode() in (folder / CARD).read_bytes():
            return True
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return False
    return all(map(is_name_of_log, names)) and "user.npy" in names


def is_saved_log_alone(folder: Path) -> bool:
    """And nothing else, so that it may be replaced."""
    names = [path.name for path in folder.iterdir()]
    return is_saved_log(folder) and all(is_name_of_log(one) or one.endswith(".parquet") for one in names)


def open_log(kind: type["Interactions"], folder: Path, verify: bool = False) -> "Interactions":
    """The mapped log, of the class given. One that was saved as parquet, long ago, is read into memory."""
    while True:
        # Another process may put a new log in its place while files are opened one by one: then all
        # of them are opened again. The handle keeps the folder's number from being used anew.
        handle = _handle(folder)
        try:
            log = _opened(kind, folder, verify)
        except (OSError, ValueError):
            if _still(folder, handle):
                raise
        else:
            if _still(folder, handle):
                return log
        finally:
            os.close(handle)


def _opened(kind: type["Interactions"], found: Path, verify: bool) -> "Interactions":
    card = read_card(found)
    if card["version"] == 1:
        log = load_parquet_log(kind, found, card)
        _check_order(log, found)
        return log
    log = kind(
        **map_columns(found, card),
        has_order=card["has_order"],
        facts=card["facts"],
        rejected=read_rejected(found / REJECTED),
        storage=columns.DISK,
    )
    if verify:
        with columns.told(log.num_events, "verifying the log"):
            for name, about in card["files"].items():
                if files.sha256(found / name) != about["sha256"]:
                    raise wrong(
                        str(found / name),
                        "the file that was saved",
                        text=f"another (its checksum differs from {CARD})",
                    )
            _check_order(log, found)
    return log


def load_log(kind: type["Interactions"], folder: Path) -> "Interactions":
    """The log in memory, every byte of it verified."""
    log = open_log(kind, folder, verify=True)
    if log.storage is columns.MEMORY:
        return log
    user_ids, item_ids = (
        np.asarray(ids) if isinstance(ids, TextIds) else np.array(ids) for ids in (log.user_ids, log.item_ids)
    )
    return kind(
        log.user.astype(np.int64),
        log.item.astype(np.int64),
        None if log.time is None else np.array(log.time),
        None if log.weight is None else np.array(log.weight),
        log.row.astype(np.int64),
        user_ids,
        item_ids,
        np.array(log.offsets),
        log.has_order,
        log.facts,
        log.rejected,
    )


def _still(folder: Path, handle: int) -> bool:
    """Whether the path is still that of the open folder."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(folder))
    except FileNotFoundError:
        return False


def _handle(folder: Path) -> int:
    """The folder, opened. Between the two renames of a writer it is not there for a moment, and is
    looked for again."""
    for _ in range(TRIES):
        files.recover(folder)
        try:
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            break
    raise FileNotFoundError(f"folder: expected a saved log; got {str(folder)!r}, which is no folder")


def _check_order(log: "Interactions", folder: Path) -> None:
    """Order and ranges of every column, a piece at a time."""
    last: tuple[int, int] | None = None
    for at in columns.pieces(log.num_events):
        user, item = log.user[at], log.item[at]
        if (
            (user[1:] < user[:-1]).any()
            or (last and int(user[0]) < last[0])
            or (int(user[0]) < 0 or int(user[-1]) >= log.num_users)
        ):
            raise wrong(str(folder), "users in order and in the catalogue", text="others")
        if item.min() < 0 or item.max() >= log.num_items:
            raise wrong(str(folder), "items of the catalogue", text="others")
        if log.time is not None:
            time = log.time[at]
            back = (time[1:] < time[:-1]) & (user[1:] == user[:-1])
            if back.any() or (last and last[0] == int(user[0]) and int(time[0]) < last[1]):
                raise wrong(str(folder), "each user's events in order of time", text="others")
            last = int(user[-1]), int(time[-1])
        else:
            last = int(user[-1]), 0
        columns.let_go(user, item, None if log.time is None else log.time[at])
    offsets = log.offsets
    if offsets[0] != 0 or offsets[-1] != log.num_events or (np.diff(offsets) < 0).any():
        raise wrong(str(folder), f"offsets that rise from 0 to {log.num_events}", text="others")
    for name in ("user_ids", "item_ids"):
        if not _rises(getattr(log, name)):
            raise wrong(f"{folder}/{name}", "ids in rising order without repeats", text="others")


def _rises(ids: Any) -> bool:
    if isinstance(ids, TextIds):
        return ids.rises()
    return bool((ids[1:] > ids[:-1]).all())
