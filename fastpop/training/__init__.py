"""Training: one configuration, one loop, checkpoints that survive anything."""

from fastpop.evaluation import Recommendations
from fastpop.training.build import Assembly, assemble, target_counts, target_prior
from fastpop.training.checkpoint import CheckpointError
from fastpop.training.config import TrainConfig
from fastpop.training.folder import check_before, state_of
from fastpop.training.item_index import ItemIndex, Recall, Refresh
from fastpop.training.loggers import Logger
from fastpop.training.loop import Progress, TrainingDiverged, fit, train_step
from fastpop.training.result import TrainResult
from fastpop.training.run import finished_run, load, train
from fastpop.training.serving import Serving

__all__ = [
    "Assembly",
    "CheckpointError",
    "ItemIndex",
    "Logger",
    "Progress",
    "Recall",
    "Recommendations",
    "Refresh",
    "Serving",
    "TrainConfig",
    "TrainResult",
    "TrainingDiverged",
    "assemble",
    "check_before",
    "finished_run",
    "fit",
    "load",
    "state_of",
    "target_counts",
    "target_prior",
    "train",
    "train_step",
]
