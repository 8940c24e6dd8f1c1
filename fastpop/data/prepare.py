"""Preparing: read a log once, and open it at once from then on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastpop import files
from fastpop.checks import wrong_type
from fastpop.data.interactions import Interactions
from fastpop.data.log import read_log
from fastpop.data.paths import local_path
from fastpop.data.store import is_saved_log, open_log, write_log


def prepare(source: Any, out: str | Path, **options: Any) -> Interactions:
    """`read_log(source, **options).save(out)`, and the log as `Interactions.open(out)` gives it.

    Whether `out` may be written is found out before anything is read. A kill at any moment leaves
    what was there before, and the same call, made again, gives the same bytes.

    Args:
        source, options: as for `read_log`.
        out: a new or an empty folder, or an older prepared log, which is replaced.
    Raises:
        FileExistsError: the folder holds something else. OSError: it cannot be written, or another
            process writes it now. ValueError, TypeError: as `read_log`.
    """
    return prepare_from(lambda: read_log(source, **options), local_path(out, "out"))


def prepare_from(read: Callable[[], Interactions], out: Path) -> Interactions:
    """The log that `read` gives, in the folder `out`, which is this call's own meanwhile."""
    with files.atomic_folder(out, replaces=is_saved_log) as draft:
        write_log(read(), draft)
    return open_log(out)


def as_log(value: Any, argument: str = "log") -> Interactions:
    """Interactions as they are; the path of a prepared folder, opened.

    Raises: TypeError for anything else. ValueError: a folder that holds no log, or a damaged one.
    """
    if isinstance(value, Interactions):
        return value
    expected = "Interactions (read a file with fastpop.read_log) or the path of a prepared folder"
    if not isinstance(value, (str, Path)):
        raise wrong_type(argument, expected, value)
    folder = local_path(value, argument)
    files.recover(folder)
    if not folder.is_dir():
        raise wrong_type(argument, expected, f"={str(folder)!r}, which is no folder")
    return open_log(folder)
