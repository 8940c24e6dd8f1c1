"""Rows of a source that were skipped on request."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from fastpop import files
from fastpop.checks import brief
from fastpop.data.paths import local_path


@dataclass(frozen=True)
class Rejected:
    """Rows that could not be read and were skipped on request, in the order of the source."""

    file: tuple[str, ...]
    line: tuple[int, ...]  # 1-based line of the file (row of a frame)
    reason: tuple[str, ...]
    text: tuple[str, ...]  # the row as it stood

    __repr__ = brief

    def __len__(self) -> int:
        return len(self.line)

    def save(self, path: str | Path) -> Path:
        """Write a CSV of file, line, reason, text, all or nothing."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "line", "reason", "text"])
        writer.writerows(zip(self.file, self.line, self.reason, self.text))
        # a file name that is not UTF-8 comes back as its own bytes
        data = text.getvalue().encode("utf-8", "surrogateescape")
        return files.write_bytes(local_path(path), data)


def read_rejected(path: Path) -> Rejected | None:
    if not path.is_file():
        return None
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(text.splitlines(keepends=True)))[1:]
    return Rejected(
        tuple(r[0] for r in rows),
        tuple(int(r[1]) for r in rows),
        tuple(r[2] for r in rows),
        tuple(r[3] for r in rows),
    )
