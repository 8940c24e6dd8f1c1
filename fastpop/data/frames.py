"""Frames, parquet and dicts of arrays, written out as the text that the reader of text reads.

So a table means the same however it comes: one reader, one set of rules. What a type cannot say (an
id in a float beyond its whole numbers, a time to 128 seconds, a truth value) is refused by the type's
name, and types come from the schema, or from every value of a column of Python objects.
"""

import contextlib
import datetime
import decimal
import math
import numbers
import uuid
from typing import Any

import numpy as np

from fastpop.checks import missing, missing_package, wrong, wrong_type
from fastpop.data.inputs import Input, short
from fastpop.data.paths import engine_path
from fastpop.data.presets import Columns, ListColumns
from fastpop.data.scan import File
from fastpop.data.workbench import Workbench, quoted_name
from fastpop.ops import log_rows

WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
    "UHUGEINT",
    "BIGNUM",
)
EXACT = {"FLOAT": 2**24, "DOUBLE": 2**53}  # whole numbers below are all different
LABELS = {"pandas": "pandas table", "polars": "polars table", "pyarrow": "arrow table"}


def is_frame(source: Any) -> bool:
    """Whether a source is a table in memory, rather than the name of one."""
    if isinstance(source, dict) or type(source).__module__.split(".")[0] in LABELS:
        return True
    return bool(getattr(getattr(source, "dtype", None), "names", None)) or hasattr(
        source, "__arrow_c_stream__"
    )


def frame_input(bench: Workbench, source: Any, columns: Columns | ListColumns, shape: str) -> Input:
    """A table in memory as an input.

    Raises:
        TypeError, ValueError: a column that is missing, or of a type that its role cannot have.
    """
    label, starts = "", None
    if shape != "table" and (isinstance(source, dict) or type(source).__module__.startswith("pandas")):
        label = "arrays" if isinstance(source, dict) else LABELS["pandas"]
        source, columns, starts = _flattened(source, columns, label)
        shape = "table"
    kind, have, picked = _picked(source, columns, starts)
    label = kind if starts is None else label
    connection = bench.connection
    try:
        connection.register("source_table", picked)
    except bench.duckdb.Error as error:
        first = str(error).split("\n")[0]
        raise wrong_type("source", f"{label} that DuckDB can read ({first})", source) from None
    try:
        return _written(bench, "source_table", label, columns, shape, have, starts)
    finally:
        connection.unregister("source_table")


def parquet_input(bench: Workbench, file: File, columns: Columns | ListColumns, shape: str) -> Input:
    """A parquet file as an input; folders called `name=value` above it mean nothing."""
    path = engine_path(file.path)
    try:
        have = _top_level(bench.rows(f"SELECT name, num_children FROM parquet_schema({path})"))
        relation = f"read_parquet({path}, hive_partitioning=false)"
        return _written(bench, relation, file.label, columns, shape, have)
    except ValueError as error:
        if "DuckDB can read" in str(error):
            first = str(error).rsplit("got: ", 1)[-1]
            raise wrong(file.label, "a sound parquet file", text=f"{first}") from None
        raise


def _top_level(schema: list[tuple[str, int | None]]) -> list[str]:
    """Names of a parquet file's columns, from its schema: a tree, the root first, parents before children."""
    names = []
    waiting: list[int] = []  # children to come of each parent that is open
    for name, children in schema:
        if len(waiting) == 1:
            names.append(name)
        waiting.append(children or 0)
        while waiting and waiting[-1] == 0:
            waiting.pop()
            if waiting:
                waiting[-1] -= 1
    return names


