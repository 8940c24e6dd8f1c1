"""DuckDB under a hard memory cap: a scratch database on disk that sorts what memory cannot."""

import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from fastpop.checks import missing_package, number, wrong

SHOW_AFTER = 5.0  # seconds of work before a bar appears
SHRUNK = "300MB"
SIZE = re.compile(r"\d+(\.\d+)?\s*([KMGT]i?B|B)", re.IGNORECASE)


def duckdb_module(purpose: str) -> Any:
    try:
        import duckdb
    except ImportError:
        missing_package("duckdb", "", purpose)
    return duckdb


class Workbench:
    """A connection to a scratch database in its own temporary folder, gone after the `with`.

    Args:
        memory_limit: what DuckDB may hold, such as "2GB"; beyond it work spills to disk.
        threads: None leaves it to DuckDB. The result does not depend on it.
        temp_folder: where to spill; None is the system's place for temporary files.
        progress: None shows a bar once work has taken five seconds, True at once, False never.
    """

    def __init__(
        self, memory_limit: str = "2GB", threads: int | None = None,
        temp_folder: str | Path | None = None, progress: bool | None = None,
    ) -> None:
        if not isinstance(memory_limit, str) or not SIZE.fullmatch(memory_limit.strip()):
            raise wrong("memory_limit", "a size such as '2GB' or '512MB'", memory_limit)
        if threads is not None:
            number("threads", threads, least=1, integer=True)
        self.memory_limit = memory_limit.strip()
        self.threads = threads
        self.temp_folder = temp_folder
        self.progress = progress

    def __enter__(self) -> "Workbench":
        self.duckdb = duckdb_module("reading logs")
        if self.temp_folder is not None and not Path(self.temp_folder).is_dir():
            raise wrong("temp_folder", "an existing folder", str(self.temp_folder))
        self.folder = Path(tempfile.mkdtemp(prefix="fastpop-", dir=self.temp_folder))
        try:
            self._connect(self.memory_limit)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self, memory_limit: str) -> None:
        self.connection = self.duckdb.connect(
            str(self.folder / "scratch.duckdb"),
            # nothing is fetched over the network, whatever a file is called
            config={"autoinstall_known_extensions": "false"},
        )
        settings = {
            "memory_limit": f"'{memory_limit}'",
            "temp_directory": f"'{quoted_text(str(self.folder))}'",
            "preserve_insertion_order": "true",
            "enable_progress_bar": "false",
            "TimeZone": "'UTC'",  # dates without a zone are UTC, whatever the machine's zone
        }
        if self.threads is not None:
            settings["threads"] = str(int(self.threads))
        for name, value in settings.items():
            self.connection.execute(f"SET {name}={value}")

    def shrink(self) -> None:
        """Drop every cached page and go on with little memory: arrays need the rest now."""
        self.connection.close()
        small = _bytes(self.memory_limit) > _bytes(SHRUNK)
        self._connect(SHRUNK if small else self.memory_limit)

    def __exit__(self, *_: Any) -> None:
        try:
            if hasattr(self, "connection"):
                self.connection.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def bar(self, label: str, total: float, unit: str) -> Any:
        """A tqdm bar by the rule of `progress`."""
        from tqdm import tqdm

        return tqdm(
            total=total, desc=label, unit=unit, unit_scale=True, leave=False,
            disable=self.progress is False, delay=0 if self.progress else SHOW_AFTER,
        )

    def run(self, sql: str, label: str = "") -> None:
        """Execute; with a label, show progress, and let ctrl-C through at once."""
        if not label:
            self.rows(sql)
            return
        failure: list[BaseException] = []

        def work() -> None:
            try:
                self.connection.execute(sql)
            except BaseException as error:
                failure.append(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(0.2)
        if worker.is_alive():
            self._watch(worker, label)
        if failure:
            raise self._explained(failure[0])

    def _watch(self, worker: threading.Thread, label: str) -> None:
        try:
            with self.bar(label, 100, "%") as bar:
                while worker.is_alive():
                    worker.join(0.2)
                    done = self.connection.query_progress()
                    bar.update(max(0.0, min(done, 100.0) - bar.n))
        except BaseException:
            self.connection.interrupt()
            worker.join()
            raise

    def rows(self, sql: str, parameters: list | None = None) -> list[tuple]:
        try:
            return self.connection.execute(sql, parameters or []).fetchall()
        except self.duckdb.Error as error:
            raise self._explained(error) from None

    def value(self, sql: str) -> Any:
        return self.rows(sql)[0][0]

    def arrays(self, sql: str) -> dict:
        """Columns as numpy arrays, masked where a column has nulls."""
        try:
            return self.connection.execute(sql).fetchnumpy()
        except self.duckdb.Error as error:
            raise self._explained(error) from None

    def _explained(self, error: BaseException) -> BaseException:
        """DuckDB's own failures in this package's words; everything else as it came."""
        first = str(error).strip().split("\n")[0]
        if isinstance(error, self.duckdb.OutOfMemoryException):
            return MemoryError(
                f"memory_limit: expected enough for this log; got {self.memory_limit!r} ({first})"
            )
        if isinstance(error, self.duckdb.IOException):
            return OSError(f"reading the log: {first}")
        if isinstance(error, self.duckdb.InterruptException):
            return KeyboardInterrupt()
        if isinstance(error, self.duckdb.Error):
            return ValueError(f"source: expected a table that DuckDB can read; got: {first}")
        return error


def _bytes(size: str) -> float:
    digits, unit = re.fullmatch(r"([\d.]+)\s*([A-Za-z]+)", size).groups()  # type: ignore[union-attr]
    power = "BKMGT".index(unit[0].upper())
    return float(digits) * (1024 if "i" in unit.lower() else 1000) ** power


def quoted_text(text: str) -> str:
    """The inside of an SQL string literal."""
    return text.replace("'", "''")


def quoted_name(name: str) -> str:
    """An SQL identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
