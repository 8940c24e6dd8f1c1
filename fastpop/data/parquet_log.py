"""Logs that earlier versions saved as parquet: read, never written."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import files
from fastpop.checks import wrong
from fastpop.data import ids as edge
from fastpop.data.columns import csr_offsets
from fastpop.data.paths import engine_path, engine_words
from fastpop.data.prepared import CARD, REJECTED
from fastpop.data.rejected import read_rejected
from fastpop.data.workbench import asked, duckdb_module

if TYPE_CHECKING:
    from fastpop.data.interactions import Interactions

KEYS = {
    "num_events",
    "num_users",
    "num_items",
    "has_order",
    "has_time",
    "has_weight",
    "user_ids",
    "item_ids",
    "sha256",
    "facts",
}


def load_parquet_log(kind: type["Interactions"], folder: Path, card: dict) -> "Interactions":
    """A log of format version 1 in memory, of the class given; every file's checksum is compared."""
    if not card.keys() >= KEYS:
        raise wrong(str(folder / CARD), "all keys", text=f"none of {sorted(KEYS - card.keys())}")
    for name, sha in card["sha256"].items():
        if not (folder / name).is_file():
            raise wrong(str(folder), f"the file {name}", text="a folder without it")
        if files.sha256(folder / name) != sha:
            raise wrong(
                str(folder / name),
                "the file that was saved",
                text=f"another (its checksum differs from {CARD})",
            )
    duckdb = duckdb_module("loading a log that was saved as parquet")
    with duckdb.connect() as connection:
        events = _table(duckdb, connection, folder / "events.parquet")
        ids = {
            side: _table(duckdb, connection, folder / f"{side}_ids.parquet")["id"]
            for side in ("user", "item")
        }
    for side, array in ids.items():
        ids[side] = array.astype(np.int64 if card[f"{side}_ids"] == "int64" else object)
        edge.catalogue(f"{folder}/{side}_ids.parquet", ids[side])
    log = kind(
        events["user"],
        events["item"],
        events["time"] if card["has_time"] else None,
        events["weight"] if card["has_weight"] else None,
        events["row"],
        ids["user"],
        ids["item"],
        csr_offsets(events["user"], ids["user"].size),
        bool(card["has_order"]),
        card["facts"],
        read_rejected(folder / REJECTED),
    )
    sizes = (log.num_events, log.num_users, log.num_items)
    wanted = (card["num_events"], card["num_users"], card["num_items"])
    if sizes != wanted:
        raise wrong(str(folder), f"(events, users, items) = {wanted}", text=f"{sizes}")
    return log


def _table(duckdb: Any, connection: Any, path: Path) -> dict[str, np.ndarray]:
    try:
        query = f"SELECT * FROM read_parquet({engine_path(path)})"
        columns = asked(connection, lambda: connection.execute(query).fetchnumpy())
    except duckdb.Error as error:
        first = engine_words(str(error)).split("\n")[0]
        raise wrong(str(path), "a parquet file", text=f"{first}") from None
    return {key: np.asarray(column) for key, column in columns.items()}
