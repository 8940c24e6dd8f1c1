"""Matrix factorisation: a vector a user."""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop.encoders.base import Encoder


class Factor(Encoder):
    """query = user_embedding[user]; with a softmax loss, matrix factorisation (Koren et al. 2009).

    Args:
        num_users: U. dim: D. sparse: the table's gradient is sparse.
    """

    reads = "events"

    def __init__(self, num_users: int, dim: int, *, sparse: bool = False):
        super().__init__()
        self.user_embedding = nn.Parameter(nn.init.normal_(Tensor(num_users, dim), std=0.1))
        self.sparse = sparse

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        return F.embedding(user_B, self.user_embedding, sparse=self.sparse)

    def last(self, user_C: Tensor, history_CL: Tensor, item_VD: Tensor) -> Tensor:
        return self(user_C, None, item_VD)

    def tables(self) -> list[nn.Parameter]:
        return [self.user_embedding]
