"""Train once and read the model twice: at an epoch that is equal for all, and at its own best one."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from fastpop import files
from fastpop.experiments.arms import BEST, EQUAL
from fastpop.model import Recommender
from fastpop.training import build, checkpoint
from fastpop.training.loop import Progress, fit
from fastpop.training.run import go_on_from

TRAINED = "trained"  # a file that marks the folder of a run that is trained
T = TypeVar("T")


def fit_twice(
    assembly: build.Assembly,
    read: Callable[[int], T],
    *,
    validate: Callable[[], dict[str, float]] | None,
    equal_epoch: int,
    folder: Path | None = None,
    each_step: Callable[[int], None] | None = None,
) -> tuple[dict[str, T], Progress]:
    """(what `read` gives by reading, "best" first where something validates, where training ended).

    assembly: its config says the most epochs, the patience and the metric of the best one. read: called with
    the epoch whose weights the model has then. validate: as in `fit`. equal_epoch: trained to at least.
    folder: for checkpoints; with some in it, training goes on from there. each_step: as in `fit`.
    """
    model = assembly.model
    progress = _found(folder, assembly) or Progress()
    at_equal: dict[str, Tensor] | None = None

    def validated() -> dict[str, float]:
        nonlocal at_equal
        if progress.epoch == equal_epoch:
            at_equal = _kept(model, folder)
        assert validate is not None
        return validate()

    progress = fit(
        assembly,
        validate=None if validate is None else validated,
        out=folder,
        progress=progress,
        show=False,
        each_step=each_step,
        least_epochs=equal_epoch,
    )
    if folder is not None:
        checkpoint.write_text(folder / TRAINED, "")
    readings: dict[str, T] = {}
    if validate is not None:
        readings[BEST] = read(progress.best_epoch)
        if progress.best_epoch == equal_epoch:
            readings[EQUAL] = readings[BEST]
        else:
            if at_equal is None:
                assert folder is not None
                at_equal = checkpoint.read_folder(folder / EQUAL, ("model",))[0]["model"]
            model.load_state_dict(at_equal)
    if EQUAL not in readings:
        readings[EQUAL] = read(equal_epoch)
    return readings, progress


def _kept(model: Recommender, folder: Path | None) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if folder is not None:
        checkpoint.write_folder(folder / EQUAL, {"model": state}, {})
    return state


def _found(folder: Path | None, assembly: build.Assembly) -> Progress | None:
    """Where training stopped in this folder; None: it begins."""
    if folder is None:
        return None
    with checkpoint.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep_inside(folder)
        sound = _sound_checkpoint(folder)
    return go_on_from(folder, assembly) if sound else None


def _sound_checkpoint(folder: Path) -> bool:
    """Whether there is one to go on from. Where all are damaged, or weights that were kept for the end, all
    are removed, and warned of."""
    try:
        for kept in (folder / "best", folder / EQUAL):
            if kept.exists():
                checkpoint.read_folder(kept, ("model",))
        return checkpoint.read_newest(folder) is not None
    except checkpoint.CheckpointError as error:
        warnings.warn(f"{error}. This run is trained anew.", UserWarning, stacklevel=7)
    for damaged in (folder / "best", folder / EQUAL, *checkpoint.all_of(folder)):
        shutil.rmtree(damaged, ignore_errors=True)
    (folder / TRAINED).unlink(missing_ok=True)
    return False
