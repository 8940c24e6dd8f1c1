"""What a program reads of a command: --json, --log-format and --log-level, which every verb takes.

One JSON document on standard output, one JSON object a line on standard error. Loads nothing heavy: an error
in the first word is told in the form that was asked for.
"""

import contextlib
import io
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastpop import bars
from fastpop.cli import terminal

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
ABOUT = (
    "Every verb takes --json (one document on standard output), --log-format text|json and --log-level "
    "debug|info|warning|error: docs/command_line.md."
)


@dataclass(frozen=True)
class Asked:
    """json: results as one document. format: of messages. level: from which on the package's log is told."""

    json: bool = False
    format: str = "text"
    level: str = "warning"


def taken(argv: Sequence[str]) -> tuple[list[str], Asked]:
    """(the other words, what was asked for). The form of messages holds from here on, for an error in these
    very words, too.

    --json has messages in JSON, and --log-format json alone tells from info on, unless the other options say
    otherwise. Raises ValueError for a value that is none.
    """
    words: list[str] = []
    given: dict[str, str] = {}
    left = list(argv)
    json_asked = "--json" in left
    terminal.set_format("json" if json_asked else "text")
    while left:
        word = left.pop(0)
        name, is_pair, value = word.partition("=")
        if word == "--json":
            continue
        if name not in ("--log-format", "--log-level"):
            words.append(word)
            continue
        known = FORMATS if name == "--log-format" else LEVELS
        if not is_pair:
            value = left.pop(0) if left else ""
        if value not in known:
            raise ValueError(
                f"{name[2:].replace('-', '_')}: expected one of {', '.join(known)}; got {value!r}"
            )
        given[name] = value
    form = given.get("--log-format", "json" if json_asked else "text")
    terminal.set_format(form)
    return words, Asked(
        json_asked, form, given.get("--log-level", "info" if form == "json" and not json_asked else "warning")
    )


class Lines(logging.Handler):
    """The package's log as messages of the command line."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        terminal.tell(record.getMessage(), record.levelname.lower(), logger=record.name, **fields)


@contextlib.contextmanager
def spoken(asked: Asked) -> Iterator[None]:
    """The package's log is told from the level on, and no bar stands among lines of JSON. Put back after."""
    log, handler = logging.getLogger("fastpop"), Lines()
    before = log.level, bars.quiet
    log.addHandler(handler)
    log.setLevel(asked.level.upper())
    bars.quiet = asked.format == "json"
    try:
        yield
    finally:
        log.setLevel(before[0])
        bars.quiet = before[1]
        log.removeHandler(handler)


@contextlib.contextmanager
def nothing_printed(asked: Asked) -> Iterator[None]:
    """Where one document is asked for, what is meant for people is not printed beside it."""
    if not asked.json:
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def write(verb: str, found: dict[str, Any] | None) -> None:
    """The document of a verb on standard output: {"fastpop": version, "verb": ..., ...}."""
    import fastpop
    from fastpop import report

    document = {"fastpop": fastpop.__version__, "verb": verb, **(found or {})}
    print(json.dumps(report.plain(document), allow_nan=False), file=sys.stdout)


def without_frames(text: str) -> str:
    """What the parser of options says, in one line without its frames."""
    return " ".join(re.sub(r"[\u2500-\u257f]", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).split())
