"""Which rows of a reading cannot be events, and the words for it.

What a column holds is decided on all of its rows: numbers or dates, seconds or milliseconds, whole
numbers or text. Only then is a row out of line.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fastpop.checks import wrong, wrong_type
from fastpop.data.inputs import Input, short
from fastpop.data.interactions import Rejected
from fastpop.data.presets import UNITS, Preset
from fastpop.data.staging import Piece, Reading, records_at
from fastpop.data.workbench import Workbench
from fastpop.kernels.event_order import _cpu as event_order
from fastpop.kernels.log_rows import _cpu as log_rows

EARLY = 1e8  # seconds: March 1973
FAR = 1e11  # seconds: the year 5138. Times beyond are in another unit, or wrong
FEW = 100  # ids that are no whole numbers are odd where so many times more are
(MISSING_USER, MISSING_ITEM, BAD_USER, BAD_ITEM, BAD_TIME, BAD_WEIGHT, BAD_BEHAVIOR,
 BAD_RATING) = range(1, 9)
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass
class Times:
    """How the column of times is read."""

    kind: str = "none"             # none, number, date, format
    unit: str = "s"
    earliest: float | None = None  # seconds; None: any time will do
    format: str | None = None
    real: bool = False             # some have fractions, so all are doubles

    @property
    def per_second(self) -> int:
        return round(1 / UNITS["ns" if self.kind != "number" else self.unit])


@dataclass
class Faults:
    """Bad rows as they are found: piece number → a code for each row, 0 for a good one."""

    codes: dict[int, np.ndarray] = field(default_factory=dict)

    def mark(self, piece: Piece, bad: np.ndarray, code: int) -> None:
        """The first fault of a row stays."""
        if not bad.any():
            return
        codes = self.codes.setdefault(piece.number, np.zeros(piece.rows, dtype=np.uint8))
        codes[bad & (codes == 0)] = code

    def spread_over_lines(self, reading: Reading) -> None:
        """A line of items goes in whole or not at all."""
        for piece in reading.pieces:
            codes = self.codes.get(piece.number)
            if codes is None or piece.input.shape == "table" or piece.input.trusted:
                continue
            lines = piece.found["line"]
            worst = np.zeros(int(lines.max()) + 1, dtype=np.uint8)
            np.maximum.at(worst, lines, codes)
            self.codes[piece.number] = np.where(codes == 0, worst[lines], codes)

    def good(self, piece: Piece) -> np.ndarray | None:
        """bool [rows], or None where all are good."""
        codes = self.codes.get(piece.number)
        return None if codes is None else codes == 0


def settle_times(reading: Reading, layout: Preset, bench: Workbench) -> Times:
    """Decide on every row at hand whether times are numbers, and in which unit."""
    columns = layout.columns
    if columns is None or columns.time is None:
        return Times()
    if columns.time_format is not None:
        _by_format(reading, columns.time_format, bench)
        return Times("format", format=columns.time_format)
    kinds = np.sum([p.found["tick_kinds"] for p in reading.pieces], axis=0)
    numbers = int(kinds[log_rows.WHOLE_TICK] + kinds[log_rows.REAL_TICK])
    if numbers < kinds[log_rows.DATE_TICK] or not numbers:
        return Times("date")
    times = Times("number", unit=columns.time_unit, real=bool(kinds[log_rows.REAL_TICK]))
    if columns.time_unit == "auto":
        sizes = np.cumsum(np.sum([p.found["tick_sizes"] for p in reading.pieces], axis=0))
        times.unit = list(UNITS)[int(np.searchsorted(sizes, max(1, (numbers + 1) // 2)))] if numbers else "s"
        # Found to be milliseconds or finer, a value of 1970 is a time in seconds among them.
        times.earliest = None if times.unit == "s" else EARLY
        if not times.real and columns.time_unit == "auto":
            _refuse_compact_dates(reading)
    return times


def _refuse_compact_dates(reading: Reading) -> None:
    """20171124 is no second of August 1970, where every time of the column is a date as well."""
    seen = None
    for piece in reading.pieces:
        tick = reading.columns.get(piece, "tick")
        if tick is None or not tick.size:
            continue
        if int(tick.min()) < 19_000_101 or int(tick.max()) > 21_001_231:
            return
        month, day = tick // 100 % 100, tick % 100
        if not np.all((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)):
            return
        seen = seen or (piece, int(tick[0]))
    if seen is not None:
        one = seen[0].input
        place = f"{one.label}, column {one.names['time']!r}"
        raise wrong(place, "unix time, ISO dates or the format of others",
                    f"={seen[1]} and the like (dates? columns=Columns(…, time_format='%Y%m%d'); seconds of "
                    "1970? time_unit='s')")


def _by_format(reading: Reading, time_format: str, bench: Workbench) -> None:
    """Numbered texts become nanoseconds."""
    role = log_rows.ROLES.index("time")
    ticks = []
    for reader in reading.readers:
        texts = np.array([*reader.texts(role), None], dtype=object)
        bench.connection.register("time_texts", {"t": texts})
        quoted = time_format.replace("'", "''")
        found = bench.rows(f"SELECT epoch_ns(try_strptime(t, '{quoted}')) FROM time_texts")
        bench.connection.unregister("time_texts")
        ticks.append([row[0] for row in found])
    bench.close_database()
    for piece in reading.pieces:
        codes = reading.columns.get(piece, "tick")
        if codes is None:
            continue
        table = ticks[piece.reader]
        kind = np.array([log_rows.BAD_TICK if t is None else log_rows.DATE_TICK for t in table], np.uint8)
        tick = np.array([0 if t is None else t for t in table], dtype=np.int64)
        reading.columns.replace(piece, "tick", tick[codes])
        reading.columns.put(piece, {"tick_kind": kind[codes]})


def find(reading: Reading, layout: Preset, times: Times, use_rating: bool) -> Faults:
    """Rows with a value that is missing or cannot be one of its role, ids apart."""
    faults = Faults()
    get = reading.columns.get
    for piece in reading.pieces:
        if not piece.rows:
            continue
        for role, code in (("user", MISSING_USER), ("item", MISSING_ITEM)):
            values = get(piece, role)
            if values is not None and int(values.min()) < 0:
                faults.mark(piece, values < 0, code)
        if times.kind != "none":
            _mark_times(reading, piece, times, faults)
        if piece.found["bad_weights"]:
            faults.mark(piece, np.isnan(_there(get(piece, "weight"))), BAD_WEIGHT)
        behavior = get(piece, "behavior")
        if behavior is not None and int(behavior.min()) < 0:
            faults.mark(piece, behavior < 0, BAD_BEHAVIOR)
        if use_rating and piece.found["bad_ratings"]:
            faults.mark(piece, np.isnan(_there(get(piece, "rating"))), BAD_RATING)
    return faults


def _there(column: np.ndarray | None) -> np.ndarray:
    assert column is not None
    return column


def _mark_times(reading: Reading, piece: Piece, times: Times, faults: Faults) -> None:
    tick = _there(reading.columns.get(piece, "tick"))
    kind = reading.columns.get(piece, "tick_kind")
    wanted = (log_rows.WHOLE_TICK, log_rows.REAL_TICK) if times.kind == "number" else (log_rows.DATE_TICK,)
    if kind is not None:
        bad = ~np.isin(kind, wanted)
    elif log_rows.WHOLE_TICK not in wanted:
        bad = np.ones(piece.rows, dtype=bool)
    else:
        bad = None
    if times.kind == "number":
        if times.real:
            real = tick.astype(np.float64)
            if kind is not None:
                real = np.where(kind == log_rows.REAL_TICK, tick.view(np.float64), real)
            real = np.where(bad, 0.0, real) if bad is not None else real
            seconds = real * UNITS[times.unit]
            reading.columns.replace(piece, "tick", event_order.ordered_bits(real))
            far = ~(np.abs(seconds) < FAR)
            early = seconds < (times.earliest or -np.inf)
            bad = far | early if bad is None else bad | far | early
        else:
            # numbers beyond int64 were read as doubles, so `real` is set where there are any
            limit = FAR * times.per_second
            low = -limit if times.earliest is None else times.earliest * times.per_second
            if int(tick.max()) >= limit or int(tick.min()) < low or int(tick.min()) <= -limit:
                out = (tick >= limit) | (tick < low) | (tick <= -limit)
                bad = out if bad is None else bad | out
    if bad is not None:
        faults.mark(piece, bad, BAD_TIME)


def used_codes(reading: Reading, role: str, keep: dict[int, np.ndarray | None] | None) -> list:
    """For each reader which codes of a role the kept rows have; None is all of them."""
    if keep is None:
        return [None] * len(reading.readers)
    number = log_rows.ROLES.index(role)
    used = [np.zeros(reader.num_texts(number), dtype=np.uint8) for reader in reading.readers]
    for piece in reading.pieces:
        codes = reading.columns.get(piece, role)
        if codes is None:
            continue
        mask = keep.get(piece.number)
        used[piece.reader][codes if mask is None else codes[mask]] = 1
    return used


def settle_ids(
    reading: Reading, role: str, rule: str, layout: Preset, faults: Faults, notes: list[str],
) -> bool:
    """Whether a column of ids is whole numbers; rows that do not fit are marked.

    Args:
        rule: "auto", "text" or "whole".
    """
    if rule == "text":
        return False
    keep: dict[int, np.ndarray | None] | None = None
    if faults.codes or any(piece.faults for piece in reading.pieces):
        keep = {piece.number: faults.good(piece) for piece in reading.pieces}
    count, place, text, kinds = log_rows.count_ids(reading.readers, role, used_codes(reading, role, keep))
    code = BAD_USER if role == "user" else BAD_ITEM
    if layout.whole_ids or rule == "whole":
        _mark_kinds(reading, role, kinds, ("fraction", "word", "text"), faults, code)
        return True
    whole = count["whole"] + count["point"]
    odd = count["padded"] + count["word"] + count["text"]
    if count["word"] and not whole and odd == count["word"] and not count["fraction"]:
        one = reading.pieces[0].input
        raise wrong_type(f"{one.label}, column {one.names[role]!r}", f"ids of {role}s",
                         f"=truth values ({text['word']})")
    if not odd:
        _mark_kinds(reading, role, kinds, ("fraction",), faults, code)
        return True
    first = min((place[kind], kind) for kind in ("padded", "word", "text") if count[kind])
    shown = text[first[1]]
    piece = next(p for p in reading.pieces if p.number == first[0] >> 32)
    row = first[0] & 0xFFFFFFFF
    if whole and odd + count["fraction"] == 1 and row == 0 and not any(c.isdigit() for c in shown):
        _refuse_a_header(reading, role, piece, shown, layout)
    if whole >= FEW * (odd + count["fraction"]):
        at = record_number(piece, row)
        note = (f"{piece.input.where(at)}, column {piece.input.names[role]!r}: {shown!r} is no whole number, "
                f"as {whole:,} other ids are; all are read as text (null_values={shown!r} would leave it "
                "out, id_type='whole' refuse it, id_type='text' take it without a word)")
        notes.append(note)
        warnings.warn(note, UserWarning, stacklevel=5)
    return False


def _mark_kinds(
    reading: Reading, role: str, kinds: list[np.ndarray], bad: tuple[str, ...], faults: Faults, code: int,
) -> None:
    numbers = [log_rows.ID_KINDS.index(name) for name in bad]
    wrong_code = [np.isin(kind, numbers) for kind in kinds]
    if not any(one.any() for one in wrong_code):
        return
    for piece in reading.pieces:
        codes = reading.columns.get(piece, role)
        if codes is not None and codes.size:
            faults.mark(piece, wrong_code[piece.reader][codes] & (codes >= 0), code)


def _refuse_a_header(reading: Reading, role: str, piece: Piece, shown: str, layout: Preset) -> None:
    """Positions say that a file has no header: a first line that alone is no data is one."""
    one = piece.input
    assert layout.columns is not None or one.shape != "table"
    if one.noun != "line" or one.header or layout.names is not None or one.shape != "table":
        return
    if layout.columns is None or not layout.columns.by_position() or piece.first_record:
        return
    codes = reading.columns.get(piece, role)
    if codes is not None and int((codes == codes[0]).sum()) == 1:
        raise wrong(one.where(piece.first_line), "whole numbers, as in every other line, for columns "
                    "given by position", f"={shown!r} (a header? then give the columns by name, or say "
                    "header=True)")


def record_number(piece: Piece, row: int) -> int:
    """Line (or row of a frame) of a row of a piece, from 0."""
    if piece.input.noun == "row":
        return piece.first_record + row
    return int(piece.line(np.array([row]))[0])


def _all(reading: Reading, faults: Faults) -> Iterator[tuple[Piece, int, int, tuple | None]]:
    """(piece, line, code or 0, fault of the record or None) of everything bad, in order."""
    for piece in reading.pieces:
        found: list[tuple[int, int, tuple | None]] = []
        codes = faults.codes.get(piece.number)
        if codes is not None:
            rows = np.flatnonzero(codes)
            found += [(int(line), int(code), None) for line, code in zip(piece.line(rows), codes[rows])]
        found += [(piece.first_line + fault[2], 0, fault) for fault in piece.faults]
        found.sort(key=lambda one: one[:2])
        if piece.input.shape != "table":  # a line of items is bad once, whatever is in it
            found = list({line: (line, code, fault) for line, code, fault in reversed(found)}.values())[::-1]
        yield from ((piece, line, code, fault) for line, code, fault in found)


def raise_first(reading: Reading, faults: Faults, times: Times, layout: Preset) -> None:
    """ValueError for the first bad record, if there is one."""
    for piece, line, code, fault in _all(reading, faults):
        one = piece.input
        (_, data, start), = records_at(one, [(piece, line)])
        reason, text = _reason(one, layout, times, code, fault, data, start)
        place = one.where(_number(piece, line))
        if code:
            raise ValueError(f"{place}, {reason}")
        shown = f": {text[:100]!r}" if text.strip() and one.shape == "table" else ""
        raise ValueError(f"{place}: {reason}{shown}")


def collect(reading: Reading, faults: Faults, times: Times, layout: Preset) -> Rejected | None:
    """Every bad record, with its place, the reason and its text."""
    rejected: tuple[list, list, list, list] = ([], [], [], [])
    bad = list(_all(reading, faults))
    for one in {id(piece.input): piece.input for piece, *_ in bad}.values():
        mine = [entry for entry in bad if entry[0].input is one]
        at: dict[int, list] = {}
        for entry in mine:
            at.setdefault(entry[1], []).append(entry)
        for line, data, start in records_at(one, [(piece, line) for piece, line, *_ in mine]):
            for piece, _, code, fault in at[line]:
                reason, text = _reason(one, layout, times, code, fault, data, start)
                number = _number(piece, line)
                for kept, value in zip(rejected, (one.label, number + 1, reason, text)):
                    kept.append(value)
    return Rejected(*map(tuple, rejected)) if bad else None  # type: ignore[arg-type]


def _number(piece: Piece, line: int) -> int:
    if piece.input.noun == "line":
        return line
    lines = piece.found["line"]
    within = line - piece.first_line
    return piece.first_record + int(np.searchsorted(lines, within) if lines.size else within)


def _reason(
    one: Input, layout: Preset, times: Times, code: int, fault: tuple | None, data: bytes, start: int,
) -> tuple[str, str]:
    """(what was expected and what was there, the record's text)."""
    if one.shape != "table" and not one.trusted:
        text = data[start:].split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
        return _line_reason(one, code, fault, text, layout), text
    fields, end = log_rows.record_fields(one.layout, data, start)
    text = data[start:end].decode("utf-8", "replace").rstrip("\r\n")
    values = [field.decode("utf-8", "replace") for field in fields]
    if one.trusted:
        text = ", ".join(f"{one.names[role]}={values[at] or None}" for role, at in one.position.items())
    if fault is not None:
        return _fault(one, fault), text
    role, expected = _expected(code, times, layout)
    value = values[one.position[role]].strip(" \t")
    got = value if role in one.numeric and value else repr(short(value)) if value else (
        "nothing or NaN" if one.trusted else "nothing")
    return f"column {one.names[role]!r}: expected {expected}; got {got}", text


def _line_reason(one: Input, code: int, fault: tuple | None, text: str, layout: Preset) -> str:
    form = "`item item …`"
    if one.shape == "sequence":
        form = "`user item item …`, a user and at least one item"
    if fault is None:
        return f"expected whole numbers; got {short(text)!r}"
    if fault[0] == log_rows.NULL_TOKEN:
        return f"expected ids, none missing; got {short(text)!r}"
    got = repr(text[:100]) if text.strip() else "an empty line"
    return f"expected {form}; got {got} (ragged row)"


def _fault(one: Input, fault: tuple) -> str:
    fields = f"{one.width} fields separated by {one.separator!r}"
    kind, count = fault[0], fault[4]
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
        return "time", ("an ISO date of the years 1678 to 2261 (2014-12-06, 2014-12-06T02:03:04Z) or "
                        "YYYY-MM-DD HH")
    if code == BAD_WEIGHT:
        return "weight", "a finite number >= 0"
    if code == BAD_BEHAVIOR:
        known = ", ".join(map(repr, layout.behaviors)) if layout.behaviors else "a behavior"
        return "behavior", f"one of {known}" if layout.behaviors else known
    return "rating", "a finite number"


