"""Which rows of a reading cannot be events, and the words for it.

What a column holds is decided on all of its rows: numbers or dates, seconds or milliseconds, whole
numbers or text. Only then is a row out of line.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np

from fastpop.checks import wrong, wrong_type
from fastpop.data.presets import UNITS, Preset
from fastpop.data.staging import Piece, Reading
from fastpop.data.workbench import Workbench
from fastpop.ops import event_order, log_rows

EARLY = 1e8  # seconds: March 1973
FAR = 1e11  # seconds: the year 5138. Times beyond are in another unit, or wrong
COMPACT: dict[str, tuple[int, ...]] = {  # a way to write a date as one number → the most of each part
    "%Y%m%d": (),
    "%Y%m%d%H": (23,),
    "%Y%m%d%H%M": (23, 59),
    "%Y%m%d%H%M%S": (23, 59, 59),
}
FEW = 100  # ids that are no whole numbers are odd where so many times more are
(MISSING_USER, MISSING_ITEM, BAD_USER, BAD_ITEM, BAD_TIME, BAD_WEIGHT, BAD_BEHAVIOR, BAD_RATING) = range(1, 9)


@dataclass
class Times:
    """How the column of times is read."""

    kind: str = "none"  # none, number, date, format
    unit: str = "s"
    earliest: float | None = None  # seconds; None: any time will do
    format: str | None = None
    real: bool = False  # some have fractions, so all are doubles

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
        """A line or a list of items goes in whole or not at all."""
        for one in {id(piece.input): piece.input for piece in reading.pieces}.values():
            if one.starts is not None:
                self._spread_over_lists([piece for piece in reading.pieces if piece.input is one])
        for piece in reading.pieces:
            codes = self.codes.get(piece.number)
            if codes is None or piece.input.shape == "table" or piece.input.trusted:
                continue
            lines = piece.found["line"]
            worst = np.zeros(int(lines.max()) + 1, dtype=np.uint8)
            np.maximum.at(worst, lines, codes)
            self.codes[piece.number] = np.where(codes == 0, worst[lines], codes)

    def _spread_over_lists(self, pieces: list[Piece]) -> None:
        """As above, for lists that may begin in one piece and end in the next."""
        if not any(piece.number in self.codes for piece in pieces):
            return
        starts = pieces[0].input.starts
        assert starts is not None
        worst = np.zeros(starts.size - 1, dtype=np.uint8)
        for piece in pieces:
            codes = self.codes.get(piece.number)
            if codes is not None:
                np.maximum.at(worst, piece.record(piece.line(np.arange(piece.rows))), codes)
        for piece in pieces:
            spread = worst[piece.record(piece.line(np.arange(piece.rows)))]
            codes = self.codes.get(piece.number)
            spread = spread if codes is None else np.where(codes == 0, spread, codes)
            if spread.any():
                self.codes[piece.number] = spread

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
        if not times.real:
            _refuse_compact_dates(reading)
    return times


def _refuse_compact_dates(reading: Reading) -> None:
    """20171124 is no second of August 1970, and 20171124103000 no millisecond of the year 2609, where
    every number of the column is a date as well."""
    seen = None
    written = set(COMPACT)
    for piece in reading.pieces:
        tick = reading.columns.get(piece, "tick")
        kind = reading.columns.get(piece, "tick_kind")
        tick = tick if tick is None or kind is None else tick[kind == log_rows.WHOLE_TICK]
        if tick is None or not tick.size:
            continue
        written = {way for way in written if _are_dates(tick, way)}
        if not written:
            return
        seen = seen or (piece, int(tick[0]))
    if seen is not None:
        one = seen[0].input
        place = f"{one.label}, column {one.names['time']!r}"
        raise wrong(
            place,
            "unix time, ISO dates or the format of others",
            text=f"{seen[1]} and the like (dates? columns=Columns(…, time_format={min(written)!r}); unix "
            "time? time_unit='s' or the like)",
        )


def _are_dates(tick: np.ndarray, way: str) -> bool:
    """Whether all whole numbers are days, hours, minutes or seconds of 1900 to 2099, run together."""
    century = 10 ** (6 + 2 * len(COMPACT[way]))
    if int(tick.min()) < 19 * century or int(tick.max()) >= 21 * century:
        return False
    for most in COMPACT[way][::-1]:
        if (tick % 100 > most).any():
            return False
        tick = tick // 100
    month, day = tick // 100 % 100, tick % 100
    return bool(np.all((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)))


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
    reading: Reading, role: str, rule: str, layout: Preset, faults: Faults, notes: list[str]
) -> bool:
    """Whether a column of ids is whole numbers; rows that do not fit are marked.

    Args:
        rule: "auto", "text" or "whole".
    """
    if rule == "text":
        return False
    keep: dict[int, np.ndarray | None] | None = None
    if faults.codes or any(len(piece.faults) for piece in reading.pieces):
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
        raise wrong_type(
            f"{one.label}, column {one.names[role]!r}",
            f"ids of {role}s",
            text=f"truth values ({text['word']})",
        )
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
        at = int(piece.record(piece.line(np.array([row])))[0])
        note = (
            f"{piece.input.where(at)}, column {piece.input.names[role]!r}: {shown!r} is no whole number, "
            f"as {whole:,} other ids are; all are read as text (null_values={shown!r} would leave it "
            "out, id_type='whole' refuse it, id_type='text' take it without a word)"
        )
        notes.append(note)
        warnings.warn(note, UserWarning, stacklevel=5)
    return False


def _mark_kinds(
    reading: Reading, role: str, kinds: list[np.ndarray], bad: tuple[str, ...], faults: Faults, code: int
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
        raise wrong(
            one.where(piece.first_line),
            "whole numbers, as in every other line, for columns given by position",
            text=f"{shown!r} (a header? then give the columns by name, or say header=True)",
        )
