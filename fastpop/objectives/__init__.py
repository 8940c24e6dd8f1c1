"""Losses as modules over the ops."""

from fastpop.objectives.softmax import FullSoftmaxLoss, SampledSoftmaxLoss

NAMES = ("full_softmax", "sampled_softmax")

__all__ = ["NAMES", "FullSoftmaxLoss", "SampledSoftmaxLoss"]
