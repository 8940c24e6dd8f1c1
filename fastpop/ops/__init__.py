"""The ops: plain functions on tensors, each with a reference and compiled implementations.

Drawing, permutations and the reading of logs need no torch, so names load on first use; where torch is
there already all do, since they register operators, which an exported program may ask for. A function is
found under its own name although its module has the same one.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

_MODULES = {
    "AliasTable": "alias_table",
    "Draw": "draw",
    "RowShard": "row_shard",
    "ScoreEnergy": "energies",
    "TargetRanks": "target_ranks",
    "alias_draw": "alias_draw",
    "all_rows": "shared_rows",
    "available": "availability",
    "full_softmax": "full_softmax",
    "gathered_softmax": "gathered_softmax",
    "permutation": "permutation",
    "row_adagrad_": "row_update",
    "row_adam_": "row_update",
    "row_sgd_": "row_update",
    "sampled_softmax": "sampled_softmax",
    "score_energy": "score_energy",
    "shared_rows": "shared_rows",
    "streamed_score_energy": "score_energy",
    "target_ranks": "target_ranks",
    "top_items": "top_items",
}

__all__ = [
    "AliasTable",
    "Draw",
    "RowShard",
    "ScoreEnergy",
    "TargetRanks",
    "alias_draw",
    "all_rows",
    "available",
    "full_softmax",
    "gathered_softmax",
    "permutation",
    "row_adagrad_",
    "row_adam_",
    "row_sgd_",
    "sampled_softmax",
    "score_energy",
    "shared_rows",
    "streamed_score_energy",
    "target_ranks",
    "top_items",
]

if TYPE_CHECKING:
    from fastpop.ops.alias_draw import alias_draw as alias_draw
    from fastpop.ops.alias_table import AliasTable as AliasTable
    from fastpop.ops.availability import available as available
    from fastpop.ops.draw import Draw as Draw
    from fastpop.ops.energies import ScoreEnergy as ScoreEnergy
    from fastpop.ops.full_softmax import full_softmax as full_softmax
    from fastpop.ops.gathered_softmax import gathered_softmax as gathered_softmax
    from fastpop.ops.permutation import permutation as permutation
    from fastpop.ops.row_shard import RowShard as RowShard
    from fastpop.ops.row_update import row_adagrad_ as row_adagrad_
    from fastpop.ops.row_update import row_adam_ as row_adam_
    from fastpop.ops.row_update import row_sgd_ as row_sgd_
    from fastpop.ops.sampled_softmax import sampled_softmax as sampled_softmax
    from fastpop.ops.score_energy import score_energy as score_energy
    from fastpop.ops.score_energy import streamed_score_energy as streamed_score_energy
    from fastpop.ops.shared_rows import all_rows as all_rows
    from fastpop.ops.shared_rows import shared_rows as shared_rows
    from fastpop.ops.target_ranks import TargetRanks as TargetRanks
    from fastpop.ops.target_ranks import target_ranks as target_ranks
    from fastpop.ops.top_items import top_items as top_items


class _Ops(ModuleType):
    """An import of a module binds its name here; where that is an op's, the function stands for it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _MODULES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fastpop.ops' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastpop.ops.{_MODULES[name]}"), name)
    globals()[name] = value
    _register_operators()
    return value


def _register_operators() -> None:
    if "torch" in sys.modules:
        for module in sorted(set(_MODULES.values())):
            importlib.import_module(f"fastpop.ops.{module}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


sys.modules[__name__].__class__ = _Ops
_register_operators()
