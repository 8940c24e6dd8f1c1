"""Losses as modules over the ops, and as options to choose from (`Objective`)."""

from fastpop.objectives.options import FullSoftmax, LossInputs, Objective, SampledSoftmax
from fastpop.objectives.pda import Pda, PdaLoss
from fastpop.objectives.relmf import RelMf, RelMfLoss
from fastpop.objectives.softmax import FullSoftmaxLoss, SampledSoftmaxLoss

__all__ = [
    "FullSoftmax",
    "FullSoftmaxLoss",
    "LossInputs",
    "Objective",
    "Pda",
    "PdaLoss",
    "RelMf",
    "RelMfLoss",
    "SampledSoftmax",
    "SampledSoftmaxLoss",
]
