"""Text → pieces: columns of one block each, with every record that cannot be an event known.

A piece is what a reader made of some megabytes of one input. Its columns stay in memory while the
budget lasts and go to a scratch file beyond it.
"""

import itertools
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import files, pages
from fastpop.checks import wrong
from fastpop.data.inputs import LONGEST_ROW, Input
from fastpop.data.scan import Stream
from fastpop.data.workbench import Workbench
from fastpop.ops import log_rows

BLOCK = 1 << 23  # bytes that a reader gets at a time
COLUMNS = ("user", "item", "behavior", "tick", "tick_kind", "weight", "rating")
ID_ROLES = (log_rows.ROLES.index("user"), log_rows.ROLES.index("item"))
SHARE_OF_TEXTS = 0.3  # of the memory budget, before one reader alone goes on
FREED = 1 << 25  # bytes of columns that went to the file, before the system is given their room
SHARE_OF_COLUMNS = 0.35  # of the memory budget, or what ids leave, before columns go to the scratch file


@dataclass
class Piece:
    """Rows of one block; `offset` and `first_line` are those of the block in its input's text."""

    input: Input
    number: int
    reader: int
    offset: int
    size: int
    rows: int
    records: int
    found: dict
    first_line: int = 0
    first_record: int = 0
    columns: dict[str, "np.ndarray | Stored"] = field(default_factory=dict)
    fate: np.ndarray | None = None

    @property
    def faults(self) -> np.ndarray:
        """int32 [faults, 5] of records that are none: kind, rows before it, first and last line of
        the block, fields that were there."""
        return self.found["faults"]

    def line(self, rows: np.ndarray) -> np.ndarray:
        """Lines in the input of rows of this piece, both from 0."""
        lines = self.found["line"]
        return self.first_line + (lines[rows] if lines.size else rows)

    def record(self, line: Any) -> np.ndarray:
        """What messages number, from 0, of lines in the input: lines of a file, rows of a table."""
        one, lines = self.input, self.found["line"]
        if one.noun == "line":
            return np.asarray(line)
        within = np.asarray(line) - self.first_line
        row = self.first_record + (np.searchsorted(lines, within) if lines.size else within)
        return row if one.starts is None else np.searchsorted(one.starts, row, side="right") - 1


@dataclass(frozen=True)
class Stored:
    """An array in the scratch file."""

    at: int
    size: int
    dtype: np.dtype


class ColumnStore:
    """The columns of all pieces, in memory up to a budget and in one file beyond it."""

    def __init__(self, folder: Path, budget: float) -> None:
        self.path = folder / "columns"
        self.budget = self.left = budget
        self.inside: list[Piece] = []  # whose columns are in memory
        self.end = self.freed = 0

    def put(self, piece: Piece, arrays: dict[str, np.ndarray]) -> None:
        size = sum(array.nbytes for array in arrays.values())
        if size <= self.left:
            self.left -= size
            piece.columns.update(arrays)
            self.inside.append(piece)
            return
        self._store(piece, arrays)

    def shrink(self, budget: float) -> None:
        """Keep so many bytes in memory from now on: what is more goes to the file."""
        if budget >= self.budget:
            return
        self.left -= self.budget - budget
        self.budget = budget
        if self.left >= 0 or not self.inside:
            return
        while self.left < 0 and self.inside:
            piece = self.inside.pop()
            held = {name: array for name, array in piece.columns.items() if isinstance(array, np.ndarray)}
            self.left += sum(array.nbytes for array in held.values())
            self._store(piece, held)
            self.freed += sum(array.nbytes for array in held.values())
        if self.freed > FREED:
            pages.give_back()
            self.freed = 0

    def _store(self, piece: Piece, arrays: dict[str, np.ndarray]) -> None:
        with files.temporary(self.path.parent), self.path.open("r+b" if self.end else "wb") as file:
            for name, array in arrays.items():
                have = piece.columns.get(name)
                at = self.end
                if isinstance(have, Stored) and have.size * have.dtype.itemsize >= array.nbytes:
                    at = have.at  # the new one takes its place
                file.seek(at)
                file.write(np.ascontiguousarray(array).data)
                piece.columns[name] = Stored(at, array.size, array.dtype)
                self.end = max(self.end, at + array.nbytes)

    def get(self, piece: Piece, name: str) -> np.ndarray | None:
        column = piece.columns.get(name)
        if isinstance(column, Stored):
            with self.path.open("rb") as file:
                return np.fromfile(file, column.dtype, column.size, offset=column.at)
        return column

    def replace(self, piece: Piece, name: str, array: np.ndarray) -> None:
        """Put an array in the place of one that `get` gave."""
        if isinstance(piece.columns.get(name), Stored):
            self._store(piece, {name: array})
        else:
            piece.columns[name] = array


