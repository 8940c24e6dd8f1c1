"""A path is a name: never a pattern, a partition, or a place on the network.

`local_path` stands where a user's argument comes in; `engine_name` and `engine_path` stand where a
path goes on to DuckDB, and nothing reaches DuckDB in another way.
"""

import atexit
import os
import re
import threading
from pathlib import Path
from typing import Any

from fastpop import files
from fastpop.checks import wrong, wrong_type

# What DuckDB takes as it stands in an absolute path. `*?[]{}` and a backslash belong to its globs,
# `=` to its partitions; control characters would break its messages.
PLAIN = re.compile(r"[^*?\[\]{}\\=\x00-\x1f\x7f]*")


def local_path(value: Any, argument: str = "path") -> Path:
    """A user's path, with `~` and `~name` expanded; nothing else in it means anything.

    Args:
        value: a str, bytes or os.PathLike. The home folder of an unknown `~name` is not made up:
            the path stays as it stands, as in a shell.
        argument: how the caller calls it.
    Raises:
        TypeError: not a path. ValueError: empty, or with a NUL character.
    """
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise wrong_type(argument, "a path", value)
    text = os.fsdecode(value)
    if not text or "\0" in text:
        raise wrong(argument, "a path", value)
    return Path(os.path.expanduser(text))


def engine_name(path: str | Path) -> str:
    """The name by which DuckDB opens exactly the file or folder at `path`, to read or to write.

    It is the absolute path where DuckDB takes every character as it stands; otherwise (globs,
    `name=value` folders, names that are not UTF-8) a link with a plain name, in a temporary folder
    that goes with the process.
    """
    whole = _absolute(path)
    if _plain(whole):
        return whole
    with _one_at_a_time:
        folder = _links()
        if whole not in _linked:
            link = folder / str(len(_linked))
            link.symlink_to(whole)
            _linked[whole] = str(link)
        return _linked[whole]


def engine_path(path: str | Path) -> str:
    """`engine_name(path)` as an SQL literal, quotes included."""
    return "'" + engine_name(path).replace("'", "''") + "'"


def engine_words(message: str) -> str:
    """What DuckDB says, with the user's own path for each link that stands for it."""
    for whole, link in sorted(_linked.items(), key=lambda pair: -len(pair[1])):
        shown = os.fsencode(whole).decode("utf-8", "backslashreplace")
        message = re.sub(re.escape(link) + r"(?!\d)", shown.replace("\\", r"\\"), message)
    return message


def _absolute(path: str | Path) -> str:
    """The absolute path of the same name. Not `abspath`, which takes `link/..` for nothing."""
    above, name = os.path.split(os.fspath(path))
    if name in ("", ".", ".."):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(above), name)


def _plain(whole: str) -> bool:
    try:
        whole.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return PLAIN.fullmatch(whole) is not None


_one_at_a_time = threading.Lock()
_linked: dict[str, str] = {}  # absolute path → its link
_owner: list[tuple[int, Path]] = []  # (process, folder of its links)


def _links() -> Path:
    """This process's folder of links."""
    if _owner and _owner[0][0] == os.getpid():
        return _owner[0][1]
    _owner.clear()
    _linked.clear()
    places = [None, "/tmp", "/var/tmp", os.getcwd()]
    for place in places:
        try:
            folder = files.scratch_folder(place)
        except OSError:
            continue
        if _plain(str(folder)):
            atexit.register(_forget, os.getpid(), folder)
            _owner.append((os.getpid(), folder))
            return folder
        files.remove_scratch(folder)
    raise wrong(
        "TMPDIR",
        "a writable folder whose path has none of *?[]{}\\= in it",
        text=", ".join(str(place) for place in places[1:]) + " and the system's own",
    )


def _forget(process: int, folder: Path) -> None:
    if process == os.getpid():
        files.remove_scratch(folder)
