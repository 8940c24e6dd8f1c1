"""Writing that is all or nothing: the one way in which this package puts a file or a folder on disk.

Whatever is written goes to a hidden draft beside its target, is flushed to the disk, and takes the
target's place in one rename: a crash, a full disk or a kill at any moment leaves what was there
before. A draft is locked by its writer, so the next writer can tell one that a dead process left
and sweeps it away.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # a system without file locks: drafts are then never swept
    fcntl = None  # type: ignore[assignment]

MARKER = ".fastpop-scratch"
# Endings of the hidden names beside a target. Nobody else's files end so: these are swept.
PART, NEW, OLD, LOCK = ".fastpop-part", ".fastpop-new", ".fastpop-old", ".fastpop-lock"
NEW_AGE = 60.0  # seconds from which a draft that was never locked is a dead process's
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class Busy(OSError):
    """Another process is writing there."""


class Refused(FileExistsError):
    """Something else is there, which is not ours to replace."""


@contextlib.contextmanager
def named(
    path: Path, expected: str = "a writable place with room", only: set[int] | None = None
) -> Iterator[None]:
    """Gives an OSError of the block the path and what was expected; its errno stays.

    only: the numbers of the errors that are about the path, where the block does other things too.
        An error that was given a path within the block keeps that one.
    Raises: OSError, "expected ...; got PATH: No space left on device".
    """
    try:
        yield
    except (Busy, Refused):
        raise
    except OSError as error:
        if (only is not None and error.errno not in only) or hasattr(error, "about_path"):
            raise
        reason = error.strerror or str(error)
        told = OSError(error.errno, reason)  # the subclass that belongs to the number
        told = type(told)(f"expected {expected}; got {path}: {reason}")
        told.errno = error.errno
        told.about_path = path  # type: ignore[attr-defined]
        raise told from error


def temporary(folder: Path) -> contextlib.AbstractContextManager[None]:
    """`named` for what is written to a scratch folder in the midst of other writing."""
    return named(folder, "a temporary folder with room (TMPDIR says where)", only=FULL)


@contextlib.contextmanager
def atomic_file(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """An open draft of `path` ("w": UTF-8 text with newlines as they are given; "wb": bytes) that
    takes its place when the block ends well, and goes when it does not.

    A link is followed; what is no regular file (a pipe, a terminal) is written as it is. Folders
    above are made. Raises OSError, which names the path.
    """
    path = Path(path)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    shown = path
    if path.exists() and not path.is_file() and not path.is_dir():
        with named(path), path.open(mode, **text) as file:
            yield file
        return
    with named(shown):
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        new = _draft(path, NEW)
        draft = new.with_suffix(PART)
        file = open(new, mode.replace("w", "x"), **text)  # noqa: SIM115 (its errors have two kinds)
    try:
        with named(shown):
            _lock(file.fileno())  # before it has the name of what is swept
            new.rename(draft)
        with named(shown, only=FULL):
            yield file
        with named(shown):
            file.flush()
            os.fsync(file.fileno())
            os.replace(draft, path)
            sync(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        draft.unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):  # what could not be flushed was said above
            file.close()


def write_text(path: str | Path, text: str) -> Path:
    """`Path(path).write_text(text)`, all or nothing, in UTF-8. Raises OSError with the path."""
    with atomic_file(path) as file:
        file.write(text)
    return Path(path)


def write_bytes(path: str | Path, data: Any) -> Path:
    """`Path(path).write_bytes(data)`, all or nothing. Raises OSError with the path."""
    with atomic_file(path, "wb") as file:
        file.write(data)
    return Path(path)


@contextlib.contextmanager
def atomic_folder(
    folder: str | Path, replaces: Callable[[Path], bool] = lambda folder: True
) -> Iterator[Path]:
    """An empty draft folder that takes the place of `folder` when the block ends well.

    Args:
        folder: where the whole is to stand; a link is followed.
        replaces: whether an existing folder that is not empty may be replaced.
    Raises:
        FileExistsError: a file is there, or a folder that may not be replaced. Busy: another
        process writes this folder now. OSError: it cannot be written; names the folder.
    """
    shown, folder = Path(folder), Path(os.path.realpath(folder))
    with contextlib.ExitStack() as stack:
        with named(shown):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(_beside(folder, LOCK), str(shown)))
            restore(folder)
            sweep(folder)
            refuse_others(folder, shown, replaces)
            draft = _draft(folder, PART)
            draft.mkdir()  # nobody sweeps it: that takes the lock
            stack.callback(shutil.rmtree, draft, ignore_errors=True)
            handle = os.open(draft, os.O_RDONLY)
            stack.callback(os.close, handle)
            _lock(handle)
        with named(shown, only=FULL):
            yield draft
        with named(shown):
            for written in sorted(draft.rglob("*")):
                sync(written)
            sync(draft)
            _swap(draft, folder)


def holds_only(folder: Path, names: Collection[str]) -> bool:
    """Whether nothing else is in a folder: what somebody put there must not go with what is replaced."""
    return all(one.name in names for one in folder.iterdir())


def refuse_others(folder: Path, shown: Path, replaces: Callable[[Path], bool]) -> None:
    """Refused where `folder` holds something that may not be replaced."""
    if not folder.exists():
        return
    expected = "folder: expected a new or an empty one, or an older one of the same kind; got"
    if not folder.is_dir():
        raise Refused(f"{expected} {shown}, which is a file")
    if any(folder.iterdir()) and not replaces(folder):
        raise Refused(f"{expected} {shown}, which holds something else")


def _swap(draft: Path, folder: Path) -> None:
    """The draft in the folder's place. Between the two renames a kill leaves the old folder under
    another name, from which `restore` brings it back."""
    old = _beside(folder, OLD)
    if folder.exists():
        folder.rename(old)
    try:
        draft.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Bring back a folder that a kill between two renames left under its other name."""
    old = _beside(folder, OLD)
    if not os.path.lexists(old):
        return
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(folder)