def _written(
    bench: Workbench,
    relation: str,
    label: str,
    columns: Columns | ListColumns,
    shape: str,
    have: list[str],
    starts: np.ndarray | None = None,
) -> Input:
    """have: the columns' own names, in order, since DuckDB gives others to those that differ by case
    alone; none where it alone knows them."""
    described = bench.rows(f"DESCRIBE SELECT * FROM {relation}")
    have = have or [row[0] for row in described]
    assert len(described) == len(have)
    names = _resolved(label, columns, have)
    types = {role: described[have.index(name)][1] for role, name in names.items()}
    if bench.value(f"SELECT count(*) FROM {relation}") == 0:
        raise wrong(label, "rows", text="an empty table")
    own = {role: described[have.index(name)][0] for role, name in names.items()}
    if shape != "table":
        relation, starts = _unnested(bench, relation, label, names, own, types, shape)
    picked = [
        f'{_expression(label, role, name, own[role], types[role])} AS "{role}"'
        for role, name in names.items()
    ]
    texts = ", ".join(f'"{role}"' for role in names if not _is_number(types[role]))
    quoted = f"FORCE_QUOTE ({texts}), " if texts else ""
    for role, name in names.items():
        _refuse_what_cannot_hold(bench, relation, label, role, name, own[role], types[role], starts)
    path = bench.folder / f"table-{len(list(bench.folder.iterdir()))}.csv"
    bench.run(
        f"COPY (SELECT {', '.join(picked)} FROM {relation}) TO {engine_path(path)} (FORMAT csv, "
        f"HEADER false, DELIMITER ',', QUOTE '\"', ESCAPE '\"', {quoted}NULLSTR '')",
        label=f"take over {label}",
    )
    rows = bench.value(f"SELECT count(*) FROM {relation}")
    position = {role: at for at, role in enumerate(names)}
    return Input(
        File(path, label, "text"),
        label,
        log_rows.layout(
            separator=",",
            quote='"',
            num_fields=len(names),
            position=position,
            code_times=columns.time_format is not None,
        ),
        width=len(names),
        names=dict(names),
        position=position,
        noun="row",
        trusted=True,
        records=rows,
        shape=shape,
        starts=starts,
        numeric=frozenset(role for role, kind in types.items() if _is_number(kind)),
    )


def _resolved(label: str, columns: Columns | ListColumns, have: list[str]) -> dict[str, str]:
    """Role → name of its column."""
    names = {}
    for role, name in columns.used().items():
        if isinstance(name, int) and str(name) not in have and name < len(have):
            name = have[name]
        if str(name) not in have:
            raise wrong(
                f"{label}, column {name!r}",
                "a column of that name",
                text=f"only {short(', '.join(map(repr, have)))}",
            )
        if have.count(str(name)) > 1:
            raise wrong(
                f"{label}, column {name!r}",
                "each name once",
                text=f"{have.count(str(name))} columns of that name",
            )
        names[role] = str(name)
    return names


def _is_number(kind: str) -> bool:
    return kind in WHOLE or kind in EXACT or kind.startswith("DECIMAL")


def _unnested(
    bench: Workbench, relation: str, label: str, names: dict, own: dict, types: dict, shape: str
) -> tuple[str, np.ndarray]:
    """(lists of items as rows, in order; where the rows of each begin). A list without items is a row
    without one: nothing goes in silence."""
    kind = types["item"]
    if not kind.endswith("]"):
        raise wrong_type(
            f"{label}, column {names['item']!r}", f"lists of items, with the preset {shape!r}", text=f"{kind}"
        )
    types["item"] = kind.rsplit("[", 1)[0]
    item = quoted_name(own["item"])
    lists = f"{item}::{types['item']}[]"  # arrays of a fixed size, too
    starts = _starts(bench.column(f"SELECT coalesce(len({lists}), 0) FROM {relation}"))
    rows = f"unnest(CASE WHEN len({lists}) > 0 THEN {lists} ELSE [NULL]::{types['item']}[] END) AS {item}"
    if "user" in names:
        return f"(SELECT {quoted_name(own['user'])}, {rows} FROM {relation})", starts
    names["user"] = own["user"] = " session"
    types["user"] = "BIGINT"
    return (
        f'(SELECT " session", {rows} FROM '
        f'(SELECT row_number() OVER () - 1 AS " session", {item} FROM {relation}))'
    ), starts


