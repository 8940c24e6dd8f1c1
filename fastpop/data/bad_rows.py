"""Bad records in words: the first one as an error, or all that were skipped as `Rejected`."""

from collections.abc import Iterator

import numpy as np

from fastpop.data.faults import (
    BAD_BEHAVIOR,
    BAD_ITEM,
    BAD_TIME,
    BAD_USER,
    BAD_WEIGHT,
    MISSING_ITEM,
    MISSING_USER,
    Faults,
    Times,
)
from fastpop.data.inputs import Input, short
from fastpop.data.presets import Preset
from fastpop.data.rejected import Rejected
from fastpop.data.staging import Piece, Reading, records_at
from fastpop.ops import log_rows

UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
SHARE_OF_REJECTED = 0.1  # of the memory budget, for rejected rows that are kept
COST = 300  # bytes of a kept row besides its reason and its text
LINE, CODE, KIND, FIELDS = range(4)  # columns of what `_found` gives


def raise_first(reading: Reading, faults: Faults, times: Times, layout: Preset) -> None:
    """ValueError for the first bad record, if there is one."""
    for piece, bad in _found(reading, faults):
        one = piece.input
        line, code, kind, fields = bad[0].tolist()
        ((_, data, start),) = records_at(one, [(piece, [line])])
        reason, text = _reason(one, layout, times, (code, kind, fields), data, start)
        place = one.where(int(piece.record(line)))
        if code:
            raise ValueError(f"{place}, {reason}")
        shown = f": {text[:100]!r}" if text.strip() and one.shape == "table" else ""
        raise ValueError(f"{place}: {reason}{shown}")


def collect(reading: Reading, faults: Faults, times: Times, layout: Preset) -> tuple[Rejected | None, int]:
    """(bad records with their place, the reason and their text; how many there are). All of them are
    counted, and kept in their order as long as there is room."""
    count = 0
    room = SHARE_OF_REJECTED * reading.bench.budget
    kept: tuple[list, list, list, list] = ([], [], [], [])
    by_input: dict[int, list[tuple[Piece, np.ndarray]]] = {}
    for piece, bad in _found(reading, faults):
        if count * COST < room:
            by_input.setdefault(id(piece.input), []).append((piece, bad))
        count += len(bad)
    for found in by_input.values():
        one = found[0][0].input
        lines = ((piece, bad[:, LINE].tolist()) for piece, bad in found)
        entries = ((piece, entry) for piece, bad in found for entry in bad.tolist())
        for (piece, entry), (_, data, start) in zip(entries, records_at(one, lines)):
            reason, text = _reason(one, layout, times, tuple(entry[CODE:]), data, start)
            room -= COST + len(reason) + len(text)
            if room < 0:
                break
            number = int(piece.record(entry[LINE])) + 1
            for column, value in zip(kept, (one.label, number, reason, text)):
                column.append(value)
    return (Rejected(*map(tuple, kept)) if count else None), count  # type: ignore[arg-type]


def _found(reading: Reading, faults: Faults) -> Iterator[tuple[Piece, np.ndarray]]:
    """(piece, int64 [bad records, 4]: line, code or 0, kind of the record's fault or 0, its fields) of
    everything bad, in order. A line or a list of items is bad once, whatever is in it."""
    last: tuple[int, int] | None = None  # a list that was bad in the piece before
    for piece in reading.pieces:
        codes = faults.codes.get(piece.number)
        rows = np.empty(0, np.int64) if codes is None else np.flatnonzero(codes)
        bad = np.zeros((rows.size + len(piece.faults), 4), dtype=np.int64)
        if codes is not None:
            bad[: rows.size, LINE], bad[: rows.size, CODE] = piece.line(rows), codes[rows]
        bad[rows.size :, LINE] = piece.first_line + piece.faults[:, 2]
        bad[rows.size :, KIND], bad[rows.size :, FIELDS] = piece.faults[:, 0], piece.faults[:, 4]
        bad = bad[np.lexsort((bad[:, CODE], bad[:, LINE]))]
        if piece.input.shape != "table" or piece.input.starts is not None:
            records, first = np.unique(piece.record(bad[:, LINE]), return_index=True)
            if records.size and last == (id(piece.input), int(records[0])):
                first = first[1:]
            bad = bad[first]
            if records.size:
                last = id(piece.input), int(records[-1])
        if len(bad):
            yield piece, bad


def _reason(
    one: Input, layout: Preset, times: Times, bad: tuple[int, ...], data: bytes, start: int
) -> tuple[str, str]:
    """(what was expected and what was there, the record's text)."""
    code, kind, count = bad
    if one.shape != "table" and not one.trusted:
        text = data[start : data.index(b"\n", start)].decode("utf-8", "replace").rstrip("\r")
        return _line_reason(one, kind, text), text
    fields, end = log_rows.record_fields(one.layout, data, start)
    text = data[start:end].decode("utf-8", "replace").rstrip("\r\n")
    values = [field.decode("utf-8", "replace") for field in fields]
    if one.trusted:
        text = ", ".join(f"{one.names[role]}={values[at] or None}" for role, at in one.position.items())
    if kind:
        return _fault(one, kind, count), text
    role, expected = _expected(code, times, layout)
    value = values[one.position[role]].strip(" \t")
    got = (
        value
        if role in one.numeric and value
        else repr(short(value))
        if value
        else ("nothing or NaN" if one.trusted else "nothing")
    )
    return f"column {one.names[role]!r}: expected {expected}; got {got}", text


def _line_reason(one: Input, kind: int, text: str) -> str:
    form = "`item item …`"
    if one.shape == "sequence":
        form = "`user item item …`, a user and at least one item"
    if not kind:
        return f"expected whole numbers; got {short(text)!r}"
    if kind == log_rows.NULL_TOKEN:
        return f"expected ids, none missing; got {short(text)!r}"
    got = repr(text[:100]) if text.strip() else "an empty line"
    return f"expected {form}; got {got} (ragged row)"


def _fault(one: Input, kind: int, count: int) -> str:
    fields = f"{one.width} fields separated by {one.separator!r}"
    if kind == log_rows.RAGGED:
        return f"expected {fields}; got {count} (ragged row)"
    if kind == log_rows.OPEN_QUOTE:
        return "expected quotes around whole fields; got a quote that is not closed"
    if kind == log_rows.AFTER_QUOTE:
        return "expected quotes around whole fields; got text after a closing quote"
    return "expected every field in quotes (quoting='all'); got one without"


def _expected(code: int, times: Times, layout: Preset) -> tuple[str, str]:
    if code in (MISSING_USER, MISSING_ITEM):
        return ("user" if code == MISSING_USER else "item"), "an id, none missing"
    if code in (BAD_USER, BAD_ITEM):
        return ("user" if code == BAD_USER else "item"), "a whole number below 2**63"
    if code == BAD_TIME:
        if times.kind == "format":
            return "time", f"a time like {times.format}"
        if times.kind == "number":
            after = "" if times.earliest is None else "after 1973 and "
            return "time", f"unix time in {UNIT_NAMES[times.unit]}, {after}before the year 5138"
        return "time", (
            "an ISO date of the years 1678 to 2261 (2014-12-06, 2014-12-06T02:03:04Z) or YYYY-MM-DD HH"
        )
    if code == BAD_WEIGHT:
        return "weight", "a finite number >= 0"
    if code == BAD_BEHAVIOR:
        known = ", ".join(map(repr, layout.behaviors)) if layout.behaviors else "a behavior"
        return "behavior", f"one of {known}" if layout.behaviors else known
    return "rating", "a finite number"
