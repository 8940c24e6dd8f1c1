"""Cosine regularisation of item vectors."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import registry
from fastpop.objectives import in_float32
from fastpop.ops import RowShard
from fastpop.ops.shared_sums import total
from fastpop.regularizers.base import RegularizerInputs, RegularizerOptions


@in_float32
def mean_cosine(row_VD: Tensor, *, squared: bool = False, shard: RowShard | None = None) -> Tensor:
    """Mean over pairs i != j of cos(row_i, row_j), or of its square; a scalar.

    No pair is made: the sum of cosines is the squared length of the sum of unit vectors, O(V D); that of
    squares the squared norm of their Gram matrix, O(V D^2). shard: of rows that several processes share, who
    sum that vector, or that matrix, and its gradient.
    """
    unit_VD = F.normalize(row_VD, dim=1)
    summed, num_rows = unit_VD.T @ unit_VD if squared else unit_VD.sum(0), len(row_VD)
    if shard is not None:
        summed, num_rows = total(shard, summed), shard.num_items
    return (summed.square().sum() - num_rows) / max(num_rows * (num_rows - 1), 1)


@dataclass(frozen=True)
class CosReg(RegularizerOptions):
    """Mean cosine between item vectors, against their degeneration into a cone (Gao et al. 2019, CosReg).

    It reads every item, whatever the batch. The original divides by V^2 instead of V (V - 1).

    squared: the mean squared cosine instead, which orthogonal vectors make smallest, not opposite ones.
    """

    name: ClassVar[str] = "cosreg"
    takes_shard: ClassVar[bool] = True
    weight: float = 1.0
    squared: bool = False

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _MeanCosine(self.squared)


class _MeanCosine(nn.Module):
    def __init__(self, squared: bool):
        super().__init__()
        self.squared = squared

    def forward(
        self,
        query_RD: Tensor,
        item_VD: Tensor,
        pos_id_R: Tensor,
        log_prior_V: Tensor,
        shard: RowShard | None = None,
    ) -> Tensor:
        return mean_cosine(item_VD, squared=self.squared, shard=shard)


registry.ours("regularizer", CosReg)
