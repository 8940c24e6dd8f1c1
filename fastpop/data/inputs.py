"""Tables as DuckDB sees them: a text file, a parquet file, a frame, or a dict of arrays.

Each input can say where its columns are (as SQL), of what type, and, for a row that turns out
bad, what line it stood on and what was there.
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import missing_package, wrong, wrong_type
from fastpop.data.presets import Columns, Preset
from fastpop.data.scan import Scan, lines_at, open_bytes
from fastpop.data.workbench import Workbench, quoted_name, quoted_text

SEPARATORS = ("::", "\t", ",", ";", "|")
TEXT = "TEXT"  # the type of a column whose values are still text of a file


class TextTable:
    """A csv, tsv or .dat file, plain or gzip, already scanned."""

    def __init__(
        self, scan: Scan, layout: Preset, columns: Columns, separator: str | None,
    ) -> None:
        self.scan = scan
        self.label = str(scan.path)
        used = columns.used()
        named = not columns.by_position()
        self.header = layout.names is None and named
        given = separator or layout.separator
        self.separator = given or _sniff(scan, list(used.values()) if self.header else [])
        self.quote = '"' if scan.has_quote and len(self.separator) == 1 else ""
        first = self.split(scan.head)
        names: Sequence[str | int]
        if layout.names is not None:
            names = layout.names
        elif named:
            names = first
        else:
            names = list(range(len(first)))
        self._check_first_line(first, names, list(used.values()), known=layout.names is not None)
        self.width = len(names)
        self.position = {role: list(names).index(name) for role, name in used.items()}
        self.column = {role: f"c{at}" for role, at in self.position.items()}
        self.type = dict.fromkeys(used, TEXT)
        self.name = dict(used)
        self.rejected_lines = np.zeros(0, dtype=np.int64)
        if scan.lines - scan.trailing - len(scan.blank) - self.header <= 0:
            raise wrong(self.label, "rows below the header", "=a header alone")

    def split(self, line: str) -> list[str]:
        if self.quote:
            rows = csv.reader(line.splitlines(keepends=True), delimiter=self.separator)
            return next(rows, [])
        return line.split(self.separator)

    def _check_first_line(
        self, first: list[str], names: Sequence, used: list, known: bool,
    ) -> None:
        place = f"{self.label}, line 1"
        expected = f"columns separated by {self.separator!r}"
        if len(first) == 1 and (known or len(used) > 1):
            other = [s for s in SEPARATORS if s != self.separator and s in first[0]]
            hint = f" (separated by {other[0]!r}?)" if other else ""
            if known:
                expected = f"{len(names)} {expected}"
            raise wrong(place, expected, f"={_short(first[0])!r}{hint}")
        if self.header:
            repeats = sorted({n for n in first if first.count(n) > 1})
            if repeats:
                raise wrong(f"{place}, column {repeats[0]!r}", "each name once in the header",
                            f"={first.count(repeats[0])} columns of that name")
        for name in used:
            if name not in names:
                have = ", ".join(map(repr, first)) if self.header else f"{len(first)} columns"
                raise wrong(f"{place}, column {name!r}", "a column of that name"
                            if self.header else "a column at that position",
                            f"=only {_short(have)}")

    def relation(self) -> str:
        """SQL of all rows as text; lines that do not fit go to the table bad_lines."""
        columns = ", ".join(f"'c{at}': 'VARCHAR'" for at in range(self.width))
        return (
            f"read_csv('{quoted_text(str(self.scan.path))}', auto_detect=false, "
            f"delim='{quoted_text(self.separator)}', quote='{self.quote}', escape='{self.quote}', "
            f"header={str(self.header).lower()}, columns={{{columns}}}, strict_mode=true, "
            f"null_padding=false, compression='{compression(self.scan.path)}', store_rejects=true, "
            "rejects_table='bad_lines', rejects_scan='bad_scans', rejects_limit=0)"
        )

    def line_faults(self, bench: Workbench, rows_read: int) -> list[tuple[int, str, str]]:
        """(line, column or '', reason) of every line that is no row; remembers them for `place`."""
        faults: dict[int, tuple[str, str]] = {}
        for line, kind, message in bench.rows(
            "SELECT line, error_type::VARCHAR, error_message FROM bad_lines ORDER BY line"
        ):
            faults.setdefault(int(line), (kind, message))
        bench.run("DROP TABLE bad_lines; DROP TABLE bad_scans")
        known = [(line, self._fault(*fault)) for line, fault in faults.items()]
        blank = self.scan.blank
        if self.quote and blank:
            inside = self._empty_records()
            blank = tuple(line for line in blank if line in inside)
        known += [(line, f"expected {self._fields()}; got an empty line") for line in blank]
        self.rejected_lines = np.array(sorted(line for line, _ in known), dtype=np.int64)
        lines = self.scan.lines - self.scan.trailing - self.header
        if not self.quote and rows_read + len(known) != lines:
            raise wrong(self.label, f"{lines} rows",
                        f"={rows_read} parsed and {len(known)} rejected: the parser lost some")
        return [(line, "", reason) for line, reason in sorted(known)]

    def _fields(self) -> str:
        return f"{self.width} fields separated by {self.separator!r}"

    def _fault(self, kind: str, message: str) -> str:
        if "COLUMNS" in kind:
            return f"expected {self._fields()}; got {message.rsplit(': ', 1)[-1]} (ragged row)"
        if kind == "UNQUOTED VALUE":
            return "expected quotes around whole fields; got a quote that is not closed"
        return f"expected {self._fields()}; got {message}"

    def lines_of(self, rows: Sequence[int]) -> list[int]:
        """1-based lines of the given 0-based rows as DuckDB counted them."""
        wanted = np.asarray(rows, dtype=np.int64)
        if self.quote:
            return self._lines_of_records(wanted)
        gone = self.rejected_lines
        rows_before = gone - 1 - int(self.header) - np.arange(gone.size)
        moved = np.searchsorted(rows_before, wanted, side="right")
        return [int(n) for n in wanted + 1 + int(self.header) + moved]

    def _lines_of_records(self, wanted: np.ndarray) -> list[int]:
        """As `lines_of`, by walking the file: quoted fields may span lines."""
        gone = set(self.rejected_lines.tolist())
        starts: dict[int, int] = {}
        need, row = set(wanted.tolist()), -1 - int(self.header)
        for line, record in self._records():
            if record and line not in gone:
                row += 1
                if row in need:
                    starts[row] = line
                    if len(starts) == len(need):
                        break
        return [starts.get(int(row), 0) for row in wanted]

    def _empty_records(self) -> set[int]:
        return {line for line, record in self._records() if not record}

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """(first line, fields) of every record, by the standard library's reader."""
        csv.field_size_limit(sys.maxsize)
        with open_bytes(self.scan.path) as file:
            reader = csv.reader((raw.decode("utf-8-sig") for raw in file),
                                delimiter=self.separator)
            line = 1
            for record in reader:
                yield line, record
                line = reader.line_num + 1

    def shown(self, lines: Sequence[int]) -> dict[int, str]:
        """Text of the rows that begin on the given lines."""
        if not self.quote:
            return lines_at(self.scan.path, lines)
        wanted, texts = set(lines), {}
        for line, record in self._records():
            if line in wanted:
                out = io.StringIO()
                csv.writer(out, delimiter=self.separator, lineterminator="").writerow(record)
                texts[line] = out.getvalue()
        return texts

    def value(self, role: str, line: int, row_text: str) -> str:
        """What stood in the column, as a message should show it."""
        at = self.position[role]
        fields = self.split(row_text)
        text = fields[at] if at < len(fields) else ""
        return repr(_short(text)) if text else "nothing"

    def where(self, line: int) -> str:
        return f"{self.label}, line {line}"


