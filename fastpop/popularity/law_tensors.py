"""Where `ProposalTensors` was: pickles of proposals name this module."""

from fastpop import deprecated

__getattr__ = deprecated.names(__name__, {"LawTensors": ("fastpop.ops.proposal_tensors", "ProposalTensors")})
