"""Regularisers: what is added to the mean loss of a step. One contract, `RegularizerOptions`."""

from fastpop.regularizers.base import RegularizerInputs, RegularizerOptions
from fastpop.regularizers.contrast import DuoRec, SimGCL, contrast, noisy
from fastpop.regularizers.cosine import CosReg, mean_cosine
from fastpop.regularizers.l2 import L2
from fastpop.regularizers.spectral import ReSN, squared_spectral_norm
from fastpop.regularizers.sphere import Alignment, Uniformity

__all__ = [
    "L2",
    "Alignment",
    "CosReg",
    "DuoRec",
    "ReSN",
    "RegularizerInputs",
    "RegularizerOptions",
    "SimGCL",
    "Uniformity",
    "contrast",
    "mean_cosine",
    "noisy",
    "squared_spectral_norm",
]
