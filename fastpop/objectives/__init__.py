"""Losses as modules over the ops, and as options to choose from (`Objective`)."""

from fastpop.objectives.candidates import CandidateLoss, in_float32, wide
from fastpop.objectives.dice import DICE, PopularityMargin
from fastpop.objectives.different import different_ids
from fastpop.objectives.directau import DirectAU, alignment, uniformity
from fastpop.objectives.entmax import Entmax, entmax15, entmax15_loss
from fastpop.objectives.importance import ImportanceSampling, effective_sample_size
from fastpop.objectives.item_rows import ItemRows, draw_of_rows
from fastpop.objectives.options import FullSoftmax, LossInputs, Objective, SampledSoftmax, need_others
from fastpop.objectives.pairwise import BPR, TOP1, BPRMax, TOP1Max, bpr, bpr_max, top1, top1_max
from fastpop.objectives.pda import Pda, PdaLoss
from fastpop.objectives.pointwise import BCE, GBCE, bce, gbce
from fastpop.objectives.relmf import RelMf, RelMfLoss
from fastpop.objectives.shortlist import PartitionedSoftmax
from fastpop.objectives.softmax import FullSoftmaxLoss, SampledSoftmaxLoss

__all__ = [
    "BCE",
    "BPR",
    "DICE",
    "GBCE",
    "TOP1",
    "BPRMax",
    "CandidateLoss",
    "DirectAU",
    "Entmax",
    "FullSoftmax",
    "FullSoftmaxLoss",
    "ImportanceSampling",
    "ItemRows",
    "LossInputs",
    "Objective",
    "PartitionedSoftmax",
    "Pda",
    "PdaLoss",
    "PopularityMargin",
    "RelMf",
    "RelMfLoss",
    "SampledSoftmax",
    "SampledSoftmaxLoss",
    "TOP1Max",
    "alignment",
    "bce",
    "bpr",
    "bpr_max",
    "different_ids",
    "draw_of_rows",
    "effective_sample_size",
    "entmax15",
    "entmax15_loss",
    "gbce",
    "in_float32",
    "need_others",
    "top1",
    "top1_max",
    "uniformity",
    "wide",
]
