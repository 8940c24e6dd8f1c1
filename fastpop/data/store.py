"""A log on disk: parquet for the arrays, JSON for the account, checksums for both."""

import csv
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import wrong, wrong_type
from fastpop.data import ids as edge
from fastpop.data.interactions import Interactions, Rejected, csr_offsets
from fastpop.data.workbench import duckdb_module, quoted_text

FORMAT = "fastpop interactions"
VERSION = 1
CARD = "log.json"
REJECTED = "rejected.csv"


def save_log(log: Interactions, folder: Path) -> Path:
    duckdb = duckdb_module("saving a log")
    if folder.exists():
        ours = folder.is_dir() and (_card_is_ours(folder) or not any(folder.iterdir()))
        if not ours:
            raise FileExistsError(f"folder: expected a new, empty or saved-log folder; got {folder}"
                                  ", which holds something else")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
    draft.mkdir()
    try:
        _write(duckdb, log, draft)
        _swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _write(duckdb: Any, log: Interactions, folder: Path) -> None:
    events = {"user": log.user, "item": log.item, "row": log.row}
    if log.time is not None:
        events["time"] = log.time
    if log.weight is not None:
        events["weight"] = log.weight
    tables = {"events": events, "user_ids": {"id": log.user_ids}, "item_ids": {"id": log.item_ids}}
    with duckdb.connect() as connection:
        for name, columns in tables.items():
            text = {c for c, array in columns.items() if array.dtype.kind == "O"}
            connection.register("columns", {c: np.asarray(a) for c, a in columns.items()})
            picked = ", ".join(
                f'"{c}"::{"VARCHAR" if c in text else "DOUBLE" if c == "weight" else "BIGINT"} '
                f'AS "{c}"' for c in columns
            )
            path = quoted_text(str(folder / f"{name}.parquet"))
            connection.execute(f"COPY (SELECT {picked} FROM columns) TO '{path}' "
                               "(FORMAT parquet, COMPRESSION zstd)")
            connection.unregister("columns")
    if log.rejected is not None:
        log.rejected.save(folder / REJECTED)
    card = {
        "format": FORMAT, "version": VERSION, "num_events": log.num_events,
        "num_users": log.num_users, "num_items": log.num_items, "has_order": log.has_order,
        "has_time": log.time is not None, "has_weight": log.weight is not None,
        "user_ids": _kind(log.user_ids), "item_ids": _kind(log.item_ids),
        "sha256": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
        "facts": log.facts,
    }
    try:
        card_text = json.dumps(card, indent=1, default=_plain)
    except TypeError:
        raise wrong_type("facts", "a dict that JSON can hold", log.facts) from None
    (folder / CARD).write_text(card_text + "\n", encoding="utf-8")
    for written in folder.iterdir():
        with written.open("rb") as file:
            os.fsync(file.fileno())


def _swap(draft: Path, folder: Path) -> None:
    """Put the draft in the folder's place; the old one comes back if that fails."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.old"
    folder.rename(old)
    try:
        draft.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def load_log(folder: Path) -> Interactions:
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: expected a saved log; got {str(folder)!r}, which is no "
                                "folder")
    card = _read_card(folder)
    for name, sha in card["sha256"].items():
        if not (folder / name).is_file():
            raise wrong(str(folder), f"the file {name}", "=a folder without it")
        if _sha256(folder / name) != sha:
            raise wrong(str(folder / name), "the file that was saved", "=another (its checksum "
                        "differs from log.json)")
    duckdb = duckdb_module("loading a log")
    with duckdb.connect() as connection:
        def table(name: str) -> dict[str, np.ndarray]:
            path = str(folder / f"{name}.parquet")
            sql = f"SELECT * FROM read_parquet('{quoted_text(path)}')"
            try:
                columns = connection.execute(sql).fetchnumpy()
            except duckdb.Error as error:
                first = str(error).split("\n")[0]
                raise wrong(path, "a parquet file", f"={first}") from None
            return {key: np.asarray(column) for key, column in columns.items()}

        events = table("events")
        ids = {side: table(f"{side}_ids")["id"] for side in ("user", "item")}
    for side, array in ids.items():
        ids[side] = array.astype(np.int64 if card[f"{side}_ids"] == "int64" else object)
        edge.catalogue(f"{folder}/{side}_ids.parquet", ids[side])
    log = Interactions(
        events["user"], events["item"],
        events["time"] if card["has_time"] else None,
        events["weight"] if card["has_weight"] else None,
        events["row"], ids["user"], ids["item"],
        csr_offsets(events["user"], ids["user"].size), bool(card["has_order"]), card["facts"],
        _read_rejected(folder / REJECTED),
    )
    _verify(log, card, folder)
    return log


def _read_card(folder: Path) -> dict:
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise wrong(str(folder), f"a saved log, with {CARD}", "=a folder without it") from None
    except ValueError as error:
        raise wrong(str(path), "JSON", f"={error}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise wrong(str(path), f"format {FORMAT!r}", "=another")
    if card.get("version") != VERSION:
        raise wrong(str(path), f"version {VERSION}", card.get("version"))
    needed = {"num_events", "num_users", "num_items", "has_order", "has_time", "has_weight",
              "user_ids", "item_ids", "sha256", "facts"}
    if not needed <= card.keys():
        raise wrong(str(path), "all keys", f"=none of {sorted(needed - card.keys())}")
    return card


def _verify(log: Interactions, card: dict, folder: Path) -> None:
    sizes = (log.num_events, log.num_users, log.num_items)
    wanted = (card["num_events"], card["num_users"], card["num_items"])
    if sizes != wanted:
        raise wrong(str(folder), f"(events, users, items) = {wanted}", f"={sizes}")
    if log.num_events:
        if (np.diff(log.user) < 0).any() or log.user[0] < 0 or log.user[-1] >= log.num_users:
            raise wrong(str(folder), "users in order and in the catalogue", "=others")
        if log.item.min() < 0 or log.item.max() >= log.num_items:
            raise wrong(str(folder), "items of the catalogue", "=others")
        if log.time is not None:
            back = (np.diff(log.time) < 0) & (np.diff(log.user) == 0)
            if back.any():
                raise wrong(str(folder), "each user's events in order of time", "=others")


def _read_rejected(path: Path) -> Rejected | None:
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return Rejected(tuple(r[0] for r in rows), tuple(int(r[1]) for r in rows),
                    tuple(r[2] for r in rows), tuple(r[3] for r in rows))


def _card_is_ours(folder: Path) -> bool:
    try:
        return json.loads((folder / CARD).read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def _kind(ids: np.ndarray) -> str:
    return "str" if ids.dtype.kind == "O" else "int64"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
