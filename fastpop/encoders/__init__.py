"""Encoders: users or histories -> query vectors. One contract, `Encoder`; `EncoderOptions` make one."""

from fastpop import registry
from fastpop.encoders.bag import Bag, BagEncoder
from fastpop.encoders.base import Encoder, EncoderOptions, Sizes
from fastpop.encoders.factor import Factor, FactorEncoder
from fastpop.encoders.lightgcn import LightGCN, LightGCNEncoder
from fastpop.encoders.sasrec import SASRec, SASRecEncoder

registry.ours("encoder", Factor, Bag, SASRec, LightGCN)

__all__ = [
    "Bag",
    "BagEncoder",
    "Encoder",
    "EncoderOptions",
    "Factor",
    "FactorEncoder",
    "LightGCN",
    "LightGCNEncoder",
    "SASRec",
    "SASRecEncoder",
    "Sizes",
]
