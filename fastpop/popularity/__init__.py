"""Counts to log p (`PopularityPrior`, `TemporalPrior`) and distributions to draw from (`Proposal`)."""

from fastpop import deprecated
from fastpop.ops.draw import Draw
from fastpop.popularity.drift import drift_forecast
from fastpop.popularity.prior import AlphaSensitivity, PopularityPrior, unit_direction
from fastpop.popularity.proposal import (
    InBatch,
    Proposal,
    log_uniform,
    mixture,
    power,
    slot_log_proposal,
    uniform,
)
from fastpop.popularity.proposals import (
    InBatchProposal,
    LogUniformProposal,
    MixtureProposal,
    PopularityProposal,
    ProposalOptions,
    UniformProposal,
    proposal_from_name,
)
from fastpop.popularity.recency import RecencyCounts, recency_counts
from fastpop.popularity.smoothing import good_turing, loo_alpha, smooth_counts
from fastpop.popularity.temporal import TemporalPrior, decayed_counts

__all__ = [
    "AlphaSensitivity",
    "Draw",
    "InBatch",
    "InBatchProposal",
    "LogUniformProposal",
    "MixtureProposal",
    "PopularityPrior",
    "PopularityProposal",
    "Proposal",
    "ProposalOptions",
    "RecencyCounts",
    "TemporalPrior",
    "UniformProposal",
    "decayed_counts",
    "drift_forecast",
    "good_turing",
    "log_uniform",
    "loo_alpha",
    "mixture",
    "power",
    "proposal_from_name",
    "recency_counts",
    "slot_log_proposal",
    "smooth_counts",
    "uniform",
    "unit_direction",
]

__getattr__ = deprecated.names(__name__, {"slot_law": ("fastpop.popularity.proposal", "slot_log_proposal")})