class Reading:
    """Every input read once, by as many threads as the workbench has.

    Attributes:
        readers: one a thread; each numbered the texts that it saw.
        pieces: in the order of the source.
        records, blanks: of all inputs.
    """

    def __init__(self, bench: Workbench, null_values: tuple[str, ...], raise_first: bool) -> None:
        self.bench = bench
        self.raise_first = raise_first
        self.active = bench.readers
        self.readers = [log_rows.RowReader(list(null_values)) for _ in range(self.active)]
        self.pieces: list[Piece] = []
        self.columns = ColumnStore(bench.folder, SHARE_OF_COLUMNS * bench.budget)
        self.blanks = self.records = 0
        self.numbers = itertools.count()
        self.stopped = False
        self.buffers: list[np.ndarray] = []  # to be used again: fresh memory costs the system time

    def _buffer(self, size: int) -> np.ndarray:
        while self.buffers:
            buffer = self.buffers.pop()
            if size <= buffer.size < 2 * BLOCK:
                return buffer
        return np.empty(max(size, BLOCK + (1 << 16)), dtype=np.uint8)

    def read(self, one: Input, advance: Callable[[int], None]) -> None:
        """Read an input to its end, or to its first bad record where that is to be raised."""
        before = len(self.pieces)
        free: queue.SimpleQueue = queue.SimpleQueue()
        for at in range(self.active):
            free.put(at)
        pool = ThreadPoolExecutor(len(self.readers))
        waiting: list[Future] = []
        tally = Tally(one)
        try:
            with Stream(one.file, one.encoding) as stream:
                for block in self._blocks(stream, one, tally, advance):
                    waiting.append(pool.submit(self._piece, free, one, *block))
                    while len(waiting) > len(self.readers) + 1 or (waiting and waiting[0].done()):
                        self._take(waiting.pop(0).result(), tally)
                    if self.stopped:
                        break
                while waiting and not self.stopped:
                    self._take(waiting.pop(0).result(), tally)
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown(wait=True)
        if not self.stopped:
            tally.check(stream.lines)
            _drop_trailing(one, self.pieces[before:], tally)
        self.blanks += tally.blanks
        self.records += tally.records if one.starts is None else one.starts.size - 1

    def _blocks(
        self, stream: Stream, one: Input, tally: "Tally", advance: Callable[[int], None]
    ) -> Iterator[tuple[np.ndarray, int, int, int, int]]:
        """(bytes, start in them, offset, size, number) of blocks of whole records."""
        skip = one.skip_bytes
        carry = b""
        packed = offset = 0
        room = BLOCK
        while True:
            buffer = self._buffer(len(carry) + room + 2 + log_rows.PADDING)
            buffer[: len(carry)] = np.frombuffer(carry, dtype=np.uint8)
            view = buffer.data[: len(carry) + room]
            size = len(carry)
            while size < len(view) and (got := stream.read_into(view[size:])):
                if log_rows.count_byte(buffer, size, got, 0):
                    raise _nul(one, buffer[size : size + got], stream.lines)
                stream.lines += log_rows.count_byte(buffer, size, got, 10)
                size += got
                advance(stream.packed - packed)
                packed = stream.packed
            last = size < len(view)
            if last and size and buffer[size - 1] != 10:
                if one.encoding == "utf-8" and _cut_off(buffer[max(0, size - 3) : size].tobytes()):
                    raise wrong(one.where(stream.lines), "UTF-8 text", text="a character cut off at the end")
                size += _end_line(one, buffer, size)
                stream.lines += 1
            start = min(skip, size)  # blank lines and the header
            skip -= start
            cut = size - start if last else log_rows.last_record_end(one.layout, buffer, start, size - start)
            if cut:
                yield buffer, start, offset + start, cut, next(self.numbers)
            if last:
                return
            offset += start + cut
            carry = buffer[start + cut : size].tobytes()
            if len(carry) > LONGEST_ROW:
                first = stream.lines - carry.count(b"\n")
                raise _too_long(one, carry, first)
            room = BLOCK if len(carry) > LONGEST_ROW // 2 else max(BLOCK, len(carry))

    def _piece(
        self,
        free: queue.SimpleQueue,
        one: Input,
        data: np.ndarray,
        start: int,
        offset: int,
        size: int,
        number: int,
    ) -> Piece:
        reader = free.get()
        try:
            found = self.readers[reader].read(one.layout, data, start, size, number)
        finally:
            if reader < self.active:
                free.put(reader)
        self.buffers.append(data)
        piece = Piece(one, number, reader, offset, size, found["rows"], found["records"], found)
        piece.columns = {name: found.pop(name) for name in COLUMNS}
        if piece.found["tick_kinds"][log_rows.WHOLE_TICK] == piece.rows:
            del piece.columns["tick_kind"]
        return piece

    def _take(self, piece: Piece, tally: "Tally") -> None:
        piece.first_line, piece.first_record = tally.lines, tally.records
        tally.add(piece)
        arrays = {
            name: array
            for name, array in piece.columns.items()
            if isinstance(array, np.ndarray) and array.size
        }
        piece.columns = {}
        held = sum(reader.bytes() for reader in self.readers)
        if held > SHARE_OF_TEXTS * self.bench.budget:
            self.active = 1  # each reader numbers the texts anew: one alone goes on
        texts = sum(reader.num_texts(role) for reader in self.readers for role in ID_ROLES)
        held += log_rows.SORT_BYTES * texts
        if held > self.bench.budget:
            raise MemoryError(
                f"memory_limit: expected room for the distinct ids, {held // 10**6}MB so "
                f"far; got {self.bench.limit_in_words()}"
            )
        self.columns.shrink(self.bench.budget - self.bench.beside - held)
        self.columns.put(piece, arrays)
        self.pieces.append(piece)
        if self.raise_first and _has_fault(piece):
            self.stopped = True


