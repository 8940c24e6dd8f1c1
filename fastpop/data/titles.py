"""Titles of items, from a table of the catalogue that anybody has."""

import csv
import gzip
import io
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import level_outside, missing, one_of, wrong, wrong_type
from fastpop.data.frames import is_frame
from fastpop.data.paths import engine_path, engine_words, local_path
from fastpop.data.workbench import asked, duckdb_module

# Columns that are taken where none is named, whatever their case, the first that is there.
ID_NAMES = ("item_id", "item", "id", "itemid", "movieid", "parent_asin", "asin")
TITLE_NAMES = ("title", "name", "item_title", "item_name")


@dataclass(frozen=True, eq=False, repr=False)
class Titles:
    """Titles by item id, whole numbers and text alike: 17 and "17" are one id.

    by_id: title of each id, as text. Made by `read_titles`.
    """

    by_id: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.by_id)

    def __repr__(self) -> str:
        return f"Titles({len(self):,} items)"

    def of(self, ids: Any) -> np.ndarray:
        """object array in the shape of `ids`: the title of each, None where there is none."""
        ids = np.asarray(ids, dtype=object)
        found = np.full(ids.shape, None, dtype=object)
        for place, one in np.ndenumerate(ids):
            if one is not None:
                found[place] = self.by_id.get(str(one))
        return found

    def check(self, ids: Collection[Any]) -> None:
        """That they are titles of these items, as whoever names a table means them to be.

        Raises: ValueError where no id has a title. Warns: UserWarning, with the number, where some have none.
        """
        there = sum(str(one) in self.by_id for one in ids)
        said = f"titles for {there:,} of {len(ids):,} items"
        if not there and len(ids):
            id_here, id_there = str(next(iter(ids))), next(iter(self.by_id))
            raise wrong(
                "titles", f"a table by ids of items, as {id_here!r}", text=f"{said}, by ids as {id_there!r}"
            )
        if there < len(ids):
            warnings.warn(
                f"{said}; the others are shown by their ids", UserWarning, stacklevel=level_outside()
            )


def read_titles(
    source: Any,
    id: str | int | None = None,
    title: str | int | None = None,
    *,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> Titles:
    """Titles of a table of items.

    Args:
        source: a path to a csv, tsv, `::`-separated or parquet file, text plain or gzip; a pandas, polars or
            arrow table, or a dict of columns; a dict from id to title; or Titles.
        id, title: columns, by name, or both by 0-based position in a text file without header. None: the
            first there is of item_id, item, id, ... and of title, name, ...
        separator: between fields of text; None: a tab, `::`, a comma or a semicolon, whichever the first line
            has first in this order.
        encoding: of text.
    Raises: TypeError, ValueError: a column that is missing; no rows; two titles of one id. OSError.
    Rows without an id or a title are left out.
    """
    if isinstance(source, Titles):
        return source
    if isinstance(source, Mapping):
        if not any(isinstance(one, str) for one in source.values()):  # columns
            found = _columns("titles", [str(name) for name in source], id, title)
            return Titles(_by_id("titles", *(source[name] for name in found)))
        return Titles(_by_id("titles", source.keys(), source.values()))
    if is_frame(source):
        names = [str(name) for name in getattr(source, "column_names", source.columns)]
        found = _columns("titles", names, id, title)
        return Titles(_by_id("titles", *(_values(source, name) for name in found)))
    if not isinstance(source, (str, bytes, Path)):
        raise wrong_type("titles", "a path, a table of items, or a dict from id to title", source)
    path = local_path(source, "titles")
    if path.is_dir():
        raise wrong("titles", "a file", text=f"{str(path)!r}, a folder")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise FileNotFoundError(f"titles: expected a file; got {str(path)!r}, which does not exist") from None
    if start == b"PAR1":
        return Titles(_by_id(str(path), *_of_parquet(path, id, title)))
    return Titles(
        _by_id(str(path), *_of_text(path, start[:2] == b"\x1f\x8b", id, title, separator, encoding))
    )


def _by_id(label: str, ids: Iterable[Any], titles: Iterable[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one, title in zip(ids, titles, strict=True):
        if missing(one) or missing(title) or title == "" or one == "":
            continue
        if isinstance(one, (float, np.floating)) and float(one).is_integer():
            one = int(one)  # whole numbers become floats where one of a column is missing
        key, text = str(one), str(title)
        if found.setdefault(key, text) != text:
            raise wrong(label, "one title an item", text=f"{found[key]!r} and {text!r} for item {key}")
    if not found:
        raise wrong(label, "rows with an id and a title", text="none")
    return found


def _columns(label: str, names: Sequence[str], id: Any, title: Any) -> tuple[str, str]:
    """The names of both columns among these."""
    folded = {name.casefold(): name for name in reversed(names)}
    chosen = []
    for argument, given, usual in (("id", id, ID_NAMES), ("title", title, TITLE_NAMES)):
        there = [folded[name] for name in usual if name in folded]
        if given is None and not there:
            raise wrong(
                f"{label}, {argument}",
                f"the name of a column (none of {', '.join(usual)} is there)",
                text=f"columns {', '.join(names)}",
            )
        if given is not None:
            one_of(f"{label}, {argument}", given, names)
        chosen.append(there[0] if given is None else given)
    if chosen[0] == chosen[1]:
        raise wrong("id, title", f"two columns of {label}", (id, title))
    return chosen[0], chosen[1]


def _values(frame: Any, name: str) -> list[Any]:
    column = frame.column(name) if hasattr(frame, "column_names") else frame[name]
    return column.to_pylist() if hasattr(column, "to_pylist") else column.to_list()


def _of_parquet(path: Path, id: Any, title: Any) -> tuple[list[Any], list[Any]]:
    duckdb = duckdb_module("reading parquet")
    source = f"read_parquet({engine_path(path)}, hive_partitioning=false)"
    with duckdb.connect() as connection:
        try:
            relation = asked(connection, lambda: connection.sql(f"SELECT * FROM {source}"))
        except duckdb.Error as error:
            first = engine_words(str(error).strip().split("\n")[0])
            raise wrong(str(path), "a sound parquet file", text=first) from None
        names = _columns(str(path), relation.columns, id, title)
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        rows = asked(connection, relation.select(quoted).fetchall)
    return [row[0] for row in rows], [row[1] for row in rows]


def _of_text(
    path: Path, packed: bool, id: Any, title: Any, separator: str | None, encoding: str
) -> tuple[list[str], list[str]]:
    by_place = isinstance(id, int) and isinstance(title, int)
    if not by_place and (isinstance(id, int) or isinstance(title, int)):
        raise wrong("id, title", "both by name or both by position", (id, title))
    raw = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise wrong(str(path), f"text in {encoding} (encoding= names another)", text=str(error)) from None
    first = text[: text.find("\n")] if "\n" in text else text
    sep = separator or next((one for one in ("\t", "::", ",", ";") if one in first), ",")
    if len(sep) == 1:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=sep))
    else:
        rows = [line.split(sep) for line in text.splitlines()]
    rows = [row for row in rows if row]
    if not rows:
        raise wrong(str(path), "rows with an id and a title", text="an empty file")
    at = (id, title)
    head = 0 if by_place else 1
    if not by_place:
        names = _columns(str(path), rows[0], id, title)
        at = (rows[0].index(names[0]), rows[0].index(names[1]))
    for number, row in enumerate(rows[head:], head + 1):
        if len(row) <= max(at):
            raise wrong(f"{path}, row {number}", f"at least {max(at) + 1} fields", text=f"{len(row)}")
    return [row[at[0]] for row in rows[head:]], [row[at[1]] for row in rows[head:]]
