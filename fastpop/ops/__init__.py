"""The ops: plain functions on tensors, each with a reference and compiled implementations.

Bound eagerly: a lazily bound `ops.sampled_softmax` would turn into its module on second access.
"""

from fastpop.ops.full_softmax import full_softmax
from fastpop.ops.gathered_softmax import gathered_softmax
from fastpop.ops.permutation import permutation
from fastpop.ops.row_update import row_adagrad_, row_adam_, row_sgd_
from fastpop.ops.sampled_softmax import sampled_softmax
from fastpop.ops.score_energy import score_energy, streamed_score_energy
from fastpop.ops.target_ranks import TargetRanks, target_ranks
from fastpop.ops.top_items import top_items

__all__ = [
    "TargetRanks", "full_softmax", "gathered_softmax", "permutation", "row_adagrad_", "row_adam_", "row_sgd_",
    "sampled_softmax", "score_energy", "streamed_score_energy", "target_ranks",
    "top_items",
]