class Tally:
    """Lines and records of one input; what does not fit together raises."""

    def __init__(self, one: Input) -> None:
        self.input = one
        self.lines = one.skip_lines
        self.blanks = one.blanks
        self.inside = one.skip_lines - one.blanks - one.header
        self.records = self.many_lined = 0
        self.first_end = one.first_end
        self.swallowed: tuple[int, int] | None = None

    def add(self, piece: Piece) -> None:
        """Count a piece, and raise for a fault of the whole file: line ends, encoding, quotes."""
        one, found = self.input, piece.found
        if found["stray_return"] >= 0:
            raise wrong(
                one.where(self.lines + found["stray_return"]),
                "lines that end in LF or CRLF",
                text="a carriage return on its own",
            )
        ends = sorted(
            (found[name], shown)
            for name, shown in (("first_lf", "LF"), ("first_crlf", "CRLF"))
            if found[name] >= 0
        )
        for line, end in ends:
            self.first_end = self.first_end or (end, self.lines + line)
            if end != self.first_end[0]:
                raise wrong(
                    one.where(self.lines + line),
                    f"the line end of line {self.first_end[1] + 1} ({self.first_end[0]}) throughout",
                    text=f"{end} (mixed line ends)",
                )
        if found["not_utf8"] >= 0:
            raise _not_utf8(piece, self.lines + found["not_utf8"])
        self._quotes(piece)
        self.lines += found["lines"]
        self.blanks += found["blanks"]
        self.inside += found["inside"]
        self.records += piece.records

    def _quotes(self, piece: Piece) -> None:
        """A quote that is data swallows rows up to the next one: the file does not say which are."""
        one, found = self.input, piece.found
        if one.trusted:
            return
        spans = piece.faults[piece.faults[:, 3] > piece.faults[:, 2]]
        if len(spans):
            kind, _, start, stop, _ = spans[0].tolist()
            raise _swallows(
                one,
                self.lines + start,
                self.lines + stop,
                " and is never closed" if kind == log_rows.OPEN_QUOTE else "",
            )
        self.many_lined += found["many_lined"]
        first, last = found["swallow"]
        if first >= 0 and self.swallowed is None:
            self.swallowed = (self.lines + first, self.lines + last)
        if self.swallowed is not None and one.quoting is None:
            raise _swallows(one, *self.swallowed, "")

    def check(self, lines: int) -> None:
        """Records, blank lines, the header and line ends inside of quotes are all the lines."""
        one = self.input
        if self.swallowed is not None and self.many_lined == 1:
            raise _swallows(one, *self.swallowed, "")
        counted = self.records + self.blanks + one.header + self.inside
        if counted != lines or self.lines != lines:
            raise wrong(
                one.label,
                f"{lines} lines, as counted by themselves",
                text=f"{counted} in records, blank lines and quotes, {self.lines} seen: the reader lost some",
            )
        if one.records is not None and one.records != self.records:
            raise wrong(one.label, f"{one.records} rows", text=f"{self.records}: the reader lost some")
        if not self.records:
            raise wrong(one.label, "rows below the header", text="a header alone")


