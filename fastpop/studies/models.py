"""Models that experiments train: each in a folder of its own, so that a stopped experiment goes on."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fastpop
from fastpop.data.interactions import Interactions
from fastpop.studies.study import Setting
from fastpop.training import CheckpointError, TrainResult, sealed, state_of
from fastpop.training import folder as run_folder

# What the comparison of SASRec on MovieTweetings runs with; a quick model only shows that everything runs.
FULL: dict[str, Any] = {"encoder": "sasrec", "epochs": 8, "valid_cases": 2000}
QUICK: dict[str, Any] = {"encoder": "factor", "dim": 8, "epochs": 2, "num_negatives": 64, "batch_size": 256}
# For methods that their sources trained with matrix factorisation; the step size of the comparison on Ciao.
FACTOR: dict[str, Any] = {"encoder": "factor", "learning_rate": 0.003}
UNORDERED: dict[str, Any] = {"encoder": "factor", "split": "random-by-user"}
QUICK_USERS, QUICK_ITEMS = 300, 400


def model_options(setting: Setting) -> dict[str, Any]:
    """Of every model of an experiment, before what the experiment itself varies."""
    unordered = {} if setting.log.has_order else UNORDERED
    return {**(QUICK if setting.quick else FULL), **unordered, **setting.options}


def factor_options(setting: Setting) -> dict[str, Any]:
    """What matrix factorisation has in place of that, where nobody asked for another encoder."""
    mine = {} if setting.quick or "encoder" in setting.options else FACTOR
    return {key: value for key, value in mine.items() if key not in setting.options}


def trained(setting: Setting, name: str, log: Interactions | None = None, **options: Any) -> TrainResult:
    """A model by its name within the experiment: trained, or as it was kept."""
    log = setting.log if log is None else log
    place = setting.part(name)
    if place is not None:
        _unless_unknown(place, name)
    finished = place is not None and state_of(place) == "finished"
    if place is not None and finished:
        try:
            with run_folder.held(place):  # and sweep what was left by what was killed
                return fastpop.load(place)
        except (CheckpointError, ValueError) as error:
            warnings.warn(f"{error}. {name} goes on from its checkpoint.", UserWarning, stacklevel=2)
    result = fastpop.train(log, out=place, progress=setting.progress, resume=finished, **options)
    setting.lap()
    return result


def _unless_unknown(place: Path, name: str) -> None:
    """A run whose config.json is damaged may be of other options than the experiment's: it goes."""
    if state_of(place) == "nothing":
        return
    try:
        sealed.read(place / run_folder.CONFIG)
    except sealed.Damaged as error:
        warnings.warn(f"{error}. {name} is trained anew.", UserWarning, stacklevel=3)
        shutil.rmtree(place)


def small(log: Interactions) -> Interactions:
    """The most popular items' events of some users, for quick runs."""
    item_N, user_N = np.asarray(log.item), np.repeat(np.arange(log.num_users), np.diff(log.offsets))
    kept_V = np.zeros(log.num_items, bool)
    kept_V[np.argsort(-log.item_counts(), kind="stable")[:QUICK_ITEMS]] = True
    kept_N = kept_V[item_N]
    users = np.unique(user_N[kept_N])
    kept_N &= np.isin(user_N, users[:: max(1, len(users) // QUICK_USERS)])
    return Interactions.from_arrays(
        user_N[kept_N], item_N[kept_N], None if log.time is None else np.asarray(log.time)[kept_N]
    )
