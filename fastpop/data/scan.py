"""Bytes of a log: which files a source means, what kind each is, and its text as a checked stream.

Everything that is no plain UTF-8 text (gzip, another encoding, a pipe) becomes it here; what comes
out of `Stream` is what the rest reads.
"""

import codecs
import contextlib
import glob
import gzip
import os
import re
import select
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fastpop import files
from fastpop.checks import wrong, wrong_type
from fastpop.data.paths import local_path

CHUNK = 1 << 20
# A gzip file that unpacks to more than so many times its size is no log, from so many bytes on.
MOST_RATIO, RATIO_FROM = 250, 1 << 26
PATIENCE = 3.0  # seconds that a pipe may have no writer before it is refused
Bar = Callable[[str, float | None, str], Any]  # as `Workbench.bar`
STANDARD_INPUT = "standard input"
FOREIGN = {  # first bytes → what such a file is; a header may begin with BZh or PAR1
    rb"PK\x03\x04": "a zip archive",
    rb"\xfd7zXZ\x00": "an xz file",
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": "a bzip2 file",
    rb"\x28\xb5\x2f\xfd": "a zstd file",
}
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class File:
    """A regular file to read: where its bytes are, what a message calls it, and what it holds
    ("text", "gzip" or "parquet", by its first bytes)."""

    path: Path
    label: str
    kind: str


def expand(source: Any, folder: Path, bar: Bar | None = None) -> list[File]:
    """The files of a path, a glob, "-", or a list of such: sorted within a glob, otherwise as given.

    A str with a `*` that is no file's name is a glob, in which nothing but `*` and `**` is special;
    every other path is a name. A stream (a pipe, standard input) is copied into `folder` first, while
    `bar` shows how much of it.
    """
    many = source if isinstance(source, (list, tuple)) else [source]
    if not many:
        raise wrong("source", "at least one file", source)
    files: list[File] = []
    for one in many:
        if not isinstance(one, (str, bytes, os.PathLike)):
            raise wrong_type(
                "source",
                "a path, a glob, '-' (standard input), a list of them, a dict of "
                "arrays, or a pandas, polars or arrow table",
                one,
            )
        if one == "-":
            files.append(_spooled(_standard_input(), b"", STANDARD_INPUT, folder, len(files), bar))
            continue
        path = local_path(one, "source")
        if isinstance(one, str) and "*" in one and not os.path.lexists(path):
            found = sorted(glob.glob(str(path).replace("[", "[[]").replace("?", "[?]"), recursive=True))
            paths = [Path(name) for name in found if os.path.isfile(name)]
            if not paths:
                raise FileNotFoundError(
                    f"source: expected a glob that matches files; got {one!r}, which matches none"
                )
            files += [_regular(p) for p in paths]
        else:
            files.append(_named(path, folder, len(files), bar))
    return files


def _named(path: Path, folder: Path, number: int, bar: Bar | None) -> File:
    shown = shown_path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"source: expected a file; got {shown!r}, which does not exist") from None
    if stat.S_ISDIR(mode):
        raise wrong(
            "source",
            f"a file or a glob such as '{shown}/*.csv'",
            text=f"the folder {shown} (a prepared one is opened by Interactions.open)",
        )
    if stat.S_ISREG(mode):
        return _regular(path)
    if stat.S_ISFIFO(mode):
        return _spooled(*_pipe(path), shown, folder, number, bar)
    kind = "a socket" if stat.S_ISSOCK(mode) else "a terminal" if _is_terminal(path) else "a device"
    raise wrong("source", "a file, a pipe or '-' (standard input)", text=f"{shown}, {kind}")


def _is_terminal(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.isatty(handle)
    finally:
        os.close(handle)


def _standard_input() -> int:
    try:
        handle = sys.stdin.fileno()
        mode = os.fstat(handle).st_mode
    except (OSError, ValueError, AttributeError):  # None where the process began without one
        raise wrong("source", "data on standard input", text="a closed one") from None
    if os.isatty(handle):
        raise wrong("source", "data on standard input ('-')", text="a terminal")
    if stat.S_ISDIR(mode):
        raise wrong("source", "data on standard input ('-')", text="a folder")
    return os.dup(handle)


def _pipe(path: Path) -> tuple[int, bytes]:
    """The reading end of a named pipe and its first bytes; nobody waits for a writer for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    end = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                first = os.read(handle, CHUNK)
            except BlockingIOError:  # somebody writes, but has not yet
                select.select([handle], [], [], 0.2)
                continue
            if first:
                os.set_blocking(handle, True)
                return handle, first
            if time.monotonic() > end:
                raise wrong(
                    "source",
                    "a pipe that something writes",
                    text=f"{shown_path(path)}, a named pipe without a writer, or with nothing in it",
                )
            time.sleep(0.02)
    except BaseException:
        os.close(handle)
        raise


def _spooled(handle: int, first: bytes, label: str, folder: Path, number: int, bar: Bar | None) -> File:
    """A stream's bytes as a file: it can be read only once, and a bad row must be shown."""
    path = folder / f"stream-{number}"
    with (
        files.temporary(folder),
        open(handle, "rb", buffering=0) as stream,
        path.open("wb") as file,
        contextlib.nullcontext() if bar is None else bar("copy", None, "B") as shown,
    ):
        file.write(first)
        while chunk := stream.read(CHUNK):
            file.write(chunk)
            if shown is not None:
                shown.update(len(chunk))
    return File(path, label, kind_of(path, label))


def _regular(path: Path) -> File:
    label = shown_path(path)
    return File(path, label, kind_of(path, label))


def shown_path(path: Path) -> str:
    """A path as a message can hold it: bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def kind_of(path: Path, label: str) -> str:
    """ "text", "gzip" or "parquet", by the first bytes; an empty or foreign file raises."""
    with path.open("rb") as file:
        start = file.read(10)
        file.seek(-min(4, len(start)), os.SEEK_END)
        end = file.read()
    if not start:
        raise wrong(label, "rows", text="an empty file")
    for magic, name in FOREIGN.items():
        if re.match(magic, start, re.DOTALL):
            raise wrong(label, "text, gzip or parquet", text=f"{name}: unpack it first")
    if start.startswith(b"PAR1") and (end == b"PAR1" or not start[4:5].isascii() or start[4:5] < b" "):
        return "parquet"
    return "gzip" if start.startswith(b"\x1f\x8b") else "text"


def text_encoding(encoding: Any) -> str:
    """The codec's own name, "utf-8" for every spelling of it."""
    if not isinstance(encoding, str):
        raise wrong_type("encoding", "the name of an encoding", encoding)
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)
    except (LookupError, UnicodeError):
        raise wrong("encoding", "an encoding such as utf-8, latin-1, cp1252 or utf-16", encoding) from None
    return "utf-8" if name in ("utf-8", "utf-8-sig", "ascii") else name


