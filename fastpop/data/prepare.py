"""Preparing: read a log once, and open it at once from then on."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastpop import files
from fastpop.checks import wrong_type
from fastpop.data import columns
from fastpop.data.interactions import Interactions
from fastpop.data.log import Request, read_log, sorted_events
from fastpop.data.paths import local_path
from fastpop.data.prepared import PreparedWriter
from fastpop.data.store import IDS_AT_ONCE, is_saved_log_alone, open_log, write_log
from fastpop.data.workbench import Workbench


def prepare(source: Any, out: str | Path, **options: Any) -> Interactions:
    """`read_log(source, **options).save(out)`, and the log as `Interactions.open(out)` gives it.

    The events go to the folder as they are sorted, so a log may be larger than memory.
    Whether `out` may be written is found out before anything is read. A kill at any moment leaves
    what was there before, and the same call, made again, gives the same bytes.

    Args:
        source, options: as for `read_log`.
        out: a new or an empty folder, or an older prepared log, which is replaced.
    Raises:
        FileExistsError: the folder holds something else. OSError: it cannot be written, or another
            process writes it now. ValueError, TypeError: as `read_log`.
    """
    folder = local_path(out, "out")
    given = inspect.signature(read_log).bind(source, **options)
    given.apply_defaults()
    arguments = {name: value for name, value in given.arguments.items() if name != "source"}
    request = Request.of_options(arguments)
    core = [arguments[name] for name in ("min_user_events", "min_item_events")]
    with files.atomic_folder(folder, replaces=is_saved_log_alone) as draft:
        whole = draft if max(core) == 1 else draft / "whole"
        whole.mkdir(exist_ok=True)
        _stream(source, request, whole, arguments)
        if whole != draft:
            log = open_log(Interactions, whole).k_core(*core)
            shutil.rmtree(whole)  # what is left is in columns of its own
            write_log(log, draft)
    return open_log(Interactions, folder)


def _stream(source: Any, request: Request, folder: Path, arguments: dict[str, Any]) -> None:
    """The sorted events in an empty folder, as they come."""
    machine = [arguments[name] for name in ("memory_limit", "threads", "temp_folder", "progress")]
    with Workbench(*machine) as bench, sorted_events(bench, source, request) as found:
        events = found.events
        has = {name: name in events.columns for name in ("time", "weight")}
        with PreparedWriter(folder, **has) as out:
            for side, ids in (("user", events.user_ids), ("item", events.item_ids)):
                for at in columns.pieces(ids.shape[0], IDS_AT_ONCE):
                    out.add_ids(side, ids[at])
            with bench.bar("write", events.num_events, " events") as bar:
                for part in events.slices(bench):
                    out.add(**part)
                    bar.update(part["user"].size)
            out.finish(has_order=found.has_order, facts=found.facts, rejected=found.rejected)


def prepare_from(read: Callable[[], Interactions], out: Path) -> Interactions:
    """The log that `read` gives, in the folder `out`, which is this call's own meanwhile."""
    with files.atomic_folder(out, replaces=is_saved_log_alone) as draft:
        write_log(read(), draft)
    return open_log(Interactions, out)


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
    try:
        return open_log(Interactions, folder)
    except FileNotFoundError:
        if folder.is_dir():
            raise
        raise wrong_type(argument, expected, text=f"{str(folder)!r}, which is no folder") from None
