"""The modules that other trainers drop in."""

from fastpop.decoder import Decoder
from fastpop.encoders import Bag, Factor, SASRec
from fastpop.objectives import FullSoftmaxLoss, SampledSoftmaxLoss

__all__ = ["Bag", "Decoder", "Factor", "FullSoftmaxLoss", "SASRec", "SampledSoftmaxLoss"]
