"""Item towers: item table -> item vectors. One contract, `ItemTower`; `ItemTowerOptions` make one."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastpop import checks, registry
from fastpop.components import Component
from fastpop.data.interactions import Interactions

MOST_DEPTH = 16


class ItemTower(nn.Module):
    """Makes the item vectors that scores are products with, of the decoder's table.

    What it makes stands for a table: every item has its vector whatever batch asks. It is made once a
    training step and once an evaluation, and costs at least O(V D) each time.
    """

    def forward(self, item_VD: Tensor) -> Tensor:
        """[V, D] vectors of [V, D] free ones, which it may leave aside."""
        raise NotImplementedError

    def tables(self) -> list[nn.Parameter]:
        """Parameters with one row per item, which the optimiser of tables steps."""
        return []

    def new_items(self, features: list[Any]) -> Tensor:
        """[n, D] vectors of items that the table does not have, of what this tower reads of each.

        For `TrainResult.recommend(new_items=)`. Raises NotImplementedError in a tower that reads none.
        """
        raise NotImplementedError(
            f"new_items: expected an item tower that makes vectors of features; got {type(self).__name__}"
        )


@dataclass(frozen=True)
class ItemSizes:
    """What a run knows before its item tower is made. train: the events that are trained on."""

    num_items: int
    dim: int
    train: Interactions


@dataclass(frozen=True)
class ItemTowerOptions(Component):
    """The base of item towers to choose from.

    by_row: whether its module makes each item's vector of that item's row alone, and has no rows of its own:
    several processes then make it each of its part of the table, and sum the gradients of its parameters.
    """

    kind: ClassVar[str] = "item_tower"
    by_row: ClassVar[bool] = False

    def build(self, sizes: ItemSizes) -> ItemTower | None:
        """A freshly initialised module; None: the table itself is what scores are made with."""
        raise NotImplementedError


@dataclass(frozen=True)
class Table(ItemTowerOptions):
    """One free vector per item: row gradients, a step independent of the catalogue's size."""

    name: ClassVar[str] = "table"
    by_row: ClassVar[bool] = True

    def build(self, sizes: ItemSizes) -> None:
        return None


@dataclass(frozen=True)
class Linear(ItemTowerOptions):
    """The table times a product of `depth` D x D matrices, each from the identity.

    The vectors that can be reached are those of a table; what differs is how gradient descent gets
    there (Arora et al. 2018, arXiv 1802.06509). The regulariser or the step decide what it is good for.
    """

    name: ClassVar[str] = "linear"
    by_row: ClassVar[bool] = True
    depth: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("item_tower.depth", self.depth, ge=1, le=MOST_DEPTH, integer=True)

    def build(self, sizes: ItemSizes) -> "LinearTower":
        return LinearTower(sizes.dim, self.depth)


class LinearTower(ItemTower):
    """item_VD @ W_1 @ ... @ W_depth."""

    def __init__(self, dim: int, depth: int = 1):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.eye(dim)) for _ in range(depth)])

    def forward(self, item_VD: Tensor) -> Tensor:
        product_DD = self.weights[0]
        for weight_DD in list(self.weights)[1:]:
            product_DD = product_DD @ weight_DD
        return item_VD @ product_DD


registry.ours("item_tower", Table, Linear)
