"""One vector per user: matrix factorisation, with or without a vector that all users share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop.encoders.base import Encoder, EncoderOptions, Sizes, check_dropout, wide
from fastpop.tables import PLAIN, TableKind, normal_table


@dataclass(frozen=True)
class Factor(EncoderOptions):
    """One vector per user: see `FactorEncoder`. dropout: probability, on the user's own part. base: whether
    all users share a vector."""

    name: ClassVar[str] = "factor"
    reads: ClassVar[Literal["events", "sequences"]] = "events"
    half_tables: ClassVar[bool] = True
    dropout: float = 0.2
    base: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)

    def build(self, sizes: Sizes) -> "FactorEncoder":
        return FactorEncoder(
            sizes.num_users,
            sizes.dim,
            dropout=self.dropout,
            sparse=sizes.sparse,
            base=self.base,
            tables=sizes.tables,
        )


class FactorEncoder(Encoder):
    """query = base + dropout(user_embedding[user]): matrix factorisation (Koren et al. 2009) and a vector
    that all users share.

    `base` is an item bias inside the dot product: <base, item> is the same for every user. With it
    the item table finds the common direction in a few steps, and a user of few events stays near the
    average user; but it is not plain matrix factorisation, which is base=False: query =
    dropout(user_embedding[user]). Dropout acts on the user's own part.

    Args:
        num_users: U. dim: D. dropout: probability. sparse: the table's gradient is sparse.
        base: whether there is a shared vector. tables: how the table is held.
    """

    reads = "events"
    can_be_recorded = True

    def __init__(
        self,
        num_users: int,
        dim: int,
        *,
        dropout: float = 0.0,
        sparse: bool = False,
        base: bool = True,
        tables: TableKind = PLAIN,
    ):
        super().__init__()
        self.base = nn.Parameter(nn.init.normal_(Tensor(dim), std=dim**-0.5)) if base else None
        self.user_embedding = normal_table(num_users, dim, kind=tables)
        self.dropout = nn.Dropout(dropout)
        self.sparse = sparse

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        own_BD = F.embedding(user_B, self.user_embedding, sparse=self.sparse)
        own_BD = self.dropout(wide(own_BD))
        return own_BD if self.base is None else self.base + own_BD

    def last(self, user_C: Tensor, history_CL: Tensor, item_VD: Tensor) -> Tensor:
        return self(user_C, None, item_VD)

    def tables(self) -> list[nn.Parameter]:
        return [self.user_embedding]
