"""Scores that are dot products: ranked without writing them down."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import catalogue, row_shard, validation
from fastpop.ops.row_shard import RowShard


def _tensor(argument: str, value: Any, ndim: int) -> Tensor:
    """Real numbers as a tensor: float64 where they are, float32 otherwise. -inf may be among them."""
    array = checks.array_like(argument, value)
    if array.dtype.kind not in "fiu":
        raise checks.wrong_type(argument, f"a {ndim}-d array of real numbers", array)
    return torch.tensor(array, dtype=torch.float64 if array.dtype == "float64" else torch.float32)


@dataclass(frozen=True, eq=False)
class DotScores:
    """score(c, i) = scale * <query[c], items[i]> + bias[i], for `evaluate`.

    query: [C, D], one row per case, finite. items: [V, D], on the same device; half rows are scored in
    float32. bias: [V] nats, -inf removes an item, or None. scale: a finite number. Tensors are kept
    as they are; numpy arrays, frames and lists become tensors.
    shard: items are this process's rows of a catalogue that several share, bias is of these rows or of all;
    every process evaluates the same cases and gets the same numbers. Such scores are not written down.
    Calling it with a slice of cases gives their [b, V] scores.
    Raises TypeError or ValueError for wrong types, shapes and numbers (names the case).
    """

    query: Any
    items: Any
    bias: Any = None
    scale: float = 1.0
    shard: RowShard | None = None

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        for name, ndim in (("query", 2), ("items", 2), ("bias", 1)):
            value = getattr(self, name)
            if not isinstance(value, Tensor) and value is not None:
                object.__setattr__(self, name, _tensor(name, value, ndim))
        bias = self.bias
        if self.shard is not None:
            bias = row_shard.vector_of("bias", bias, self.shard, len(self.items))
        catalogue.check_scored(self.query, self.items, bias, self.scale)
        checks.shape("query", self.query, ("C", "D"))
        bad = (~self.query.isfinite().all(1)).nonzero()
        if bad.shape[0]:
            raise checks.wrong("query", "finite numbers", text=f"others in case {int(bad[0, 0])}")

    @property
    def num_items(self) -> int:
        return len(self.items) if self.shard is None else self.shard.num_items

    @torch.no_grad()
    def __call__(self, rows: slice) -> Tensor:
        if self.shard is not None:
            raise checks.wrong("score", "items in one piece where scores are written down", text="a part")
        dtype = torch.float64 if self.query.dtype == torch.float64 else torch.float32
        with validation.without_autocast(self.query):
            score = (self.query[rows].to(dtype) * self.scale) @ self.items.to(dtype).T
        if self.bias is None:
            return score
        return torch.where(self.bias == -torch.inf, -torch.inf, score + self.bias)

    def keywords(self, rows: slice = slice(None)) -> dict[str, Any]:
        """Those of some cases, as the ops take them."""
        return {
            "query": self.query[rows].detach(),
            "items": self.items.detach(),
            "bias": None if self.bias is None else self.bias.detach(),
            "scale": self.scale,
            "shard": self.shard,
        }
