"""What the command line owes a terminal and a shell: signals, pipes, one line for each message."""

import contextlib
import os
import signal
import sys
import warnings
from typing import Any

from fastpop import bars
from fastpop.checks import printable

NAMES = {signal.SIGTERM: "stopped by SIGTERM", signal.SIGHUP: "stopped: the terminal is gone (SIGHUP)"}
_by: list[int] = []  # signals other than ctrl-C that came


def prepare() -> None:
    """SIGTERM and SIGHUP do what ctrl-C does, a reader that leaves (`| head`) stops nothing, and
    warnings are lines of ours. A signal that the caller ignores (nohup) stays ignored."""
    for number in NAMES:
        # Other threads may call main() too: signals are then the host's.
        with contextlib.suppress(ValueError):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, _as_ctrl_c)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Patient):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Patient(stream))
    bars.spoken = True
    warnings.showwarning = _as_a_line


def _as_ctrl_c(number: int, frame: Any) -> None:
    _by.append(number)
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)  # training answers it with a checkpoint
    else:
        raise KeyboardInterrupt


def stopped_by() -> str:
    return NAMES[signal.Signals(_by[-1])] if _by else "interrupted"


def exit_code() -> int:
    """128 + the signal, as shells have it."""
    return 128 + (_by[-1] if _by else signal.SIGINT)


def tell(message: str) -> None:
    """One message on standard error; what is in it cannot steer the terminal."""
    print(f"fastpop: {printable(message, keep_lines=True)}", file=sys.stderr, flush=True)


def flush() -> None:
    """Raises OSError now, not in a traceback at exit, where standard output cannot be written."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _as_a_line(message: Any, category: Any, filename: str, lineno: int, file: Any = None,
               line: str | None = None) -> None:
    tell(str(message))


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
