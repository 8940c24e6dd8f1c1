"""SASRec: causal self-attention over the history."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks
from fastpop.encoders.base import Encoder, EncoderOptions, Sizes, check_dropout, wide
from fastpop.encoders.transformer import Block

# What no run needs more of; a larger number is a slip, and would end in the machine's memory.
MOST_LAYERS, MOST_HEADS = 128, 1024


@dataclass(frozen=True)
class SASRec(EncoderOptions):
    """Causal self-attention over the history: see `SASRecEncoder`.

    num_layers: blocks. num_heads: attention heads, a divisor of D. dropout: probability, on inputs,
    attention and blocks. hidden: width of the feed-forward part; 0: 4 D.
    """

    name: ClassVar[str] = "sasrec"
    half_tables: ClassVar[bool] = True
    num_layers: int = 2
    num_heads: int = 2
    dropout: float = 0.2
    hidden: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("encoder.num_layers", self.num_layers, ge=1, le=MOST_LAYERS, integer=True)
        checks.number("encoder.num_heads", self.num_heads, ge=1, le=MOST_HEADS, integer=True)
        checks.number("encoder.hidden", self.hidden, ge=0, integer=True)
        check_dropout(self.dropout)

    def check(self, dim: int) -> None:
        if dim % self.num_heads:
            raise checks.wrong("num_heads", f"a divisor of dim = {dim}", self.num_heads)

    def build(self, sizes: Sizes) -> "SASRecEncoder":
        return SASRecEncoder(
            sizes.dim,
            max_length=sizes.max_length,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hidden=self.hidden or None,
            dropout=self.dropout,
            sparse=sizes.sparse,
        )


class SASRecEncoder(Encoder):
    """Causal transformer over the item vectors of the decoder's own table (Kang & McAuley 2018).

    Pre-norm blocks with GELU, learned positions counted from the start of the window. Padding
    stands after the end, where a causal query never attends, so no padding mask is needed.

    Args:
        dim: D. max_length: L, the longest history read. num_layers, num_heads: num_heads
        divides D. hidden: width of the feed-forward part, 4 D by default. dropout: on
        inputs, attention and blocks. sparse: the item table's gradient is sparse.
    """

    reads = "sequences"
    can_be_recorded = True

    def __init__(
        self,
        dim: int,
        *,
        max_length: int = 50,
        num_layers: int = 2,
        num_heads: int = 2,
        hidden: int | None = None,
        dropout: float = 0.2,
        sparse: bool = False,
    ):
        super().__init__()
        if dim % num_heads:
            raise checks.wrong("num_heads", f"a divisor of dim = {dim}", num_heads)
        self.position = nn.Parameter(nn.init.normal_(Tensor(max_length, dim), std=0.02))
        self.input_dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            [Block(dim, num_heads, hidden or 4 * dim, dropout) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(dim)
        self.sparse = sparse
        self.scale = math.sqrt(dim)

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        assert history_BL is not None
        length = history_BL.shape[1]
        if length > self.position.shape[0]:
            raise checks.wrong("history", f"at most {self.position.shape[0]} items", history_BL)
        row_BLD = wide(F.embedding(history_BL.clamp(min=0), item_VD, sparse=self.sparse))
        hidden_BLD = self.input_dropout(self.scale * row_BLD + self.position[:length])
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD)
        return self.norm(hidden_BLD)
