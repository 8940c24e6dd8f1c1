"""BERT4Rec: attention both ways over a history with hidden items."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks
from fastpop.data.batches import PAD
from fastpop.data.masked import Masked
from fastpop.encoders.base import Encoder, EncoderOptions, Sizes, check_dropout
from fastpop.encoders.sasrec import MOST_HEADS, MOST_LAYERS
from fastpop.encoders.transformer import Block


@dataclass(frozen=True)
class BERT4Rec(EncoderOptions):
    """Attention both ways over a history with hidden items: see `BERT4RecEncoder`.

    num_layers: blocks. num_heads: attention heads, a divisor of D. dropout: probability, on inputs,
    attention and blocks. hidden: width of the feed-forward part; 0: 4 D. share, last: of the rows that it
    trains on, `fastpop.data.Masked`.
    """

    name: ClassVar[str] = "bert4rec"
    rows: ClassVar[str] = "masked"
    num_layers: int = 2
    num_heads: int = 2
    dropout: float = 0.1
    hidden: int = 0
    share: float = 0.2
    last: float = 1 / 11

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("encoder.num_layers", self.num_layers, ge=1, le=MOST_LAYERS, integer=True)
        checks.number("encoder.num_heads", self.num_heads, ge=1, le=MOST_HEADS, integer=True)
        checks.number("encoder.hidden", self.hidden, ge=0, integer=True)
        check_dropout(self.dropout)
        checks.number("encoder.share", self.share, gt=0, le=1)
        checks.number("encoder.last", self.last, ge=0, le=1)

    def rows_part(self) -> Masked:
        return Masked(share=self.share, last=self.last)

    def check(self, dim: int) -> None:
        if dim % self.num_heads:
            raise checks.wrong("num_heads", f"a divisor of dim = {dim}", self.num_heads)

    def build(self, sizes: Sizes) -> "BERT4RecEncoder":
        return BERT4RecEncoder(
            sizes.dim,
            max_length=sizes.max_length,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hidden=self.hidden or None,
            dropout=self.dropout,
            sparse=sizes.sparse,
        )


class BERT4RecEncoder(Encoder):
    """Bidirectional transformer over item vectors, some of them hidden (Sun et al. 2019, arXiv 1904.06690).

    A query stands at every position; at a hidden one it predicts what is hidden. A hidden item is any id
    from V on in a history, and is read as one learned vector. To serve, a hidden item is put after the
    history. As published: learned positions, LayerNorm and dropout of the inputs, GELU, a dense layer with
    GELU and LayerNorm before the product with the item vectors, which are those of the inputs. Blocks are
    pre-norm, as in `SASRecEncoder`, with a last LayerNorm; the item bias of the original is the prior
    "learned", in whose place log p stands under "frozen".

    Args:
        dim: D. max_length: L, the longest history read, beside which a hidden item stands. num_layers,
        num_heads: num_heads divides D. hidden: width of the feed-forward part, 4 D by default. dropout: on
        inputs, attention and blocks. sparse: the item table's gradient is sparse.
    """

    reads = "sequences"

    def __init__(
        self,
        dim: int,
        *,
        max_length: int = 50,
        num_layers: int = 2,
        num_heads: int = 2,
        hidden: int | None = None,
        dropout: float = 0.1,
        sparse: bool = False,
    ):
        super().__init__()
        if dim % num_heads:
            raise checks.wrong("num_heads", f"a divisor of dim = {dim}", num_heads)
        self.position = nn.Parameter(nn.init.normal_(Tensor(max_length + 1, dim), std=0.02))
        self.mask = nn.Parameter(nn.init.normal_(Tensor(dim), std=0.02))
        self.input_norm, self.input_dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            [Block(dim, num_heads, hidden or 4 * dim, dropout) for _ in range(num_layers)]
        )
        self.norm, self.dense, self.dense_norm = nn.LayerNorm(dim), nn.Linear(dim, dim), nn.LayerNorm(dim)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.sparse = sparse

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        assert history_BL is not None
        length, hidden_BL = history_BL.shape[1], history_BL >= item_VD.shape[0]
        if length > self.position.shape[0]:
            raise checks.wrong("history", f"at most {self.position.shape[0]} items", history_BL)
        row_BLD = F.embedding(history_BL.clamp(min=0).masked_fill(hidden_BL, 0), item_VD, sparse=self.sparse)
        row_BLD = torch.where(hidden_BL[:, :, None], self.mask.to(row_BLD.dtype), row_BLD)
        out_BLD = self.input_dropout(self.input_norm(row_BLD + self.position[:length]))
        for block in self.blocks:
            out_BLD = block(out_BLD, history_BL >= 0)
        return self.dense_norm(F.gelu(self.dense(self.norm(out_BLD))))

    def last(self, user_C: Tensor, history_CL: Tensor, item_VD: Tensor) -> Tensor:
        end_C = (history_CL >= 0).sum(1)
        padded_CL = F.pad(history_CL, (0, 1), value=PAD)
        column_L = torch.arange(padded_CL.shape[1], device=history_CL.device)
        asked_CL = torch.where(column_L == end_C[:, None], item_VD.shape[0], padded_CL)
        query_CLD = self(user_C, asked_CL, item_VD)
        return query_CLD.gather(1, end_C[:, None, None].expand(-1, 1, query_CLD.shape[2]))[:, 0]
