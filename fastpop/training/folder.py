"""The folder of a run: who may write there, what is in it, and how a run in it goes on.

config.json is the mark of a run: the options and the fingerprint of the log, under a seal. A folder
without it, with nothing but what a killed process left behind, is as good as empty.
"""

import contextlib
import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import checks, deprecated, files, registry
from fastpop.components import Component
from fastpop.data import columns
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.training import checkpoint, sealed
from fastpop.training.config import LISTS, PARTS, TrainConfig
from fastpop.training.prints import HISTORY

CONFIG = "config.json"
LOG_PRINT = "log_sha256"  # a key of config.json beside the options
LOCK = ".lock"
# What a run writes before its first checkpoint, its mark last.
FIRST = ("log", "test-cases", HISTORY, "best", "tensorboard", "wandb", "epochs.csv", CONFIG)
CHUNK = 1 << 22  # numbers hashed at a time
# Options that a run may go on with changed.
FREE = ("epochs", "checkpoint_every", "checkpoint_minutes", "tensorboard", "loggers")


def state_of(folder: Path) -> str:
    """ "nothing", "begun" (no checkpoint yet), "finished", or the name of the newest checkpoint."""
    if not (folder / CONFIG).exists():
        return "nothing"
    if (folder / "model").exists():
        return "finished"
    newest = checkpoint.latest(folder)
    return "begun" if newest is None else newest.name


def check_before(folder: Path, config: TrainConfig, *, resume: bool) -> None:
    """Whether a run of this configuration may be written to the folder, as far as is known before
    the log is read. Makes nothing; raises ValueError, or CheckpointError for a damaged config.json."""
    check_parts(config)
    state = state_of(folder)
    if state == "nothing":
        if resume:
            raise checks.wrong("out", "a folder with a run to resume", text=f"{folder}")
        if folder.is_dir() and others_in(folder):
            raise checks.wrong("out", "a new or an empty folder", text=f"{folder}, which has files")
    elif state == "finished" and not resume:
        raise checks.wrong(
            "out",
            "a new folder, or resume=True (--resume) for more epochs of the run in it",
            text=f"{folder}, which holds a finished run",
        )
    else:
        # a run of an earlier version has no later option: it was at its default
        before = {**TrainConfig().to_dict(), **read_options(folder)}
        for name, value in config.to_dict().items():
            if name not in FREE and before[name] != value:
                raise checks.wrong(
                    name, f"{_shown(before[name])}, as in the run in {folder}", text=f"{_shown(value)}"
                )


def _shown(value: Any) -> str:
    """A value of config.json, parts by what may differ."""
    if not registry.is_record(value):
        return repr(value)
    return f"{value['name']!r}, version {value['version']}, with {value['options']}"


def check_parts(config: TrainConfig) -> None:
    """Raises ValueError for a part that no name finds: a folder with it could not be loaded."""
    for field in (*PARTS, *LISTS):
        value = getattr(config, field)
        for part in _components(value if isinstance(value, tuple) else (value,)):
            if not registry.is_known(part):
                raise checks.wrong(
                    field,
                    f"a part that is registered (fastpop.register({part.kind!r}, ...)) "
                    "where a run is saved, which finds it by its name",
                    part,
                )


def _components(values: tuple[Any, ...]) -> Iterator[Component]:
    """The parts among these, and those among their options."""
    for value in values:
        if isinstance(value, Component):
            yield value
            yield from _components(tuple(value.options().values()))
        elif isinstance(value, tuple):
            yield from _components(value)


def others_in(folder: Path) -> list[Path]:
    """What is in the folder beside drafts and locks, which a killed process of ours leaves."""
    return [path for path in folder.iterdir() if not (path.name == LOCK or files.is_leftover(path))]


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder, hold it against other processes, and sweep what dead ones left in it.

    Raises CheckpointError where another process holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as lock:
        with checkpoint.explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(files.locked(folder / LOCK, str(folder)))
            files.sweep_inside(folder)
        yield


