"""`fastpop`: one verb a job. The only reader of argv, and the only place that answers signals:
docs/command_line.md has the exit codes."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fastpop.cli import messages, processes, terminal

BAD_INPUT = (ValueError, TypeError, FileNotFoundError, FileExistsError)
FAILED = (RuntimeError, OSError, ImportError, MemoryError, NotImplementedError)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: 0 done, 1 the work failed, 2 bad input, 75 stopped at --deadline, 129, 130 or 143 stopped
    by SIGHUP, SIGINT or SIGTERM.

    argv: words, from a caller whose process goes on: its signal handlers, streams and warnings are put
    back. None: those of this process, which ends with the command.
    """
    if argv is None:
        terminal.fill_closed()
    before = terminal.prepare()
    if argv is None:
        before.pop_all()
        _run(sys.argv[1:])
    else:
        with before:
            _run(argv)


def _run(argv: Sequence[str]) -> None:
    verb: Any = None
    try:
        words, asked = messages.taken(argv)
        with messages.spoken(asked):
            verb = _parse(words, asked)
            if getattr(verb, "deadline", None) is not None:
                terminal.set_deadline(terminal.duration("deadline", verb.deadline))
            processes.refuse_others(type(verb).__name__.lower())
            with messages.nothing_printed(asked):
                found = verb.run()
            if asked.json and processes.warns():
                messages.write(words[0].lstrip("-"), found)
            terminal.flush()
    except KeyboardInterrupt:
        _stopped(verb)
    except SystemExit:
        raise
    except Exception as error:
        if terminal.was_stopped():
            _stopped(verb)
        lost = processes.lost(error)
        if lost is not None:
            _stop(lost + (verb.left() if hasattr(verb, "left") else ""), 1, error)
        if isinstance(error, BAD_INPUT):
            _stop(str(error), 2, error)
        if isinstance(error, FAILED):
            _stop(str(error) or type(error).__name__, 1, error)
        raise


def _stopped(verb: Any) -> NoReturn:
    # No verb: words were still being read.
    left = "; nothing was begun" if verb is None else verb.left() if hasattr(verb, "left") else ""
    # torchrun stops those that are left with SIGTERM, too.
    killed = processes.killed() if terminal.came_from_outside() else None
    _stop((killed or terminal.stopped_by()) + left, terminal.exit_code())


def _parse(argv: Sequence[str], asked: messages.Asked = messages.Asked()) -> Any:  # noqa: B008 (frozen)
    """The verb that argv asks for, with its options; imports what it needs only now, when a signal
    already ends in one line."""
    with terminal.held():
        from fastpop import checks

        checks.needed("tyro", "", "the command line")
        from fastpop.cli.parse import parse
    if asked.format == "text":
        return parse(argv)
    said = io.StringIO()  # the parser of options frames what it says
    try:
        with contextlib.redirect_stderr(said):
            return parse(argv)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _stop(messages.without_frames(said.getvalue()), 2)


def _stop(message: str, code: int, error: BaseException | None = None) -> NoReturn:
    if error is not None and os.environ.get("FASTPOP_DEBUG"):
        raise error
    with terminal.last_words():
        if processes.has_the_word():
            terminal.tell(message, exit_code=code)
            processes.report(f"fastpop: {message}")
        raise SystemExit(code)