def _drop_trailing(one: Input, pieces: list[Piece], tally: Tally) -> None:
    """Empty lines that end a file of sequences are no empty sequences."""
    if one.shape == "table":
        return
    end = tally.lines - 1
    for piece in reversed(pieces):
        while (
            len(piece.faults)
            and piece.faults[-1, 0] == log_rows.EMPTY_LINE
            and (piece.first_line + piece.faults[-1, 2] == end)
        ):
            piece.found["faults"] = piece.faults[:-1]
            piece.found["trailing"] = piece.found.get("trailing", 0) + 1
            end -= 1
            tally.records -= 1
            tally.lines -= 1
            tally.blanks += 1
        if end >= piece.first_line:
            break


def _has_fault(piece: Piece) -> bool:
    found = piece.found
    # whether an empty line ends a file of sequences is seen at its end
    if (piece.faults[:, 0] != log_rows.EMPTY_LINE).any():
        return True
    if found["bad_weights"] or found["bad_ratings"]:
        return True
    kinds = found["tick_kinds"]
    if kinds[0] or kinds[log_rows.BAD_TICK]:
        return True
    return any(
        isinstance(array, np.ndarray) and array.size and int(array.min()) < 0
        for array in (piece.columns.get(name) for name in ("user", "item", "behavior"))
    )


def _end_line(one: Input, buffer: np.ndarray, size: int) -> int:
    """End the last line as the one before it; returns the bytes that takes."""
    ends = np.flatnonzero(buffer[:size] == 10)
    if ends.size:
        returns = ends[-1] > 0 and buffer[ends[-1] - 1] == 13
    else:
        returns = one.first_end is not None and one.first_end[0] == "CRLF"
    end = b"\r\n" if returns and buffer[size - 1] != 13 else b"\n"
    buffer[size : size + len(end)] = np.frombuffer(end, dtype=np.uint8)
    return len(end)


def _cut_off(tail: bytes) -> bool:
    """Whether text ends within a character."""
    for back, byte in enumerate(reversed(tail), 1):
        if byte >= 0xC0:
            return back < (4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2)
        if byte < 0x80:
            break
    return False