def _starts(sizes: Any) -> np.ndarray:
    """Where the rows of each list begin, and the end: int64 [lists + 1]."""
    return np.concatenate([[0], np.cumsum(np.maximum(np.asarray(sizes, dtype=np.int64), 1))])


def _row(row: int, starts: np.ndarray | None) -> int:
    """The caller's row of a row, both from 0."""
    return row if starts is None else int(np.searchsorted(starts, row, side="right")) - 1


def _expression(label: str, role: str, name: str, own: str, kind: str) -> str:
    """SQL of a column as text; a type that the role cannot have raises. own: DuckDB's name for it."""
    column = quoted_name(own)
    place = f"{label}, column {name!r}"
    nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))
    if nested:
        hint = " (a list of items a row: preset='sequence')" if role == "item" and kind.endswith("]") else ""
        raise wrong_type(place, f"one value a row as {role}", text=f"{kind}{hint}")
    if kind == "BLOB":
        return f"decode({column})"
    if kind == "BOOLEAN" and role in ("user", "item", "time"):
        raise wrong_type(place, "ids: whole numbers or text" if role != "time" else "times", text=f"{kind}")
    if kind in EXACT and role in ("user", "item", "behavior"):
        return (
            f"CASE WHEN isnan({column}) THEN NULL WHEN {column} = floor({column}) AND "
            f"abs({column}) < {EXACT[kind]} THEN {column}::BIGINT::VARCHAR ELSE {column}::VARCHAR END"
        )
    if role == "time":
        if kind == "FLOAT":
            raise wrong_type(
                place,
                "times as whole numbers, float64 or dates",
                text="FLOAT, which knows seconds to 128 s only",
            )
        if kind.startswith(("TIME WITH", "INTERVAL")) or kind in ("TIME", "TIME_NS", "UUID"):
            raise wrong_type(place, "times as numbers or dates", text=f"{kind}")
        if kind == "TIMESTAMP WITH TIME ZONE":
            return (
                f"CASE WHEN isfinite({column}) THEN make_timestamp(epoch_us({column}))::VARCHAR "
                f"ELSE {column}::VARCHAR END"
            )
    return f"{column}::VARCHAR"


def _refuse_what_cannot_hold(
    bench: Workbench,
    relation: str,
    label: str,
    role: str,
    name: str,
    own: str,
    kind: str,
    starts: np.ndarray | None,
) -> None:
    """Ids in floats beyond their whole numbers, and bytes that are no UTF-8: by row."""
    column = quoted_name(own)
    if kind == "BLOB":
        bad, expected = f"{column} IS NOT NULL AND try(decode({column})) IS NULL", "bytes that are UTF-8"
    elif kind in EXACT and role in ("user", "item"):
        bad = f"abs({column}) >= {EXACT[kind]} AND NOT isnan({column})"
        power = EXACT[kind].bit_length() - 1
        expected = f"ids below 2**{power}, beyond which {kind} merges whole numbers"
    else:
        return
    if not bench.value(f"SELECT count(*) FROM {relation} WHERE {bad}"):
        return
    row, value = bench.rows(
        f"SELECT row_number, value FROM (SELECT row_number() OVER () AS row_number, {column} AS value, "
        f"({bad}) AS bad FROM {relation}) WHERE bad ORDER BY row_number LIMIT 1"
    )[0]
    raise wrong(f"{label}, row {_row(row - 1, starts) + 1}, column {name!r}", expected, text=f"{value!r}")


