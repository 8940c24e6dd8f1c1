"""The ops: plain functions on tensors, each with a reference and compiled implementations.

Bound eagerly: a lazily bound `ops.sampled_softmax` would turn into its module on second access.
"""

from fastpop.ops.full_softmax import full_softmax
from fastpop.ops.row_update import row_adagrad_, row_adam_, row_sgd_
from fastpop.ops.sampled_softmax import sampled_softmax

__all__ = ["full_softmax", "row_adagrad_", "row_adam_", "row_sgd_", "sampled_softmax"]