def _nul(one: Input, part: np.ndarray, lines: int) -> ValueError:
    if one.trusted:
        return wrong(_place_of_nul(one), "text without NUL characters", text="one with")
    line = lines + int(np.count_nonzero(part[: int((part == 0).argmax())] == 10))
    return wrong(one.where(line), "UTF-8 text", text="a NUL byte (UTF-16, or a damaged file?)")


def _place_of_nul(one: Input) -> str:
    """Row and column of a table's first NUL, in the text that was made of it."""
    quotes = row = column = 0
    with one.file.path.open("rb") as file:
        while text := file.read(BLOCK):
            part = np.frombuffer(text.partition(b"\0")[0], dtype=np.uint8)
            outside = (quotes + np.cumsum(part == ord('"'))) % 2 == 0
            ends = np.flatnonzero(outside & (part == ord("\n")))
            row += ends.size
            behind = slice(int(ends[-1]) if ends.size else 0, None)
            column = (0 if ends.size else column) + int((outside & (part == ord(",")))[behind].sum())
            quotes += int((part == ord('"')).sum())
            if part.size < len(text):
                break
    row = row if one.starts is None else int(np.searchsorted(one.starts, row, side="right")) - 1
    name = next(one.names[role] for role, at in one.position.items() if at == column)
    return f"{one.where(row)}, column {name!r}"


def _too_long(one: Input, carry: bytes, line: int) -> ValueError:
    quote = (
        ""
        if one.quoting == "none" or b'"' not in carry[:LONGEST_ROW]
        else (" (a quote that is never closed? quoting='none' takes quotes as data)")
    )
    return wrong(one.where(line), f"rows of up to {LONGEST_ROW >> 20} MB", text=f"a longer one{quote}")


def _swallows(one: Input, first: int, last: int, how: str) -> ValueError:
    return wrong(
        one.where(first),
        "a quote that closes in its own field",
        text=f"one that opens here{how} and would swallow the rows to line {last + 1} "
        "(quoting='none' takes quotes as data)",
    )


def _not_utf8(piece: Piece, line: int) -> ValueError:
    one = piece.input
    for at, data, start in records_at(one, [(piece, [line])]):
        if one.shape == "table":
            fields = log_rows.record_fields(one.layout, data, start)[0]
            used = [
                (f" in column {one.names[role]!r}", fields[n])
                for role, n in one.position.items()
                if n < len(fields)
            ]
        else:
            used = [("", data[start:].split(b"\n", 1)[0])]
        for column, value in used:
            try:
                value.decode("utf-8")
            except UnicodeDecodeError as error:
                return wrong(
                    one.where(at),
                    "UTF-8 text",
                    text=f"byte 0x{value[error.start]:02x}{column} "
                    "(another encoding? encoding='latin-1' or the like)",
                )
    return wrong(one.where(line), "UTF-8 text", text="other bytes")


def records_at(one: Input, wanted: Iterable[tuple[Piece, list[int]]]) -> Iterator[tuple[int, bytes, int]]:
    """(line, bytes, where in them it starts) of lines of an input; read once more, piece by piece.

    wanted: pieces in the order of the input, and lines of each.
    """
    with Stream(one.file, one.encoding) as stream:
        for piece, lines in wanted:
            data = _reread(stream, piece.offset, piece.size)
            if not data.endswith(b"\n"):
                data += b"\n"  # as the reader ended the last line
            ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 10)
            for line in lines:
                within = line - piece.first_line
                yield line, data, 0 if within == 0 else int(ends[within - 1]) + 1


def _reread(stream: Stream, offset: int, size: int) -> bytes:
    if stream.seekable:
        stream.seek(offset)
    buffer = bytearray(BLOCK)
    while stream.at < offset:
        if not stream.read_into(memoryview(buffer)[: min(BLOCK, offset - stream.at)]):
            break
    data = bytearray()
    while len(data) < size and (got := stream.read_into(memoryview(buffer)[: min(BLOCK, size - len(data))])):
        data += buffer[:got]
    return bytes(data)
