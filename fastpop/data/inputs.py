"""How the text of one input is laid out: separator, quotes, header, and where each role stands."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastpop.checks import one_of, wrong, wrong_type
from fastpop.data.presets import Columns, Preset
from fastpop.data.scan import File, Stream, text_encoding
from fastpop.ops import log_rows

SEPARATORS = ("::", "\t", ",", ";", "|")
LONGEST_ROW = 1 << 26  # bytes: what a row may take before something must be wrong
NULL_VALUES = ("NULL", "null", "\\N", "NaN", "nan", "None", "NA", "<NA>")
SNIFFED = 1000  # lines that a separator is looked for in
QUOTED = re.compile('"[^"]*"')
QUOTING = {
    "minimal": csv.QUOTE_MINIMAL,
    "all": csv.QUOTE_ALL,
    "nonnumeric": csv.QUOTE_NONNUMERIC,
    "none": csv.QUOTE_NONE,
}


@dataclass(frozen=True)
class TextOptions:
    """What the caller says about the text, checked; see `read_log`."""

    separator: str | None
    encoding: str
    quote: str
    quoting: str | None
    header: bool | None
    null_values: tuple[str, ...]

    @classmethod
    def of(
        cls, separator: Any, encoding: Any, quote: Any, quoting: Any, header: Any, null_values: Any
    ) -> "TextOptions":
        if separator is not None:
            if not isinstance(separator, str) or not 1 <= len(separator.encode()) <= 4:
                raise wrong("separator", "one to four characters", separator)
            if any(c in separator for c in "\r\n\0"):
                raise wrong("separator", "no line end", separator)
        if header is not None and not isinstance(header, bool):
            raise wrong_type("header", "True, False or None", header)
        if quote is not None and not isinstance(quote, str):
            raise wrong_type("quote", "one character, or None", quote)
        quote = quote or ""
        if len(quote.encode()) > 1 or quote in ("\r", "\n") or (quote and quote == separator):
            raise wrong("quote", "one ASCII character that is not the separator, or None", quote)
        if isinstance(quoting, int) and not isinstance(quoting, bool):
            quoting = {number: name for name, number in QUOTING.items()}.get(quoting, quoting)
        quoting = None if quoting == "auto" else quoting
        one_of("quoting", quoting, (None, "auto", *QUOTING))
        if quoting in ("minimal", "all", "nonnumeric") and not quote:
            raise wrong("quote", f"a character with quoting={quoting!r}", None)
        if null_values is None:
            nulls: tuple[str, ...] = NULL_VALUES
        else:
            nulls = (null_values,) if isinstance(null_values, str) else tuple(null_values)
            if not all(isinstance(value, str) for value in nulls):
                raise wrong_type("null_values", "a str or several", null_values)
        return cls(separator, text_encoding(encoding), quote, quoting, header, nulls)


@dataclass
class Input:
    """A text to read and what is known about it.

    Attributes:
        file: where the bytes are; `label` is what messages call it.
        layout: of its records, as the reader takes it.
        skip_lines, skip_bytes: of blank lines and the header before the first record.
        blanks: blank lines among those.
        first_end: ("LF" or "CRLF", line) of those lines.
        names: role → the column's name or position.
        noun: what messages call a record: "line" or "row".
        shape: "table", "sequence" or "sessions".
        numeric: roles whose columns were numbers before they became text.
        trusted: quotes were written by this package: nothing is guessed about them.
        starts: int64 [lists + 1], of a table of lists: where the items of each begin.
    """

    file: File
    label: str
    layout: Any
    encoding: str = "utf-8"
    separator: str = ","
    quoting: str | None = None
    width: int = 0
    skip_lines: int = 0
    skip_bytes: int = 0
    blanks: int = 0
    header: bool = False
    first_end: tuple[str, int] | None = None
    names: dict[str, str | int] = field(default_factory=dict)
    position: dict[str, int] = field(default_factory=dict)
    noun: str = "line"
    shape: str = "table"
    numeric: frozenset[str] = frozenset()
    trusted: bool = False
    records: int | None = None  # where somebody else has counted them
    starts: np.ndarray | None = None

    def where(self, number: int) -> str:
        """`number` is from 0."""
        return f"{self.label}, {self.noun} {number + 1}"


def lines_input(file: File, shape: str, options: TextOptions) -> Input:
    """A file whose lines are lists of items."""
    first = _first_lines(file, options.encoding)[1].split(b"\n")[0].decode("utf-8", "replace").strip()
    other = [s for s in (",", ";", "|", "::") if s in first]
    if len(first.split()) < 2 and other:
        form = "`user item item …`" if shape == "sequence" else "`item item …`"
        raise wrong(
            f"{file.label}, line 1",
            f"{form} separated by spaces",
            text=f"{short(first)!r} (separated by {other[0]!r}?)",
        )
    return Input(
        file,
        file.label,
        log_rows.layout(shape=shape),
        encoding=options.encoding,
        shape=shape,
        names={"user": "user", "item": "item"},
        position={"user": 0, "item": 1},
    )


def table_input(file: File, layout: Preset, columns: Columns, options: TextOptions) -> Input:
    """A csv, tsv or .dat file."""
    blanks, head = _first_lines(file, options.encoding)
    skipped = head[: blanks[1]]
    head = head[blanks[1] :]
    line = head.split(b"\n", 1)[0].rstrip(b"\r")
    used = columns.used()
    named = not columns.by_position()
    header = options.header
    if header is None and layout.names is not None:
        header = False
    if header is False and named and layout.names is None:
        raise wrong("header", "a header for columns given by name (without one, give positions)", False)
    wanted = [str(name) for name in used.values()] if named and layout.names is None else []
    separator = (
        options.separator
        or layout.separator
        or _sniff(
            file,
            line.decode("utf-8", "replace"),
            wanted,
            head[: head.rindex(b"\n")] if b"\n" in head else head,
            list(used.values()),
        )
    )
    quote = options.quote
    if options.quoting == "none" or (options.quoting is None and len(separator.encode()) > 1):
        quote = ""
    shape = log_rows.layout(separator=separator, quote=quote)
    raw, end = log_rows.record_fields(shape, head, 0)
    first = [text.decode("utf-8", "replace").strip(" \t") for text in raw]
    place = f"{file.label}, line {blanks[0] + 1}"
    record = head[:end].removesuffix(b"\n").removesuffix(b"\r")
    if b"\r" in record and (not quote or quote.encode() not in record):
        raise wrong(place, "lines that end in LF or CRLF", text="a carriage return on its own")
    if header is None:
        header = named or _numbered(first)
    names: Sequence[str | int]
    if layout.names is not None:
        names = layout.names
    elif named:
        names = first
    else:
        names = list(range(len(first)))
    _check_first_line(
        place,
        first,
        names,
        list(used.values()),
        separator,
        bool(header) and named,
        known=layout.names is not None,
    )
    position = {role: list(names).index(name) for role, name in used.items()}
    skipped_end = None
    if blanks[0] or (header and head[:end].endswith(b"\n")):
        skipped_end = ("CRLF" if (skipped or head[:end]).endswith(b"\r\n") else "LF", 0)
    return Input(
        file,
        file.label,
        log_rows.layout(
            separator=separator,
            quote=quote,
            quote_all=options.quoting == "all",
            code_times=columns.time_format is not None,
            num_fields=len(names),
            position=position,
        ),
        encoding=options.encoding,
        separator=separator,
        quoting=options.quoting,
        width=len(names),
        skip_lines=blanks[0] + (head[:end].count(b"\n") if header else 0),
        skip_bytes=len(skipped) + (end if header else 0),
        blanks=blanks[0],
        header=bool(header),
        first_end=skipped_end,
        names=dict(used),
        position=position,
    )


def _first_lines(file: File, encoding: str) -> tuple[tuple[int, int], bytes]:
    """((blank lines at the start, their bytes), the bytes of the start of the text), with at least
    one whole record where the file has one."""
    buffer, looked = bytearray(), 0
    with Stream(file, encoding) as stream:
        part = bytearray(1 << 16)
        while len(buffer) <= LONGEST_ROW and (size := stream.read_into(memoryview(part))):
            buffer += part[:size]
            if b"\0" in part[:size]:
                line = buffer[: buffer.index(b"\0")].count(b"\n") + 1
                raise wrong(
                    f"{file.label}, line {line}", "UTF-8 text", text="a NUL byte (UTF-16, or a damaged file?)"
                )
            if len(buffer) < 2 * looked:  # a line without an end is not looked through again and again
                continue
            looked = len(buffer)
            text = buffer.lstrip(b" \r\n")
            # a header that spans lines ends within the quotes that it opens
            if b"\n" in text and (len(text) > 1 << 16 or text.count(b'"') % 2 == 0):
                break
    if not buffer:
        raise wrong(file.label, "rows", text="an empty file")
    lines = blank = 0
    for one in buffer.split(b"\n")[:-1]:
        if one.strip(b" \r"):
            break
        lines, blank = lines + 1, blank + len(one) + 1
    if not buffer.strip(b" \r\n"):
        raise wrong(file.label, "rows", text="only empty lines")
    return (lines, blank), bytes(buffer)


def _numbered(first: list[str]) -> bool:
    """Whether a first line is the header 0, 1, 2 … that tables without names are written with."""
    return len(first) > 2 and first == [str(n) for n in range(len(first))]


def _sniff(file: File, line: str, wanted: list[str], head: bytes, used: list[str | int]) -> str:
    """The separator of a file nobody described: one that yields the wanted names, else one that
    occurs in the first line. Of several, the file's ending has the first word, and then the first
    lines, which a separator parts into equally many fields."""
    endings = [ending.lower() for ending in file.path.suffixes]
    likely = "\t" if ".tsv" in endings else ","
    order = sorted(SEPARATORS, key=lambda s: (s != "::", s != likely))  # ':' is in no other one
    for separator in order:
        parts = {part.strip(' \t"') for part in line.split(separator)}
        if wanted and set(wanted) <= parts:
            return separator
    found = [s for s in order if s in line]
    if len(found) < 2 or found[0] == "::" or (found[0] == likely and {".tsv", ".csv"} & set(endings)):
        return found[0] if found else ","
    lines = head.decode("utf-8", "replace").split("\n")[:SNIFFED]
    lines = [QUOTED.sub("", one) for one in lines if one.strip()]
    least = max((at for at in used if isinstance(at, int)), default=0)
    even = [s for s in found if lines[0].count(s) >= least and len({one.count(s) for one in lines}) == 1]
    if len(even) > 1 and not wanted:
        raise wrong(
            f"{file.label}, line 1",
            "one separator",
            text=f"lines that {even[0]!r} and {even[1]!r} part alike (give separator={even[0]!r} or another)",
        )
    return (even or found)[0]


def _check_first_line(
    place: str, first: list[str], names: Sequence, used: list, separator: str, header: bool, known: bool
) -> None:
    expected = f"columns separated by {separator!r}"
    if len(first) == 1 and (known or len(used) > 1):
        other = [s for s in SEPARATORS if s != separator and s in first[0]]
        hint = f" (separated by {other[0]!r}?)" if other else ""
        if known:
            expected = f"{len(names)} {expected}"
        raise wrong(place, expected, text=f"{short(first[0])!r}{hint}")
    if header:
        repeats = sorted({n for n in first if n in used and first.count(n) > 1})
        if repeats:
            raise wrong(
                f"{place}, column {repeats[0]!r}",
                "each name once in the header",
                text=f"{first.count(repeats[0])} columns of that name",
            )
    for name in used:
        if name not in names:
            have = short(", ".join(map(repr, first))) if header else f"{len(first)} columns"
            raise wrong(
                f"{place}, column {name!r}",
                "a column of that name" if header else "a column at that position",
                text=f"only {have}",
            )


def short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."
