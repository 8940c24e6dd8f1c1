"""Encoders: users or histories -> query vectors. One contract, `Encoder`; `EncoderOptions` make one."""

from fastpop import registry
from fastpop.encoders.bag import Bag, BagEncoder
from fastpop.encoders.base import Encoder, EncoderOptions, Sizes
from fastpop.encoders.bert4rec import BERT4Rec, BERT4RecEncoder
from fastpop.encoders.factor import Factor, FactorEncoder
from fastpop.encoders.gru4rec import GRU4Rec, GRU4RecEncoder
from fastpop.encoders.lightgcn import LightGCN, LightGCNEncoder
from fastpop.encoders.sasrec import SASRec, SASRecEncoder

registry.ours("encoder", Factor, Bag, SASRec, BERT4Rec, GRU4Rec, LightGCN)

__all__ = [
    "BERT4Rec",
    "BERT4RecEncoder",
    "Bag",
    "BagEncoder",
    "Encoder",
    "EncoderOptions",
    "Factor",
    "FactorEncoder",
    "GRU4Rec",
    "GRU4RecEncoder",
    "LightGCN",
    "LightGCNEncoder",
    "SASRec",
    "SASRecEncoder",
    "Sizes",
]
