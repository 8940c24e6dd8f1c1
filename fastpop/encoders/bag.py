"""Bag of history: the mean of the items so far."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop.encoders.base import Encoder, EncoderOptions, Sizes, check_dropout, wide
from fastpop.tables import PLAIN, TableKind, normal_table


@dataclass(frozen=True)
class Bag(EncoderOptions):
    """The mean of the history: see `BagEncoder`. dropout: probability, on the mean. base: whether all
    histories share a vector."""

    name: ClassVar[str] = "bag"
    half_tables: ClassVar[bool] = True
    dropout: float = 0.2
    base: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)

    def build(self, sizes: Sizes) -> "BagEncoder":
        return BagEncoder(
            sizes.num_items,
            sizes.dim,
            dropout=self.dropout,
            sparse=sizes.sparse,
            base=self.base,
            tables=sizes.tables,
        )


class BagEncoder(Encoder):
    """query[l] = base + mean of history_embedding[items 0..l]: FISM (Kabbur et al. 2013), causal.

    `base` is what all histories share, an item bias inside the dot product, as in `FactorEncoder`; base=False
    leaves it out. Dropout acts on the mean.

    Args:
        num_items: V. dim: D. dropout: probability. sparse: the table's gradient is sparse.
        base: whether there is a shared vector. tables: how the table is held.
    """

    reads = "sequences"
    can_be_recorded = True
    reads_items = False  # but its own table

    def __init__(
        self,
        num_items: int,
        dim: int,
        *,
        dropout: float = 0.0,
        sparse: bool = False,
        base: bool = True,
        tables: TableKind = PLAIN,
    ):
        super().__init__()
        self.base = nn.Parameter(nn.init.normal_(Tensor(dim), std=dim**-0.5)) if base else None
        self.history_embedding = normal_table(num_items, dim, kind=tables)
        self.dropout = nn.Dropout(dropout)
        self.sparse = sparse

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        assert history_BL is not None
        real_BL1 = (history_BL >= 0)[:, :, None]
        row_BLD = wide(F.embedding(history_BL.clamp(min=0), self.history_embedding, sparse=self.sparse))
        total_BLD = (row_BLD * real_BL1).cumsum(1)
        count_L1 = torch.arange(1, history_BL.shape[1] + 1, device=history_BL.device)[:, None]
        mean_BLD = self.dropout(total_BLD / count_L1)
        return mean_BLD if self.base is None else self.base + mean_BLD

    def tables(self) -> list[nn.Parameter]:
        return [self.history_embedding]
