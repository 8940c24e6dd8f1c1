"""Runs sections one after the other, each in a process of its own, which ends by its deadline whatever it
does. Standard library only.

A section may last until the budgets up to its own add up, so one that ends early leaves its time to the
next ones and the whole never takes longer than their sum. Where its process dies during an item, the item
gets an error line and the section goes on behind it in a new process.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpu.plan import Section
from gpu.record import Record, begun

GRACE = 1.0  # seconds from SIGTERM to SIGKILL, within the budget
LEAST = 2.0  # seconds worth starting a process for


def run(
    sections: tuple[Section, ...],
    record: Record,
    environment: dict[str, str],
    log: Path,
    *,
    command: Callable[[Section, float], list[str]] | None = None,
) -> None:
    """command: what runs a section, and an item's limit; for tests."""
    started, until = time.monotonic(), 0.0
    for section in sections:
        until += section.seconds
        record.add(section.name, "section", "start", budget=section.seconds)
        before = time.monotonic()
        _run_section(section, started + until, record, environment, log, command or child)
        record.add(section.name, "section", "end", seconds=round(time.monotonic() - before, 2))


def child(section: Section, item_seconds: float) -> list[str]:
    return [sys.executable, "-P", "-m", "gpu.child", section.name, str(item_seconds)]


def _run_section(
    section: Section,
    deadline: float,
    record: Record,
    environment: dict[str, str],
    log: Path,
    command: Callable[[Section, float], list[str]],
) -> None:
    while True:
        known = len(begun(record.lines(), section.name))
        left = deadline - time.monotonic() - GRACE
        # Time that earlier sections left is for the items, too.
        item_seconds = round(section.item_limit * max(1.0, left / section.seconds), 1)
        ended = _process(
            command(section, item_seconds), left, environment | {"GPU_DAY_LEFT": f"{left:.1f}"}, log
        )
        if ended == "":
            return
        items = begun(record.lines(), section.name)
        # Nothing to go on behind: it died before an item, or there is no time.
        if ended == "time" or len(items) == known:
            name = items[-1] if len(items) > known else section.name
            what = "ran past the section's deadline" if ended == "time" else f"{ended} before an item began"
            record.add(section.name, "error", name, error=what)
            return
        if ended != "lost":  # an item that lost the device has said so itself
            record.add(section.name, "error", items[-1], error=f"its process {ended}")
        if deadline - time.monotonic() < LEAST:
            record.add(section.name, "error", section.name, error="no time was left for the items after it")
            return


def _process(words: list[str], left: float, environment: dict[str, str], log: Path) -> str:
    """ "" when it ended well, "time" after `left` seconds, "lost" when it asked for a new process, or how it
    died."""
    if left < LEAST / 2:
        return "time"
    with open(log, "ab") as errors:
        process = subprocess.Popen(
            words, env=environment, stderr=errors, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(left)
        except subprocess.TimeoutExpired:
            return "time"
        finally:
            _end_group(process)
    if code == 0:
        return ""
    if code == LOST:
        return "lost"
    if code == -signal.SIGALRM:
        return f"ran past an item's limit of {words[-1]} s"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _end_group(process: subprocess.Popen) -> None:
    """Whatever the process has started, too."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)


LOST = 33  # what a section's process ends with when its device can do no more work for it
