"""The squared length of what a row uses."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import registry
from fastpop.regularizers.base import RegularizerInputs, RegularizerOptions


@dataclass(frozen=True)
class L2(RegularizerOptions):
    """Half the squared length of the vectors that a row uses, query and positive item: the penalty of
    matrix factorisation (Koren et al. 2009), and of BPR (Rendle et al. 2009)."""

    name: ClassVar[str] = "l2"
    reads: ClassVar[Literal["items", "rows", "row"]] = "row"

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _SquaredLength(given.sparse)


class _SquaredLength(nn.Module):
    def __init__(self, sparse: bool):
        super().__init__()
        self.sparse = sparse

    def forward(self, query_RD: Tensor, item_VD: Tensor, pos_id_R: Tensor, log_prior_V: Tensor) -> Tensor:
        row_RD = F.embedding(pos_id_R, item_VD, sparse=self.sparse and item_VD.is_leaf)
        return (query_RD.float().square().sum() + row_RD.float().square().sum()) / (2 * max(len(pos_id_R), 1))


registry.ours("regularizer", L2)
