"""What reading works with: a memory budget, a scratch folder, bars, and DuckDB under the same cap."""

import contextlib
import os
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import files, pages
from fastpop.bars import progress_bar
from fastpop.checks import missing_package, number, wrong
from fastpop.data.paths import engine_path, engine_words, local_path

SHOW_AFTER = 5.0  # seconds of work before a bar appears
LEAST = 16_000_000  # bytes of a budget
MOST_READERS = 8  # each keeps the distinct ids that it saw
ROOM_OF_READER = 96 << 20  # bytes of a budget, before there is another one
BESIDE, READER = 96 << 20, 32 << 20  # bytes beside a budget: libraries and the like; blocks of a reader
SIZE = re.compile(r"\d+(\.\d+)?\s*([KMGT]i?B|B)", re.IGNORECASE)


def duckdb_module(purpose: str) -> Any:
    try:
        import duckdb
    except ImportError:
        missing_package("duckdb", "", purpose)
    return duckdb


class Uninterrupted:
    """Signals whose handlers are Python's wait until the block ends, and are then handled.

    A folder that is made has its owner by then, and one that is removed is gone.
    """

    def __enter__(self) -> None:
        self.waiting: list[tuple] = []
        self.handlers: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # handlers run on the main thread only
        for sent in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(sent)
            if callable(handler):
                self.handlers[sent] = handler
                signal.signal(sent, lambda *call: self.waiting.append(call))

    def __exit__(self, *_: Any) -> None:
        for sent, handler in self.handlers.items():
            signal.signal(sent, handler)
        for sent, frame in self.waiting[:1]:
            self.handlers[sent](sent, frame)


def asked(connection: Any, work: Callable[[], Any], bar: Any = None) -> Any:
    """What `work` returns or raises, done on a thread of its own.

    On the main thread DuckDB takes an interrupt for itself, and raises a RuntimeError where the
    handler's own exception belongs; here a handler runs as ever, and the query is stopped at once.

    Args:
        bar: a context whose value is called ten times a second while the work lasts.
    """
    answer: list[Any] = []
    failure: list[BaseException] = []
    over = threading.Event()  # an interrupted join may take a thread that runs for one that ended

    def run() -> None:
        try:
            answer.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            over.set()

    worker = threading.Thread(target=run, daemon=True)
    begun = False
    try:
        with Uninterrupted():
            worker.start()
            begun = True
        with bar or contextlib.nullcontext(lambda: None) as shown:
            while not over.wait(0.1):
                shown()
    except BaseException:
        # whoever interrupts again is heard once the query has ended: closing under it aborts
        while begun and not over.is_set():
            with contextlib.suppress(KeyboardInterrupt):
                connection.interrupt()
                over.wait(0.05)
        raise
    if failure:
        raise failure[0]
    return answer[0]


