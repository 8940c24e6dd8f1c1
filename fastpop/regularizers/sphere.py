"""Alignment and uniformity as regularisers beside any loss."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import registry
from fastpop.objectives import alignment, uniformity
from fastpop.regularizers.base import RegularizerInputs, RegularizerOptions


@dataclass(frozen=True)
class Alignment(RegularizerOptions):
    """Mean squared distance between the directions of a query and its positive (Wang & Isola 2020)."""

    name: ClassVar[str] = "alignment"
    reads: ClassVar[Literal["items", "rows", "row"]] = "row"
    weight: float = 1.0

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _Alignment(given.sparse)


class _Alignment(nn.Module):
    def __init__(self, sparse: bool):
        super().__init__()
        self.sparse = sparse

    def forward(self, query_RD: Tensor, item_VD: Tensor, pos_id_R: Tensor, log_prior_V: Tensor) -> Tensor:
        row_RD = F.embedding(pos_id_R, item_VD, sparse=self.sparse and item_VD.is_leaf)
        return alignment(query_RD, row_RD).sum() / max(len(pos_id_R), 1)


@dataclass(frozen=True)
class Uniformity(RegularizerOptions):
    """How unevenly directions of a batch lie on the sphere (Wang & Isola 2020): the log of the mean over
    pairs of rows of exp(-2 squared distance).

    of: "queries", "items" (the positives), or "both", their mean.
    """

    name: ClassVar[str] = "uniformity"
    reads: ClassVar[Literal["items", "rows", "row"]] = "rows"
    compares_rows: ClassVar[bool] = True
    weight: float = 1.0
    of: Literal["queries", "items", "both"] = "both"

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _Uniformity(self.of, given.sparse)


class _Uniformity(nn.Module):
    def __init__(self, of: str, sparse: bool):
        super().__init__()
        self.of, self.sparse = of, sparse

    def forward(self, query_RD: Tensor, item_VD: Tensor, pos_id_R: Tensor, log_prior_V: Tensor) -> Tensor:
        if self.of == "queries":
            return uniformity(query_RD)
        row_RD = F.embedding(pos_id_R, item_VD, sparse=self.sparse and item_VD.is_leaf)
        if self.of == "items":
            return uniformity(row_RD)
        return (uniformity(query_RD) + uniformity(row_RD)) / 2


registry.ours("regularizer", Alignment, Uniformity)
