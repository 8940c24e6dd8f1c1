"""Progress that a person sees: one kind of bar, whole at 80 columns, a widget in a notebook."""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# `{bar}` without a width: a notebook puts its widget in that place, a terminal what is left of a line.
FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
AMOUNTS = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}"
FLOWING = "{desc} {n_fmt} {elapsed}"
WAITING = "{desc} {elapsed}"
# The command line sets these: whether another process of the command shows what there is to show; whether
# messages are for a program to read, so that no bar is shown; and a function that is told, where there is no
# terminal, what a bar would show.
silent = False
quiet = False
spoken: Callable[[str], None] | None = None


def progress_bar(
    total: float | None,
    label: str,
    *,
    initial: float = 0,
    show: bool | None = None,
    delay: float = 1.0,
    unit: str | None = None,
) -> Any:
    """A tqdm bar on standard error that goes when it ends.

    total, initial: in any unit. show: True at once, None after `delay` seconds in a terminal
    or a notebook, False never. unit: says how much is done, in thousands of it; total
    may then be None.
    """
    shown = FORMAT if unit is None else FLOWING if total is None else AMOUNTS
    return _kind()(
        total=total,
        initial=initial,
        desc=label,
        leave=False,
        dynamic_ncols=True,
        bar_format=shown,
        unit=unit or "it",
        unit_scale=unit is not None,
        delay=0 if show else delay,
        disable=_hidden(show),
    )


@contextlib.contextmanager
def waiting(label: str, *, show: bool | None = None, delay: float = 2.0) -> Iterator[None]:
    """Says what takes so long, with the seconds passed, where no share of the work is known."""
    hidden = _hidden(show)
    say = spoken if show is None and not silent else None
    if hidden and say is None:
        yield
        return
    over = threading.Event()

    def tell() -> None:
        started = time.monotonic()
        if over.wait(delay):
            return
        if hidden:
            if say is not None:
                say(f"{label} ...")
            return
        with _kind()(desc=label, leave=False, dynamic_ncols=True, bar_format=WAITING) as bar:
            bar.start_t -= time.monotonic() - started
            while not over.wait(0.5):
                bar.refresh()

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _kind() -> Any:
    """tqdm's bar with a lock of this process alone. Its own is one semaphore for all that were forked from
    one process, and who is killed while he draws keeps it: the others then wait for ever."""
    from tqdm.auto import tqdm

    return _with_own_lock(tqdm)


@functools.cache
def _with_own_lock(kind: Any) -> Any:
    return type(kind.__name__, (kind,), {"_lock": threading.RLock(), "__module__": kind.__module__})


def _hidden(show: bool | None) -> bool:
    if silent or quiet:
        return True
    if show is not None:
        return not show
    if _in_notebook():
        return False
    return not (hasattr(sys.stderr, "isatty") and sys.stderr.isatty())


def _in_notebook() -> bool:
    """Whether tqdm draws widgets here."""
    from tqdm.auto import tqdm

    return any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
