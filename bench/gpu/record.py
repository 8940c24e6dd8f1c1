"""The record: a JSON object a line, on disk before the next thing starts. Standard library only.

kind: run (first line of a run), section (start or end of one), begin, end (of an item), fact, ceiling,
time, check, skipped, error. A run that is killed keeps every line that it wrote.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any


class Record:
    """Appends to `path`; several processes may at once. run: names the run in every line."""

    def __init__(self, path: Path, run: str):
        self.path, self.run = path, run
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
            with path.open("ab") as torn:  # a line that a kill cut off must not spoil the next one
                torn.write(b"\n")

    def add(self, section: str, kind: str, name: str = "", **facts: Any) -> dict[str, Any]:
        line = {
            "run": self.run,
            "at": round(time.time(), 3),
            "section": section,
            "kind": kind,
            "name": name,
            **{key: plain(value) for key, value in facts.items()},
        }
        data = (json.dumps(line) + "\n").encode()  # one write, so that lines of two processes do not mix
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        return line

    def lines(self) -> list[dict[str, Any]]:
        """Of this run."""
        return [line for line in read(self.path) if line["run"] == self.run]


def plain(value: Any) -> Any:
    """What JSON holds: NaN and infinities as words, numbers of other libraries as Python's."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line; the last may have been cut off by a kill."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and {"run", "section", "kind", "name"} <= set(line):
            found.append(line)
    return found


def last_run(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["run"] == lines[-1]["run"]] if lines else []


def begun(lines: list[dict[str, Any]], section: str) -> list[str]:
    """Names of the items that a section started, in order."""
    return [line["name"] for line in lines if line["section"] == section and line["kind"] == "begin"]
