"""GRU4Rec: a recurrent network over the history."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks
from fastpop.encoders.base import Encoder, EncoderOptions, Sizes, wide
from fastpop.encoders.sasrec import MOST_LAYERS

MOST_WIDTH = 16_384


@dataclass(frozen=True)
class GRU4Rec(EncoderOptions):
    """A GRU over item vectors: see `GRU4RecEncoder`.

    layers: of the GRU. width: of its state; 0: D, and the state is the query. input_dropout, state_dropout:
    probabilities, on item vectors and on states.
    """

    name: ClassVar[str] = "gru4rec"
    half_tables: ClassVar[bool] = True
    layers: int = 1
    width: int = 0
    input_dropout: float = 0.0
    state_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("encoder.layers", self.layers, ge=1, le=MOST_LAYERS, integer=True)
        checks.number("encoder.width", self.width, ge=0, le=MOST_WIDTH, integer=True)
        for name in ("input_dropout", "state_dropout"):
            checks.number(f"encoder.{name}", getattr(self, name), ge=0)
            if getattr(self, name) >= 1:
                raise checks.wrong(f"encoder.{name}", "a number below 1", getattr(self, name))

    def build(self, sizes: Sizes) -> "GRU4RecEncoder":
        return GRU4RecEncoder(
            sizes.dim,
            layers=self.layers,
            width=self.width or None,
            input_dropout=self.input_dropout,
            state_dropout=self.state_dropout,
            sparse=sizes.sparse,
        )


class GRU4RecEncoder(Encoder):
    """A GRU over item vectors (Hidasi et al. 2016, arXiv 1511.06939; Hidasi & Karatzoglou 2018, arXiv
    1706.03847): the state after items 0..l is the query at l.

    Item vectors are those that queries are multiplied with, a constrained embedding. Where the state is wider
    or narrower than D, a linear map makes the query of it. A window begins with a state of zeros: where users
    of the log are sessions, that is where the original resets its own. The original walks through many
    sessions side by side, an item a step, and takes the gradient of that step alone; here a window is one
    pass, and gradients go back through all of it.

    Args:
        dim: D. layers: of the GRU. width: of its state, D by default. input_dropout, state_dropout:
        probabilities, on item vectors, and on what each layer gives. sparse: the item table's gradient
        is sparse.
    """

    reads = "sequences"
    one_length = True

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 1,
        width: int | None = None,
        input_dropout: float = 0.0,
        state_dropout: float = 0.0,
        sparse: bool = False,
    ):
        super().__init__()
        width = width or dim
        self.gru = nn.GRU(dim, width, layers, batch_first=True, dropout=state_dropout if layers > 1 else 0.0)
        self.out = nn.Identity() if width == dim else nn.Linear(width, dim)
        self.input_dropout, self.state_dropout = nn.Dropout(input_dropout), nn.Dropout(state_dropout)
        self.sparse = sparse

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        assert history_BL is not None
        row_BLD = wide(F.embedding(history_BL.clamp(min=0), item_VD, sparse=self.sparse))
        state_BLW, _ = self.gru(self.input_dropout(row_BLD))
        return self.out(self.state_dropout(state_BLW))