def _flattened(
    source: Any, columns: Columns | ListColumns, label: str
) -> tuple[dict, ListColumns, np.ndarray]:
    """Python lists of items as rows, in order, and where the rows of each begin; as `_unnested`."""
    names = _resolved(
        label, columns, [str(name) for name in (source if isinstance(source, dict) else source.columns)]
    )
    lists = list(source[names["item"]])
    users = list(source[names["user"]]) if "user" in names else range(len(lists))
    if len(users) != len(lists):
        raise wrong(label, "columns of one length", text=f"({len(users)}, {len(lists)})")
    user: list[Any] = []
    item: list[Any] = []
    sizes = []
    for row, (one, items) in enumerate(zip(users, lists)):
        if not hasattr(items, "__len__") and missing(items):
            items = ()
        if isinstance(items, (str, bytes, dict)) or not hasattr(items, "__iter__"):
            raise wrong_type(f"{label}, row {row + 1}, column {names['item']!r}", "a list of items", items)
        found = list(items) or [None]
        sizes.append(len(found))
        item += found
        user += [one] * len(found)
    by = names.get("user", " session")
    return {by: user, names["item"]: item}, ListColumns(by, names["item"]), _starts(sizes)


def _picked(
    source: Any, columns: Columns | ListColumns, starts: np.ndarray | None
) -> tuple[str, list[str], Any]:
    """(what messages call the table, names of its used columns, these in a form that DuckDB reads)."""
    if getattr(getattr(source, "dtype", None), "names", None):
        source = {name: source[name] for name in source.dtype.names}
    if isinstance(source, dict):
        arrays = _arrays(source, columns, "arrays", starts)
        return "arrays", list(arrays), arrays
    kind = type(source).__module__.split(".")[0]
    label = LABELS.get(kind, "arrow table")
    if kind == "polars":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            missing_package("pyarrow", "polars", "reading polars tables")
        if hasattr(source, "collect"):
            source = source.collect()
    if hasattr(source, "read_all"):  # a stream of arrow's
        source = source.read_all()
    elif hasattr(source, "to_table"):
        source = source.to_table()
    if kind in LABELS and not (hasattr(source, "columns") or hasattr(source, "column_names")):
        raise wrong_type("source", "a table (a dict of columns makes one of single columns)", source)
    if hasattr(source, "__len__") and len(source) == 0:
        raise wrong(label, "rows", text="an empty table")
    if kind == "pandas":
        frame = _pandas(source, columns, label)
        return label, list(frame), frame
    if kind == "polars" or hasattr(source, "select"):
        have = [str(name) for name in (source.columns if kind == "polars" else source.schema.names)]
        have = list(dict.fromkeys(_resolved(label, columns, have).values()))
        source = source.select(have)
        if kind == "polars":
            objects = [name for name in have if str(source.schema[name]) == "Object"]
            if objects:
                return label, have, _arrays({name: source[name].to_list() for name in have}, columns, label)
        return label, have, source
    return label, [], source


def _pandas(source: Any, columns: Columns | ListColumns, label: str) -> Any:
    import pandas as pd

    have = [str(name) for name in source.columns]
    names = _resolved(label, columns, have)
    picked = {}
    for role, name in names.items():
        column = source.iloc[:, have.index(name)]
        if isinstance(column.dtype, pd.CategoricalDtype) and column.cat.categories.dtype == object:
            column = column.astype(object)
        if column.dtype == object:
            column = pd.Series(_objects(column.to_numpy(), label, name, role), dtype=object)
        picked[name] = column.reset_index(drop=True)
    return pd.DataFrame(picked)


