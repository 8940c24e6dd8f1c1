"""What stands in a folder for people to read, against the numbers that it was written from."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastpop.training import checkpoint, sealed
from fastpop.training.prints import AUDIT, HISTORY, METRICS, history_csv, metrics_text


def write_anew(place: Path, lost: list[str], source: str, save: Callable[[Path], Any]) -> None:
    """Where files of a finished folder are not as they were written: says which, and writes them anew of
    `source`, a sound document there."""
    if not lost:
        return
    warnings.warn(
        f"{place}: expected {', '.join(lost)} as written; got other bytes. Written anew from {source}, "
        "whose checksum holds",
        UserWarning,
        stacklevel=4,
    )
    with checkpoint.explained(place):
        save(place)


def warn_of_damaged(folder: Path, saved: dict[str, Any]) -> None:
    """Warns of what stands beside the model for people to read and says something else than the model's own
    state (`saved`), or is not as it was written. Nothing else is read of these files."""
    last = saved["history"][-1]["step"] if saved["history"] else 0
    newest = checkpoint.latest(folder)
    texts = {METRICS: metrics_text(saved["metrics"])}
    if newest is None or int(newest.name.removeprefix(checkpoint.PREFIX)) <= last:  # else it goes on
        texts[HISTORY] = history_csv(saved["history"])
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_bytes() != text.encode():
            warnings.warn(
                f"{path}: expected what model/state.json says; got other bytes. The model is sound",
                UserWarning,
                stacklevel=4,
            )
    try:
        sealed.read(folder / AUDIT, older=True)
    except FileNotFoundError:
        pass
    except (OSError, sealed.Damaged) as error:
        warnings.warn(f"{error}. `fastpop audit` makes it anew", UserWarning, stacklevel=4)