class Workbench:
    """A scratch folder, a memory budget and, where it is needed, a DuckDB; gone after the `with`.

    What reading takes at most, beside the process before it, is `budget + beside`: while DuckDB writes a
    table out, its limit is the budget; then readers' texts (32 bytes a slot of a table that is at most three
    fifths full, and what is longer than 16 bytes), 28 bytes a text to sort them, and columns, which go to the
    scratch folder where these leave no room; then columns and a range of users that is sorted.

    Args:
        memory_limit: what reading may hold, such as "2GB"; beyond it work goes to the scratch
            folder. Where less than that is free, it is what is free.
        threads: None takes what the process may use. The result does not depend on it.
        temp_folder: where the scratch folder is made; None is the system's place for such.
        progress: None shows a bar once reading has taken five seconds, True at once, False never.
    """

    def __init__(
        self,
        memory_limit: str = "2GB",
        threads: int | None = None,
        temp_folder: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        if not isinstance(memory_limit, str) or not SIZE.fullmatch(memory_limit.strip()):
            raise wrong("memory_limit", "a size such as '2GB' or '512MB'", memory_limit)
        if threads is not None:
            number("threads", threads, ge=1, integer=True)
        self.memory_limit = memory_limit.strip()
        self.threads = usable_cores() if threads is None else int(threads)
        self.asked, left = size_of(self.memory_limit), pages.free()
        self.budget = self.asked if left is None else min(self.asked, left - BESIDE - READER)
        self.readers = max(1, min(self.threads, MOST_READERS, int(self.budget) // ROOM_OF_READER))
        self.beside = BESIDE + READER * self.readers
        self.temp_folder = None if temp_folder is None else local_path(temp_folder, "temp_folder")
        self.progress = progress
        self._connection: Any = None

    def __enter__(self) -> "Workbench":
        if self.temp_folder is not None and not self.temp_folder.is_dir():
            raise wrong("temp_folder", "an existing folder", str(self.temp_folder))
        if self.budget < LEAST:
            raise MemoryError(
                f"memory_limit: expected enough for reading, {LEAST // 10**6}MB at "
                f"least; got {self.limit_in_words()}"
            )
        self.started = time.monotonic()
        with Uninterrupted():
            self.folder = files.scratch_folder(self.temp_folder)
            # also where an interrupt comes between two lines of ours
            self._removal = weakref.finalize(self, files.remove_scratch, self.folder)
        return self

    def limit_in_words(self) -> str:
        """The limit, and what is left of it where less is free."""
        if self.budget == self.asked:
            return repr(self.memory_limit)
        return f"{self.memory_limit!r}, of which {max(0, int(self.budget)) // 10**6}MB are free"

    def __exit__(self, *_: Any) -> None:
        with Uninterrupted():
            self.close_database()
            self._removal()

    def close_database(self) -> None:
        """Give back what DuckDB holds."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> Any:
        if self._connection is None:
            self.duckdb = duckdb_module("reading frames and parquet")
            self._connection = self.duckdb.connect(
                # nothing is fetched over the network, whatever a file is called
                config={"autoinstall_known_extensions": "false"}
            )
            settings = {
                "memory_limit": f"'{int(self.budget)}B'",
                "temp_directory": engine_path(self.folder),
                "threads": str(self.threads),
                "preserve_insertion_order": "true",
                "enable_progress_bar": "false",
                "pandas_analyze_sample": "0",
            }
            for name, value in settings.items():
                self._connection.execute(f"SET {name}={value}")
        return self._connection

    def bar(self, label: str, total: float | None, unit: str) -> Any:
        """A bar by the rule of `progress`; the wait for it is over once for all phases."""
        delay = max(0.0, SHOW_AFTER - (time.monotonic() - self.started))
        return progress_bar(total, label, show=self.progress, delay=delay, unit=unit)

    def run(self, sql: str, label: str) -> None:
        """Execute while a bar moves; Ctrl-C stops the query at once."""
        connection = self.connection

        @contextlib.contextmanager
        def bar() -> Iterator[Callable[[], object]]:
            with self.bar(label, 100, "%") as shown:
                yield lambda: shown.update(max(0.0, min(connection.query_progress(), 100.0) - shown.n))

        self._asked(lambda: connection.execute(sql), bar())

    def rows(self, sql: str) -> list[tuple]:
        connection = self.connection
        return self._asked(lambda: connection.execute(sql).fetchall())

    def column(self, sql: str) -> np.ndarray:
        """The one column of a query."""
        connection = self.connection
        (column,) = self._asked(lambda: connection.execute(sql).fetchnumpy()).values()
        return column

    def _asked(self, work: Callable[[], Any], bar: Any = None) -> Any:
        try:
            return asked(self.connection, work, bar)
        except Exception as error:
            raise self._explained(error) from None

    def value(self, sql: str) -> Any:
        return self.rows(sql)[0][0]

    def _explained(self, error: BaseException) -> BaseException:
        """DuckDB's own failures in this package's words; everything else as it came."""
        first = engine_words(str(error).strip().split("\n")[0])
        if isinstance(error, self.duckdb.OutOfMemoryException):
            return MemoryError(
                f"memory_limit: expected enough for this log; got {self.limit_in_words()} ({first})"
            )
        if isinstance(error, self.duckdb.IOException):
            return OSError(f"reading the log: {first}")
        if isinstance(error, self.duckdb.InterruptException):
            return KeyboardInterrupt()
        if isinstance(error, self.duckdb.Error):
            return ValueError(f"source: expected a table that DuckDB can read; got: {first}")
        return error


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def size_of(size: str) -> float:
    """Bytes of "2GB"."""
    digits, unit = re.fullmatch(r"([\d.]+)\s*([A-Za-z]+)", size).groups()  # type: ignore[union-attr]
    power = "BKMGT".index(unit[0].upper())
    return float(digits) * (1024 if "i" in unit.lower() else 1000) ** power


def quoted_name(name: str) -> str:
    """An SQL identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