def _arrays(
    source: dict, columns: Columns | ListColumns, label: str, starts: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    for name in source:
        if not isinstance(name, (str, int)):
            raise wrong_type("source", "a dict from column names to arrays", name)
    source = {str(name): value for name, value in source.items()}
    names = _resolved(label, columns, list(source))
    arrays = {}
    for role, name in names.items():
        array = _array(source[name], label, name, role)
        if array.ndim != 1:
            raise wrong(f"{label}, column {name!r}", "a 1-d array", array)
        if array.dtype.kind == "M":
            array = _dates(array, label, name)
        elif array.dtype.kind in "UST":
            array = _objects(array.astype(object), label, name, role, starts)
        elif array.dtype.kind == "O":
            array = _objects(array, label, name, role, starts)
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
        elif array.dtype.kind not in "iufb" or array.dtype.itemsize > 8:
            raise wrong_type(f"{label}, column {name!r}", "numbers, text or dates", array)
        arrays[name] = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False)
    sizes = {name: array.size for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise wrong(label, "columns of one length", text=f"{sizes}")
    if sizes and not next(iter(sizes.values())):
        raise wrong(label, "rows", text="an empty table")
    return arrays


def _array(value: Any, label: str, name: str, role: str) -> np.ndarray:
    if hasattr(value, "detach"):
        if "bfloat16" in str(value.dtype) or value.is_complex():
            raise wrong_type(f"{label}, column {name!r}", "numbers that are whole or float32 or wider", value)
        return value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray):
        gone = np.ma.getmaskarray(value)
        value = np.array(value.data, dtype=object)
        value[gone] = None
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "to_numpy"):
        try:
            array = np.asarray(value.to_numpy())
        except Exception as error:
            raise wrong_type(f"{label}, column {name!r}", f"an array ({error})", value) from None
        whole = str(getattr(value, "dtype", "")).lower().startswith(("int", "uint"))
        if array.dtype.kind != "f" or not whole or not hasattr(value, "to_list"):
            return array
        value = value.to_list()  # as floats, made of whole numbers by missing ones, they may have merged
    # a set has no order, so no rows
    if isinstance(value, (str, bytes, dict, set, frozenset)) or not hasattr(value, "__iter__"):
        raise wrong_type(f"{label}, column {name!r}", "an array or a list", value)
    items = list(value)
    if set(map(type, items)) in ({int}, {float}):
        with contextlib.suppress(OverflowError):
            return np.array(items, dtype=np.int64 if type(items[0]) is int else np.float64)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _dates(array: np.ndarray, label: str, name: str) -> np.ndarray:
    unit = np.datetime_data(array.dtype)[0]
    if unit in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us"):
        return array.astype("datetime64[us]")  # DuckDB knows no days
    return array.astype("datetime64[ns]")


def _objects(
    array: np.ndarray, label: str, name: str, role: str, starts: np.ndarray | None = None
) -> np.ndarray:
    """Python objects as text, each by its own type; None where there is no value."""
    texts = np.empty(array.size, dtype=object)
    for row, value in enumerate(array):
        texts[row] = value if type(value) is str else _text(value, label, name, role, row, starts)
    return texts


def _text(value: Any, label: str, name: str, role: str, row: int, starts: np.ndarray | None) -> str | None:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (float, np.floating)) and math.isnan(value):
        return None
    if isinstance(value, np.datetime64) and np.isnat(value):
        return None
    if type(value) is int:
        return str(value)
    place = f"{label}, row {_row(row, starts) + 1}, column {name!r}"
    if isinstance(value, (bool, np.bool_)):
        if role in ("user", "item", "time"):
            raise wrong_type(place, "an id: a whole number or text" if role != "time" else "a time", value)
        return str(bool(value))
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray, np.bytes_)):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise wrong(place, "bytes that are UTF-8", value) from None
    if isinstance(value, decimal.Decimal):
        return None if value.is_nan() else format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, (np.float32, np.float16)) and (
        role == "time" or (role in ("user", "item") and not abs(float(value)) < EXACT["FLOAT"])
    ):
        raise wrong_type(place, f"a {role} that float32 can hold", value)
    if isinstance(value, (float, np.floating)):
        exact = abs(float(value)) < EXACT["DOUBLE"] and float(value).is_integer()
        return str(int(value)) if exact and role in ("user", "item", "behavior") else str(value)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    if isinstance(value, (np.datetime64, uuid.UUID)):
        return str(value)
    hint = (
        " (a list of items a row: preset='sequence')"
        if role == "item" and isinstance(value, (list, tuple, np.ndarray))
        else ""
    )
    raise wrong_type(place, f"one value a row as {role}", text=f"{type(value).__name__}{hint}")
