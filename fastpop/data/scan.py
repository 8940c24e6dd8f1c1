"""One pass over a text file before anything parses it, for what a parser would let through.

DuckDB does not check a gzip's checksum, drops empty lines and accepts mixed line ends; here each
is seen, counted, and named by its line. Cost: a read of the file at several hundred MB/s.
"""

import codecs
import glob
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fastpop.checks import wrong, wrong_type

CHUNK = 1 << 22
FOREIGN = {  # first bytes → what such a file is
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ": "an xz file",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
}


@dataclass(frozen=True)
class Scan:
    """What one pass over a text file found.

    `lines` counts all lines; `blank` holds the 1-based numbers of empty lines that have a line
    with text after them, `trailing` counts the empty ones at the end; `head` is the first line
    without its end.
    """

    path: Path
    lines: int
    blank: tuple[int, ...]
    trailing: int
    has_quote: bool
    head: str


def expand(source: Any) -> list[Path]:
    """Files of a path, a glob, or a list of either: sorted within a glob, otherwise as given."""
    many = source if isinstance(source, (list, tuple)) else [source]
    if not many:
        raise wrong("source", "at least one file", source)
    files: list[Path] = []
    for one in many:
        if not isinstance(one, (str, Path)):
            raise wrong_type("source", "a path, a glob, a list of them, a dict of arrays, or a "
                             "pandas, polars or arrow table", one)
        text = str(one)
        if glob.has_magic(text) and not Path(text).exists():
            found = sorted(Path(p) for p in glob.glob(text, recursive=True))
            found = [p for p in found if p.is_file()]
            if not found:
                raise FileNotFoundError(f"source: expected a glob that matches files; got {text!r},"
                                        " which matches none")
            files += found
        elif Path(text).is_dir():
            raise wrong("source", f"a file or a glob such as '{text}/*.csv'", f"=the folder {text}"
                        " (a saved log is opened by Interactions.load)")
        elif not Path(text).exists():
            raise FileNotFoundError(f"source: expected a file; got {text!r}, which does not exist")
        else:
            files.append(Path(text))
    return files


def kind_of(path: Path) -> str:
    """"text", "gzip" or "parquet", by the first bytes; an empty or foreign file raises."""
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise wrong(str(path), "rows", "=an empty file")
    for magic, name in FOREIGN.items():
        if start.startswith(magic):
            raise wrong(str(path), "text, gzip or parquet", f"={name}: unpack it first")
    if start.startswith(b"PAR1"):
        return "parquet"
    return "gzip" if start.startswith(b"\x1f\x8b") else "text"


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where it is a gzip (by content, not by name)."""
    if kind_of(path) == "gzip":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def lines_at(path: Path, wanted: Iterable[int]) -> dict[int, str]:
    """Text of the lines with the given 1-based numbers."""
    left = set(wanted)
    found: dict[int, str] = {}
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if number in left:
                found[number] = line.decode("utf-8-sig", "replace").rstrip("\r\n")
                left.discard(number)
                if not left:
                    break
    return found


def scan_text(path: Path, advance: Callable[[int], None] = lambda _: None) -> Scan:
    """Check bytes, gzip sums, encoding and line ends; count lines.

    Args:
        advance: called with the number of unpacked bytes as they are read.
    Raises:
        ValueError: naming file and line: empty, truncated or corrupt gzip, NUL bytes, not UTF-8,
            mixed or carriage-return line ends.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = crlf = bare_cr = 0
    head = b""
    tail = b""  # last two bytes, to see ends that straddle chunks
    has_quote = gaps = False
    for chunk in _chunks(path):
        advance(len(chunk))
        if b"\x00" in chunk:
            line = newlines + chunk[:chunk.index(b"\x00")].count(b"\n") + 1
            raise wrong(f"{path}, line {line}", "UTF-8 text", "=a NUL byte (UTF-16, or a damaged "
                        "file?)")
        _decode(path, decoder, chunk, newlines)
        if not tail:
            gaps = chunk.startswith((b"\n", b"\r\n"))
        joined = tail + chunk
        gaps = gaps or b"\n\n" in joined or b"\n\r\n" in joined
        if b"\r" in joined:
            # ends within the last two bytes were counted with the previous chunk
            crlf += joined.count(b"\r\n") - tail.count(b"\r\n")
            bare_cr += chunk.count(b"\r")
        if len(head) < CHUNK and b"\n" not in head:
            head += chunk.split(b"\n", 1)[0] + (b"\n" if b"\n" in chunk else b"")
        newlines += chunk.count(b"\n")
        has_quote = has_quote or b'"' in chunk
        tail = joined[-2:]
    bare_cr -= crlf
    if not tail:
        raise wrong(str(path), "rows", "=an empty file")
    if decoder.getstate()[0]:
        raise wrong(f"{path}, line {newlines + 1}", "UTF-8 text", "=a character cut off at the end")
    if bare_cr or (crlf and crlf != newlines):
        raise _line_end_error(path)
    lines = newlines + (not tail.endswith(b"\n"))
    blank, trailing = _blanks(path, lines) if gaps else ((), 0)
    if trailing == lines:
        raise wrong(str(path), "rows", "=only empty lines")
    first = head.decode("utf-8-sig").rstrip("\r\n")
    return Scan(path, lines, blank, trailing, has_quote, first)


def _chunks(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        while True:
            try:
                chunk = file.read(CHUNK)
            except EOFError:
                raise wrong(f"{path}, near line {_last_sound_line(path)}", "a whole gzip file",
                            "=one that ends too early (truncated?)") from None
            except (zlib.error, gzip.BadGzipFile) as error:
                raise wrong(f"{path}, near line {_last_sound_line(path)}", "a sound gzip file",
                            f"=a corrupt one ({error})") from None
            if not chunk:
                return
            yield chunk


def _last_sound_line(path: Path) -> int:
    """How far a damaged gzip can be unpacked, in lines."""
    newlines = 0
    with gzip.open(path, "rb") as file:
        try:
            while chunk := file.read1(CHUNK):
                newlines += chunk.count(b"\n")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            pass
    return newlines + 1


def _decode(path: Path, decoder: Any, chunk: bytes, newlines: int) -> None:
    pending = decoder.getstate()[0]
    if not pending and chunk.isascii():
        return
    try:
        decoder.decode(chunk)
    except UnicodeDecodeError as error:
        before = (pending + chunk)[:error.start]
        line = newlines + before.count(b"\n") + 1
        bad = (pending + chunk)[error.start]
        raise wrong(f"{path}, line {line}", "UTF-8 text", f"=byte 0x{bad:02x}") from None




def _line_end_error(path: Path) -> ValueError:
    first = None
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            end = "CRLF" if line.endswith(b"\r\n") else "LF" if line.endswith(b"\n") else None
            body = line.rstrip(b"\n")
            body = body[:-1] if end == "CRLF" else body
            if b"\r" in body:
                return wrong(f"{path}, line {number}", "lines that end in LF or CRLF",
                             "=a carriage return on its own")
            first = first or end
            if end and end != first:
                return wrong(f"{path}, line {number}", f"the line end of line 1 ({first}) "
                             "throughout", f"={end} (mixed line ends)")
    return wrong(str(path), "one kind of line end", "=mixed line ends")


def _blanks(path: Path, lines: int) -> tuple[tuple[int, ...], int]:
    blank = []
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if not line.rstrip(b"\r\n"):
                blank.append(number)
    trailing = 0
    while blank and blank[-1] == lines - trailing:
        blank.pop()
        trailing += 1
    return tuple(blank), trailing