class Frame:
    """A parquet file, a pandas, polars or arrow table, or a dict of arrays."""

    def __init__(self, bench: Workbench, sql: str, label: str, columns: Columns) -> None:
        self.sql, self.label, self.bench = sql, label, bench
        self.found: dict[int, dict] = {}  # 1-based row → role → value, of rows that were shown
        described = bench.rows(f"DESCRIBE SELECT * FROM {sql}")
        types = {row[0]: row[1] for row in described}
        ordered = list(types)
        self.column, self.type, self.name = {}, {}, {}
        for role, name in columns.used().items():
            if isinstance(name, int) and name < len(ordered):
                name = ordered[name]
            if name not in types:
                have = ", ".join(repr(n) for n in ordered)
                raise wrong(f"{label}, column {name!r}", "a column of that name",
                            f"=only {_short(have)}")
            self.column[role] = quoted_name(str(name))
            self.type[role] = types[name]
            self.name[role] = name
        if bench.value(f"SELECT count(*) FROM {sql}") == 0:
            raise wrong(label, "rows", "=an empty table")

    def relation(self) -> str:
        return self.sql

    def line_faults(self, bench: Workbench, rows_read: int) -> list[tuple[int, str, str]]:
        return []

    def lines_of(self, rows: Sequence[int]) -> list[int]:
        return [int(row) + 1 for row in rows]

    def shown(self, lines: Sequence[int]) -> dict[int, str]:
        roles = list(self.column)
        values = ", ".join(f"{self.column[role]} AS v{at}" for at, role in enumerate(roles))
        wanted = ", ".join(str(int(line)) for line in lines)
        rows = self.bench.rows(
            f"SELECT * FROM (SELECT row_number() OVER () AS source_row, {values} FROM {self.sql}) "
            f"WHERE source_row IN ({wanted})"
        )
        self.found = {int(at): dict(zip(roles, row)) for at, *row in rows}
        return {at: ", ".join(f"{self.name[role]}={value}" for role, value in row.items())
                for at, row in self.found.items()}

    def value(self, role: str, line: int, row_text: str) -> str:
        value = self.found[line][role]
        return "nothing or NaN" if value is None else repr(value)

    def where(self, line: int) -> str:
        return f"{self.label}, row {line}"


