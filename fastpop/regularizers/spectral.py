"""The spectral norm of the scores, in which popularity sits."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fastpop import registry
from fastpop.objectives import in_float32
from fastpop.regularizers.base import RegularizerInputs, RegularizerOptions


@in_float32
def squared_spectral_norm(query_RD: Tensor, item_VD: Tensor) -> Tensor:
    """The square of the largest singular value of query @ items.T, a scalar; the scores are never made.

    It is the largest eigenvalue of G_E G_Q, Gram matrices [D, D] of items and queries. Its eigenvector w is
    found by two symmetric problems without a gradient; the Rayleigh quotient at w then has the exact one,
    since it is stationary there (where the largest singular value is single).
    Cost: O((R + V) D^2 + D^3).
    """
    query_gram_DD, item_gram_DD = (rows.T @ rows for rows in (query_RD, item_VD))
    with torch.no_grad():
        value_D, basis_DD = torch.linalg.eigh(item_gram_DD.double())
        root_DD = basis_DD * value_D.clamp(min=0).sqrt()
        _, vector_DD = torch.linalg.eigh(root_DD.T @ query_gram_DD.double() @ root_DD)
        w_D = (root_DD @ vector_DD[:, -1]).to(query_gram_DD.dtype)
    seen_D = query_gram_DD @ w_D
    below = w_D @ seen_D
    return torch.where(below > 0, seen_D @ (item_gram_DD @ seen_D) / below.clamp(min=1e-30), 0 * below)


@dataclass(frozen=True)
class ReSN(RegularizerOptions):
    """The squared spectral norm of the scores (Lin et al. 2025, ReSN: popularity is the principal singular
    vector of a score matrix, and a low dimension amplifies it), divided by the rows.

    Of the batch's queries against all items, and the norm itself: the original, on all users, takes the
    popularity vector for the singular one. The original tunes the weight.
    """

    name: ClassVar[str] = "resn"

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _SpectralNorm()


class _SpectralNorm(nn.Module):
    def forward(self, query_RD: Tensor, item_VD: Tensor, pos_id_R: Tensor, log_prior_V: Tensor) -> Tensor:
        return squared_spectral_norm(query_RD, item_VD) / max(len(pos_id_R), 1)


registry.ours("regularizer", ReSN)