class Stream:
    """Bytes of one file as UTF-8 without a byte order mark, checked on the way.

    Attributes:
        at: bytes given so far. packed: bytes of the file behind them, for a bar.
        lines: line ends among them, counted apart from whoever makes rows of them.
    """

    def __init__(self, file: File, encoding: str) -> None:
        self.file, self.encoding = file, encoding
        self.at = self.lines = 0
        self._raw: BinaryIO = file.path.open("rb", buffering=0)
        self._bytes = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if file.kind == "gzip" else self._raw
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        try:
            start = self._start()
        except BaseException:
            self.__exit__()
            raise
        for mark, name in MARKS.items():
            if start.startswith(mark) and encoding == "utf-8":
                self.__exit__()
                raise wrong(
                    f"{file.label}, line 1", "UTF-8 text", text=f"{name.upper()} (give encoding={name!r})"
                )
        self.base = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
        self._ready = start[self.base :]
        self.seekable = file.kind == "text" and self._decoder is None

    def _start(self) -> bytes:
        start = b""
        while len(start) < 4:
            more = self._next(CHUNK)
            if not more:
                break
            start += more
        return start

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: Any) -> None:
        self._bytes.close()
        self._raw.close()

    @property
    def packed(self) -> int:
        return self._raw.tell()

    def seek(self, at: int) -> None:
        """Go on from a byte given before; only where `seekable`."""
        self._raw.seek(self.base + at)
        self._ready = b""
        self.at = at

    def read_into(self, buffer: memoryview) -> int:
        """Fill what there is room for, in one read; 0 at the end."""
        if self._ready:
            size = min(len(self._ready), len(buffer))
            buffer[:size] = self._ready[:size]
            self._ready = self._ready[size:]
        elif self._decoder is None:
            size = self._unpacked(lambda: self._bytes.readinto(buffer))  # type: ignore[attr-defined]
        else:
            self._ready = self._next(max(1, min(CHUNK, len(buffer) // 4)))
            if not self._ready:
                return 0
            return self.read_into(buffer)
        self.at += size
        if self.file.kind == "gzip" and self.at > max(RATIO_FROM, MOST_RATIO * self.packed):
            raise wrong(
                f"{self.file.label}, near line {self.lines + 1}",
                f"a gzip file of at most {MOST_RATIO} times its size (unpack it first, if it is sound)",
                text=f"{self.packed:,} bytes that are {self.at:,} unpacked",
            )
        return size

    def _unpacked(self, read: Callable[[], Any]) -> Any:
        label = self.file.label
        try:
            return read()
        except EOFError:
            raise wrong(
                f"{label}, near line {_last_sound_line(self.file)}",
                "a whole gzip file",
                text="one that ends too early (truncated?)",
            ) from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise wrong(
                f"{label}, near line {_last_sound_line(self.file)}",
                "a sound gzip file",
                text=f"a corrupt one ({error})",
            ) from None

    def _next(self, size: int) -> bytes:
        """The next bytes as UTF-8; nothing at the end."""
        while True:
            raw = self._unpacked(lambda: self._bytes.read(size))
            if self._decoder is None:
                return raw
            try:
                text = self._decoder.decode(raw, not raw)
                if text or not raw:
                    return text.removeprefix("\ufeff").encode() if self.at == 0 else text.encode()
            except UnicodeError as error:
                raise wrong(
                    f"{self.file.label}, near byte {self._raw.tell()}",
                    f"{self.encoding} text",
                    text=f"{error}",
                ) from None


def _last_sound_line(file: File) -> int:
    """How far a damaged gzip can be unpacked, in lines."""
    newlines = 0
    with gzip.open(file.path, "rb") as unpacked:
        try:
            while chunk := unpacked.read1(CHUNK):
                newlines += chunk.count(b"\n")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            pass
    return newlines + 1


def text_lines(file: File, encoding: str) -> Iterator[bytes]:
    """Lines of a small file, as UTF-8, with their ends."""
    with Stream(file, encoding) as stream:
        buffer = bytearray(CHUNK)
        rest = b""
        while size := stream.read_into(memoryview(buffer)):
            *whole, rest = (rest + buffer[:size]).split(b"\n")
            yield from (line + b"\n" for line in whole)
        if rest:
            yield rest
