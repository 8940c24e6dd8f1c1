"""Counts to log p (`PopularityPrior`), and the laws negatives are drawn from (`Proposal`)."""

from fastpop.popularity.draw import Draw
from fastpop.popularity.proposal import (
    PROPOSALS,
    InBatch,
    Proposal,
    log_uniform,
    mixture,
    power,
    proposal_from_name,
    slot_law,
    uniform,
)

__all__ = [
    "PROPOSALS",
    "Draw",
    "InBatch",
    "Proposal",
    "log_uniform",
    "mixture",
    "power",
    "proposal_from_name",
    "slot_law",
    "uniform",
]
