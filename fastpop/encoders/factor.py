"""Matrix factorisation: a vector a user."""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop.encoders.base import Encoder


class Factor(Encoder):
    """query = base + dropout(user_embedding[user]): matrix factorisation (Koren et al. 2009).

    `base` is what all users share: with it the item table finds the common direction in a few
    steps, and a user of few events stays near the average user. Dropout acts on the user's own part.

    Args:
        num_users: U. dim: D. dropout: probability. sparse: the table's gradient is sparse.
    """

    reads = "events"

    def __init__(self, num_users: int, dim: int, *, dropout: float = 0.0, sparse: bool = False):
        super().__init__()
        self.base = nn.Parameter(nn.init.normal_(Tensor(dim), std=dim**-0.5))
        self.user_embedding = nn.Parameter(nn.init.normal_(Tensor(num_users, dim), std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.sparse = sparse

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        own_BD = F.embedding(user_B, self.user_embedding, sparse=self.sparse)
        return self.base + self.dropout(own_BD)

    def last(self, user_C: Tensor, history_CL: Tensor, item_VD: Tensor) -> Tensor:
        return self(user_C, None, item_VD)

    def tables(self) -> list[nn.Parameter]:
        return [self.user_embedding]