@contextlib.contextmanager
def unless_refused(folder: Path, *, but: tuple[type[Exception], ...]) -> Iterator[None]:
    """An error within, before a checkpoint stands there, leaves the folder as good as empty: what is then
    asked instead is another run. but: errors that are no refusal, and leave what stands there. A folder with
    something that is none of ours stays as it is."""
    try:
        yield
    except Exception as error:
        if state_of(folder) == "begun" and not isinstance(error, but):
            with contextlib.suppress(OSError):  # the error that ends the run says more
                there = {path.name for path in others_in(folder)}
                for name in FIRST if there <= set(FIRST) else ():
                    if name in there:
                        _removed(folder / name)
        raise


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def begin(
    folder: Path,
    config: TrainConfig,
    log: Interactions,
    test: Cases | None,
    print_of_log: str,
    *,
    resume: bool,
) -> bool:
    """Write what a run begins with, or verify it; True where a run is there to go on with.

    A log that was damaged since is written anew, and warned of.
    """
    state = state_of(folder)
    check_before(folder, config, resume=resume)
    if state != "nothing":
        if read_config(folder)[LOG_PRINT] != print_of_log:
            raise checks.wrong("log", f"the log and the test part of the run in {folder}", text="others")
        if not resume and state != "begun":
            warnings.warn(f"{folder} holds {state} of this run: going on from it", UserWarning, stacklevel=4)
    write_config(folder, config, print_of_log)
    if not sound_log(folder, log, print_of_log, test):
        with checkpoint.explained(folder / "log"):
            log.save(folder / "log")
    if test is not None and not sound_test(folder, test):
        with checkpoint.explained(folder / "test-cases"):
            test.save(folder / "test-cases")
    return state != "nothing"


def sound_log(folder: Path, log: Interactions, print_of_log: str, test: Cases | None) -> bool:
    """Whether folder/log is this log. One that is there and is not is removed, and warned of."""
    place = folder / "log"
    return _sound(
        place, "log", lambda: fingerprint(Interactions.open(place, verify=True), test) == print_of_log
    )


def sound_test(folder: Path, test: Cases) -> bool:
    """As `sound_log`, of folder/test-cases."""
    place = folder / "test-cases"
    return _sound(place, "test part", lambda: digest_of_cases(Cases.load(place)) == digest_of_cases(test))


def _sound(place: Path, noun: str, is_ours: Callable[[], bool]) -> bool:
    if not place.exists():
        return False
    try:
        if is_ours():
            return True
        reason = f"{place}: expected the {noun} of this run; got another"
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error)
    _anew(place, reason)
    return False


def _anew(damaged: Path, reason: str) -> None:
    warnings.warn(f"{reason}. It is written anew.", UserWarning, stacklevel=6)
    with checkpoint.explained(damaged):
        _removed(damaged)


def write_config(folder: Path, config: TrainConfig, print_of_log: str) -> None:
    with checkpoint.explained(folder / CONFIG):
        sealed.write(folder / CONFIG, {**config.to_dict(), LOG_PRINT: print_of_log})


def read_config(folder: Path) -> dict[str, Any]:
    """Options and fingerprint in folder/config.json. Raises CheckpointError for a damaged file."""
    try:
        found = sealed.read(folder / CONFIG)
    except (OSError, sealed.Damaged) as error:
        raise checkpoint.CheckpointError(str(error)) from None
    found = deprecated.current(found, TrainConfig.RENAMED, silent=True)
    return {name: registry.renewed(one) if registry.is_record(one) else one for name, one in found.items()}


def read_options(folder: Path) -> dict[str, Any]:
    return {name: value for name, value in read_config(folder).items() if name != LOG_PRINT}


def fingerprint(log: Interactions, test: Cases | None = None) -> str:
    """SHA-256 of the events, the ids, and the test cases that came with the log; the same for the
    same log, whatever holds it."""
    digest = hashlib.sha256()
    for array, dtype in (
        (log.user, np.int64),
        (log.item, np.int64),
        (log.time, np.int64),
        (log.weight, np.float64),
    ):
        _add(digest, array, dtype)
    if test is not None:
        digest.update(digest_of_cases(test).encode())
    for ids in (log.user_ids, log.item_ids):
        if ids.dtype.kind != "O":
            _add(digest, ids, np.int64)
            continue
        for first in range(0, len(ids), CHUNK):
            text = "".join(f"{len(word)}:{word}" for word in ids[first : first + CHUNK])
            digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def digest_of_cases(cases: Cases) -> str:
    digest = hashlib.sha256()
    for array in (
        cases.user,
        cases.history_offsets,
        cases.history_item,
        cases.target_offsets,
        cases.target_item,
    ):
        _add(digest, array, np.int64)
    return digest.hexdigest()


def _add(digest: Any, array: Any, dtype: Any) -> None:
    if array is None:
        digest.update(b"none")
        return
    digest.update(len(array).to_bytes(8, "little"))
    for first in range(0, len(array), CHUNK):
        digest.update(np.ascontiguousarray(array[first : first + CHUNK], dtype=dtype).data)
        columns.let_go(array[first : first + CHUNK])
