"""fastpop: dot-product recommenders with popularity outside the dot product, and an exact audit
of how much of any recommender's score is popularity.

Names load on first use, so that `import fastpop` costs little beyond what you then touch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_FUNCTIONS = {
    "read_log": "fastpop.data",
    "Columns": "fastpop.data",
    "Interactions": "fastpop.data",
    "train": "fastpop.training",
    "load": "fastpop.training",
    "TrainConfig": "fastpop.training",
    "compare": "fastpop.experiments",
    "experiment": "fastpop.studies",
    "audit": "fastpop.judge",
    "export": "fastpop.exporting",
    "open_export": "fastpop.exporting",
    "evaluate": "fastpop.judge",
    "recommend": "fastpop.judge",
    "Draw": "fastpop.ops",
    "fold": "fastpop.folding",
    "available": "fastpop.registry",
    "register": "fastpop.registry",
}
_MODULES = (
    "data",
    "diagnostics",
    "encoders",
    "evaluation",
    "experiments",
    "exporting",
    "item_towers",
    "nn",
    "objectives",
    "ops",
    "optim",
    "popularity",
    "priors",
    "recipes",
    "regularizers",
    "report",
    "studies",
    "synthetic",
    "table_optimizers",
    "testing",
    "training",
)

__all__ = [*_FUNCTIONS, *_MODULES]

if TYPE_CHECKING:
    from fastpop.data import Columns as Columns
    from fastpop.data import Interactions as Interactions
    from fastpop.data import read_log as read_log
    from fastpop.experiments import compare as compare  # type: ignore[no-redef]
    from fastpop.exporting import export as export
    from fastpop.exporting import open_export as open_export
    from fastpop.folding import fold as fold
    from fastpop.judge import audit as audit
    from fastpop.judge import evaluate as evaluate
    from fastpop.judge import recommend as recommend
    from fastpop.ops import Draw as Draw
    from fastpop.registry import available as available
    from fastpop.registry import register as register
    from fastpop.studies import experiment as experiment
    from fastpop.training import TrainConfig as TrainConfig
    from fastpop.training import load as load
    from fastpop.training import train as train


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        value = getattr(importlib.import_module(_FUNCTIONS[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"fastpop.{name}")
    else:
        raise AttributeError(f"module 'fastpop' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
