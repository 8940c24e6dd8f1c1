"""Scores that are dot products: ranked without writing them down."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastpop import checks


@dataclass(frozen=True, eq=False)
class DotScores:
    """score(c, i) = scale * <query[c], items[i]> + bias[i], for `evaluate`.

    query: [C, D], one row a case, finite. items: [V, D], on the same device; half rows are scored in
    float32. bias: [V] nats, -inf removes an item, or None. scale: a finite number.
    Calling it with a slice of cases gives their [b, V] scores.
    Raises TypeError or ValueError for wrong types, shapes and numbers (names the case).
    """

    query: Tensor
    items: Tensor
    bias: Tensor | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, expected in (("query", ("C", "D")), ("items", ("V", "D")), ("bias", ("V",))):
            value = getattr(self, name)
            if name == "bias" and value is None:
                continue
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise checks.wrong_type(name, "a floating point torch tensor", value)
            checks.shape(name, value, expected)
        checks.shape("items", self.items, ("V", self.query.shape[1]))
        if self.bias is not None:
            checks.shape("bias", self.bias, (self.items.shape[0],))
        checks.number("scale", self.scale)
        bad = (~self.query.isfinite().all(1)).nonzero()
        if bad.shape[0]:
            raise checks.wrong("query", "finite numbers", f"=others in case {int(bad[0, 0])}")

    @torch.no_grad()
    def __call__(self, rows: slice) -> Tensor:
        dtype = torch.float64 if self.query.dtype == torch.float64 else torch.float32
        score = (self.query[rows].to(dtype) * self.scale) @ self.items.to(dtype).T
        if self.bias is None:
            return score
        return torch.where(self.bias == -torch.inf, -torch.inf, score + self.bias)

    def __getitem__(self, rows: slice) -> "DotScores":
        """The scores of some cases."""
        return DotScores(self.query[rows], self.items, self.bias, self.scale)

    def keywords(self) -> dict[str, Any]:
        """As the ops take them."""
        return {"query": self.query.detach(), "items": self.items.detach(),
                "bias": None if self.bias is None else self.bias.detach(), "scale": self.scale}
