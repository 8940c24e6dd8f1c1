"""The spectral norm of the scores, in which popularity sits."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import registry
from fastpop.objectives import in_float32
from fastpop.ops import RowShard
from fastpop.ops.shared_sums import total
from fastpop.regularizers.base import RegularizerInputs, RegularizerOptions

SQUARINGS = 28  # brought to norm 1 after four each, which float64 holds
LEAST = 1e-300


@in_float32
def squared_spectral_norm(query_RD: Tensor, item_VD: Tensor, *, shard: RowShard | None = None) -> Tensor:
    """The square of the largest singular value of query @ items.T, a scalar; the scores are never made.

    It is the largest eigenvalue of G_E G_Q, Gram matrices [D, D] of items and queries. Its eigenvector w is
    found without a gradient, by two symmetric problems on the CPU and by powers on a device; the Rayleigh
    quotient at w then has the exact one, since it is stationary there (where the largest singular value is
    single).
    shard: of items that several processes share, each with queries of its own: both matrices are summed over
    them, and their gradients.
    Cost: O((R + V) D^2 + D^3).
    """
    query_gram_DD, item_gram_DD = (rows.T @ rows for rows in (query_RD, item_VD))
    if shard is not None:
        query_gram_DD, item_gram_DD = total(shard, torch.stack([query_gram_DD, item_gram_DD]))
    top = top_by_eigh if query_gram_DD.device.type == "cpu" else top_by_powers
    with torch.no_grad():
        w_D = top(item_gram_DD.double(), query_gram_DD.double()).to(query_gram_DD.dtype)
    seen_D = query_gram_DD @ w_D
    below = w_D @ seen_D
    return torch.where(below > 0, seen_D @ (item_gram_DD @ seen_D) / below.clamp(min=1e-30), 0 * below)


def top_by_eigh(item_gram_DD: Tensor, query_gram_DD: Tensor) -> Tensor:
    """[D]: the eigenvector of G_E G_Q whose eigenvalue is the largest."""
    value_D, basis_DD = torch.linalg.eigh(item_gram_DD)
    root_DD = basis_DD * value_D.clamp(min=0).sqrt()
    _, vector_DD = torch.linalg.eigh(root_DD.T @ query_gram_DD @ root_DD)
    return root_DD @ vector_DD[:, -1]


def top_by_powers(item_gram_DD: Tensor, query_gram_DD: Tensor) -> Tensor:
    """The same by squaring, for a device, whose eigh is waited for: [D], of length 1, or zeros.

    (G_E G_Q)^n with n = 2^SQUARINGS is w times a row, but for (second eigenvalue / first)^n. Where that is
    not small, the two differ by less than float32 rounds the first by, and what is found lies between them.
    """
    power_DD = _of_norm_1(item_gram_DD @ query_gram_DD)
    for _ in range(SQUARINGS // 4):
        for _ in range(4):
            power_DD = power_DD @ power_DD
        power_DD = _of_norm_1(power_DD)
    # The column that is largest, which is not a sum in which w could cancel.
    at = power_DD.square().sum(0).argmax()
    return F.normalize(power_DD.index_select(1, at[None])[:, 0], dim=0, eps=LEAST)


def _of_norm_1(rows_DD: Tensor) -> Tensor:
    return rows_DD / torch.linalg.matrix_norm(rows_DD).clamp(min=LEAST)


@dataclass(frozen=True)
class ReSN(RegularizerOptions):
    """The squared spectral norm of the scores (Lin et al. 2025, ReSN: popularity is the principal singular
    vector of a score matrix, and a low dimension amplifies it), divided by the rows.

    Of the batch's queries against all items, and the norm itself: the original, on all users, takes the
    popularity vector for the singular one. The original tunes the weight.
    """

    name: ClassVar[str] = "resn"
    takes_shard: ClassVar[bool] = True

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _SpectralNorm()


class _SpectralNorm(nn.Module):
    def forward(
        self,
        query_RD: Tensor,
        item_VD: Tensor,
        pos_id_R: Tensor,
        log_prior_V: Tensor,
        shard: RowShard | None = None,
    ) -> Tensor:
        num_rows = len(pos_id_R) if shard is None else shard.place_among(len(pos_id_R), pos_id_R.device)[1]
        return squared_spectral_norm(query_RD, item_VD, shard=shard) / max(num_rows, 1)


registry.ours("regularizer", ReSN)