Table = TextTable | Frame


def parquet(bench: Workbench, path: Path, columns: Columns) -> Frame:
    sql = f"read_parquet('{quoted_text(str(path))}')"
    try:
        return Frame(bench, sql, str(path), columns)
    except ValueError as error:
        if "DuckDB can read" in str(error):
            first = str(error).rsplit("got: ", 1)[-1]
            raise wrong(str(path), "a sound parquet file", f"={first}") from None
        raise


def frame(bench: Workbench, source: Any, columns: Columns) -> Frame | None:
    """`source` as a table, without a copy where its maker allows; None if it is no table."""
    kind = type(source).__module__.split(".")[0]
    label = {"pandas": "pandas table", "polars": "polars table", "pyarrow": "arrow table"}.get(kind)
    if isinstance(source, np.ndarray) and source.dtype.names:
        source = {name: source[name] for name in source.dtype.names}
    if isinstance(source, dict):
        source, label = _plain_arrays(source), "arrays"
    elif kind == "polars":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            missing_package("pyarrow", "polars", "reading polars tables")
        source = source.collect() if hasattr(source, "collect") else source
    elif label is None and hasattr(source, "__arrow_c_stream__"):
        label = "arrow table"
    if label is None or not (isinstance(source, dict) or hasattr(source, "__len__")):
        return None
    if len(source) == 0:
        raise wrong(label, "rows", "=an empty table")
    try:
        bench.connection.register("source_table", source)
    except bench.duckdb.Error as error:
        first = str(error).split("\n")[0]
        raise wrong_type("source", f"{label} that DuckDB can read ({first})", source) from None
    return Frame(bench, "source_table", label, columns)


def _plain_arrays(source: dict) -> dict[str, np.ndarray]:
    arrays = {}
    for name, value in source.items():
        if not isinstance(name, str):
            raise wrong_type("source", "a dict from column names to arrays", name)
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        if array.ndim != 1:
            raise wrong(f"arrays, column {name!r}", "a 1-d array", array)
        if array.dtype.kind in "UST":
            array = array.astype(object)
        elif array.dtype.kind == "M":
            array = array.astype("datetime64[us]")  # DuckDB knows no days
        arrays[name] = array
    sizes = {name: array.size for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise wrong("arrays", "columns of one length", f"={sizes}")
    if sizes and not next(iter(sizes.values())):
        raise wrong("arrays", "rows", "=an empty table")
    return arrays


def compression(path: Path) -> str:
    with path.open("rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else "none"


def _sniff(scan: Scan, wanted: list) -> str:
    """The separator of a file nobody described: one that yields the wanted names, else one that
    occurs in the first line, with the file's ending having the first word."""
    ending = ".tsv" if ".tsv" in scan.path.suffixes else ".csv"
    order = sorted(SEPARATORS, key=lambda s: s != {".tsv": "\t", ".csv": ","}[ending])
    order = sorted(order, key=lambda s: s != "::")  # ':' is in no other separator
    for separator in order:
        if wanted and set(wanted) <= {part.strip('"') for part in scan.head.split(separator)}:
            return separator
    return next((s for s in order if s in scan.head), ",")


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."
