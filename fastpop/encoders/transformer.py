"""The block that our attention encoders are made of."""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Block(nn.Module):
    """Attention and a feed-forward part, each with LayerNorm before it and a residual around it.

    Args:
        dim: D. num_heads: a divisor of D. hidden: width of the feed-forward part. dropout: on attention and
        on both parts.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        for linear in (self.qkv, self.out, self.up, self.down):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x_BLD: Tensor, real_BL: Tensor | None = None) -> Tensor:
        """real_BL: what may be looked at, both ways; None: causal, a place and what stands before it."""
        batch, length, dim = x_BLD.shape
        qkv = self.qkv(self.attention_norm(x_BLD))
        q, k, v = qkv.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        seen = None if real_BL is None else real_BL[:, None, None, :]
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=real_BL is None, dropout_p=drop
        )
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        x_BLD = x_BLD + F.dropout(mixed, self.dropout, self.training)
        mlp = self.down(F.gelu(self.up(self.mlp_norm(x_BLD))))
        return x_BLD + F.dropout(mlp, self.dropout, self.training)