def recover(folder: Path) -> None:
    """For readers: bring back a folder whose writer was killed between its two renames, unless a
    living writer is between them just now."""
    for _ in range(50):
        if folder.exists() or not os.path.lexists(_beside(folder, OLD)):
            return
        try:
            with locked(_beside(folder, LOCK), str(folder)):
                restore(folder)
        except Busy:
            time.sleep(0.02)
        except OSError:
            return  # what cannot be written cannot be repaired


def remove_folder(folder: Path) -> None:
    """It is gone in one step: a kill leaves a draft at most, which the next writer sweeps."""
    draft = _draft(folder, PART)
    with contextlib.suppress(OSError):  # gone meanwhile, or it cannot be: it is in nobody's way
        folder.rename(draft)
        shutil.rmtree(draft, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove drafts of `target` whose writers are dead."""
    _sweep(target.parent, _stem(target) + ".", (PART,))


def sweep_inside(folder: Path) -> None:
    """Mend what dead processes left in a folder that this process holds: drafts and locks go, and what
    was cut off between two renames comes back."""
    _sweep(folder, ".", (PART, LOCK))
    for old in sorted(folder.glob(f".*{OLD}")):
        restore(old.with_name(old.name[1:].removesuffix(OLD)))


def is_leftover(path: Path) -> bool:
    """Whether this is a draft, an old folder or a lock of ours, by its name."""
    return path.name.startswith(".") and path.name.endswith((PART, NEW, OLD, LOCK))


def _sweep(folder: Path, start: str, endings: tuple[str, ...]) -> None:
    for found in _entries(folder):
        path = Path(found.path)
        if not found.name.startswith(start):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            if found.name.endswith(endings):
                _remove_if_dead(path, path)
            elif found.name.endswith(NEW) and time.time() - found.stat().st_mtime > NEW_AGE:
                path.unlink(missing_ok=True)


def _entries(folder: Path) -> list[os.DirEntry]:
    """Of a folder; none of one that cannot be read."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        return list(found)
    return []


def _remove_if_dead(lock: Path, draft: Path) -> bool:
    if fcntl is None:
        return False
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # its writer lives, or this file system cannot tell
    else:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
        return True
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(lock: Path, what: str) -> Iterator[None]:
    """Hold the file `lock` for the length of the block; it goes with the lock.

    Args:
        lock: made where it is missing. The lock is the operating system's: it ends with the
            process, however that ends.
        what: is named in the error.
    Raises:
        Busy: another process holds it.
    """
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle):
                owner = os.read(handle, 32).decode("ascii", "replace").strip()
                other = f"process {owner}" if owner else "another process"
                raise Busy(
                    f"expected a place that nobody else is writing; got {what}, which {other} is writing now"
                )
            # the last holder removes the file: what was locked must still be what stands there
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(lock)):
                    break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)
        os.close(handle)


def _lock(handle: int) -> bool:
    """Take the lock on an open file; False where another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            warnings.warn(
                "this file system has no locks: two processes that write one folder "
                "would not notice each other",
                RuntimeWarning,
                stacklevel=4,
            )
            return True
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def scratch_folder(parent: str | Path | None = None) -> Path:
    """A new temporary folder, which goes with `remove_scratch`, or, where this process is killed,
    with the next call that looks for one in the same place.

    Args:
        parent: an existing folder; None is the system's place for temporary files.
    Raises OSError with the path.
    """
    place = Path(tempfile.gettempdir() if parent is None else parent)
    with named(place, "a writable temporary folder"):
        for found in _entries(place):
            marker = Path(found.path) / MARKER
            with contextlib.suppress(OSError):
                if found.name.startswith("fastpop-") and marker.is_file():
                    _remove_if_dead(marker, Path(found.path))
        # locked before it has its name: no other process may take it for a dead one's
        folder = Path(tempfile.mkdtemp(prefix=".fastpop-", dir=place))
        handle = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT, 0o600)
        _lock(handle)
        made = folder.with_name(f"fastpop-{uuid.uuid4().hex[:12]}")
        folder.rename(made)
    _scratch[made] = handle
    return made


def remove_scratch(folder: Path) -> None:
    """Remove a folder that `scratch_folder` made."""
    shutil.rmtree(folder, ignore_errors=True)
    handle = _scratch.pop(folder, None)
    if handle is not None:
        os.close(handle)


_scratch: dict[Path, int] = {}  # folder → the open file that holds its lock


def sync(path: Path) -> None:
    """What was written to a file or a folder is on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not stat.S_ISDIR(os.fstat(handle).st_mode) or error.errno not in NO_LOCKS:
            raise  # some file systems cannot flush a folder, and say so
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stem(target: Path) -> str:
    """How the hidden names beside a target begin; short enough for any file system."""
    name = target.name
    if len(os.fsencode(name)) > 150:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}"


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(f"{_stem(target)}{ending}")


def _draft(target: Path, ending: str) -> Path:
    return _beside(target, f".{uuid.uuid4().hex[:8]}{ending}")
