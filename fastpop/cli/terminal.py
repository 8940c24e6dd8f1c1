"""What the command line owes a terminal and a shell: signals, pipes, one line for each message.

Loads nothing heavy: a signal is answered from the first moment on.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from fastpop import bars
from fastpop.cli import processes
from fastpop.text import printable

NAMES = {signal.SIGTERM: "stopped by SIGTERM", signal.SIGHUP: "stopped: the terminal is gone (SIGHUP)"}
DEADLINE = 75  # EX_TEMPFAIL of sysexits.h: given again, the same command goes on
_came: list[int] = []  # signals
_started = time.monotonic()
_patience = 0  # how many signals wait
_format = "text"


def prepare() -> contextlib.ExitStack:
    """SIGTERM and SIGHUP do what ctrl-C does, a reader that leaves (`| head`) stops nothing, and
    warnings are lines of ours. A signal that the caller ignores (nohup) stays ignored.

    Returns what puts everything back when it is closed, for a caller whose process goes on.
    """
    global _started
    _came.clear()
    _started = time.monotonic()
    before = contextlib.ExitStack()
    before.callback(_no_deadline)
    before.callback(set_format, "text")
    with contextlib.suppress(ValueError):  # main() in another thread: signals are the host's
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            before.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, _interrupt))
        for number in NAMES:
            if signal.getsignal(number) == signal.SIG_DFL:
                before.callback(signal.signal, number, signal.signal(number, _as_ctrl_c))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Patient):
            if hasattr(stream, "reconfigure"):
                before.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
            before.callback(setattr, sys, name, stream)
            setattr(sys, name, Patient(stream))
    before.callback(setattr, bars, "spoken", bars.spoken)
    bars.spoken = lambda message: tell(message, "info")
    before.enter_context(warnings.catch_warnings())
    # Python hides these outside of __main__; who gave an old name on the command line is to see it.
    warnings.filterwarnings("default", ".* the old one works for one release", DeprecationWarning)
    before.callback(setattr, warnings, "showwarning", warnings.showwarning)
    warnings.showwarning = _as_a_line
    return before


def duration(argument: str, text: str) -> float:
    """Seconds of 2h30m, 90m, 45s, 1.5h, 2d. Raises ValueError."""
    found = re.fullmatch(r"(?:([\d.]+)d)?(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    with contextlib.suppress(ValueError):
        units = zip((86_400, 3_600, 60, 1), found.groups() if found else ())
        seconds = sum(unit * float(number) for unit, number in units if number)
        if 0 < seconds < 1e9:
            return seconds
    from fastpop import checks

    raise checks.wrong(argument, "how long, as 90m, 2h30m or 45s", text)


def set_deadline(seconds: float) -> None:
    """The command stops as a signal would stop it, so long after it began. Raises NotImplementedError where
    there is no timer for that: on Windows, and in another thread than the main one."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise NotImplementedError("--deadline: needs a timer of POSIX, in the main thread")
    signal.signal(signal.SIGALRM, _as_ctrl_c)
    left = seconds - (time.monotonic() - _started)
    signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6))


def _no_deadline() -> None:
    if hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is _as_ctrl_c:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def fill_closed() -> None:
    """A standard stream that came closed (`<&-`) is the null device: otherwise the next file that is
    opened takes its number, to be read as standard input or to be written to by a library's warning."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # print(file=None) would put messages among the results
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for good)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """The first signal waits for the end of the block. Around imports: an exception that comes out of a C
    extension's first import ends the process in abort(). A second signal does not wait."""
    with _patient(1):
        yield
    if _came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def last_words() -> Iterator[None]:
    """The next signal changes nothing: it is being said why the command ends, and then it does."""
    with _patient(len(_came) + 1):
        yield


@contextlib.contextmanager
def _patient(signals: int) -> Iterator[None]:
    global _patience
    _patience = signals
    try:
        yield
    finally:
        _patience = 0


def _interrupt(number: int, frame: Any) -> None:
    _came.append(number)
    if len(_came) > _patience:
        raise KeyboardInterrupt


def _as_ctrl_c(number: int, frame: Any) -> None:
    _came.append(number)
    if len(_came) <= _patience:
        return
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler) and handler is not _interrupt:
        handler(signal.SIGINT, frame)  # training answers it with a checkpoint
    else:
        raise KeyboardInterrupt


def was_stopped() -> bool:
    """Whether a signal came that should end the work: a library may have turned the exception that
    it raised into one of its own."""
    return bool(_came)


def came_from_outside() -> bool:
    """Whether SIGTERM was among the signals."""
    return signal.SIGTERM in _came


def _at_deadline() -> bool:
    return hasattr(signal, "SIGALRM") and signal.SIGALRM in _came


def stopped_by() -> str:
    if _at_deadline():
        return "stopped at --deadline"
    others = [number for number in _came if number != signal.SIGINT]
    return NAMES[signal.Signals(others[-1])] if others else "interrupted"


def exit_code() -> int:
    """128 + the signal, as shells have it, and 75 at the deadline."""
    if _at_deadline():
        return DEADLINE
    others = [number for number in _came if number != signal.SIGINT]
    return 128 + (others[-1] if others else signal.SIGINT)


def set_format(form: str) -> None:
    """Of messages: "text", or "json", an object a line."""
    global _format
    _format = form


def tell(message: str, level: str = "error", *, logger: str = "fastpop.cli", **fields: Any) -> None:
    """One message on standard error; what is in it cannot steer the terminal. fields: beside it in JSON, by
    names that JSON's readers find."""
    if _format == "text":
        print(f"fastpop: {printable(message, keep_lines=True)}", file=sys.stderr, flush=True)
        return
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "logger": logger, "message": message, **fields}
    print(json.dumps(line, default=str), file=sys.stderr, flush=True)


def flush() -> None:
    """Raises OSError now, not in a traceback at exit, where standard output cannot be written."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _as_a_line(
    message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
) -> None:
    if processes.warns():
        tell(str(message), "warning")


class Patient:
    """A stream whose reader may leave: what is written afterwards goes nowhere, and work goes on."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def _give_up(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
