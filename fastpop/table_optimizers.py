"""Optimisers of embedding tables to choose from. One contract, `TableOptimizer`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastpop import checks, optim, registry
from fastpop.components import Component


@dataclass(frozen=True)
class TableOptimizer(Component):
    """The base of optimisers of tables.

    row_gradients: whether it takes sparse row gradients. in_backward: whether it can step within backward;
    `build` is then given complete= where several processes train, to be called with a table before its step.
    half_tables: whether `build` takes rounding_seed=, of bfloat16 tables that it rounds at random.
    """

    kind: ClassVar[str] = "table_optimizer"
    row_gradients: ClassVar[bool] = True
    in_backward: ClassVar[bool] = False
    half_tables: ClassVar[bool] = False

    def build(self, groups: list[dict[str, Any]], lr: float, *, update_in_backward: bool = False) -> Any:
        """A torch.optim.Optimizer of parameter groups, [V, D] tables and [V] biases. lr: where a group has
        none of its own."""
        raise NotImplementedError

    def numbers_a_row(self, dim: int) -> int:
        """float32 numbers that it keeps of a table's row, for what a run needs of memory; two moments of each
        number where an optimiser does not say."""
        return 2 * dim


@dataclass(frozen=True)
class Adam(TableOptimizer):
    """torch's own, over all rows at every step."""

    name: ClassVar[str] = "adam"
    row_gradients: ClassVar[bool] = False

    def build(self, groups: list[dict[str, Any]], lr: float, *, update_in_backward: bool = False) -> Any:
        if update_in_backward:
            raise checks.wrong(
                "update_in_backward", "False with table_optimizer adam, which is torch's own", True
            )
        return torch.optim.Adam(groups, lr=lr, **optim.fused_where(groups[0]["params"][0].device))


@dataclass(frozen=True)
class _ByRows(TableOptimizer):
    in_backward: ClassVar[bool] = True
    half_tables: ClassVar[bool] = True
    made: ClassVar[Any]

    def build(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        *,
        update_in_backward: bool = False,
        rounding_seed: int | None = None,
        complete: Callable[[Tensor], None] | None = None,
    ) -> Any:
        return self.made(
            groups,
            lr=lr,
            update_in_backward=update_in_backward,
            rounding_seed=rounding_seed,
            complete=complete,
        )


@dataclass(frozen=True)
class RowAdam(_ByRows):
    """`fastpop.optim.RowAdam`: one second moment per row, untouched rows left alone."""

    name: ClassVar[str] = "row_adam"
    made: ClassVar[Any] = optim.RowAdam

    def numbers_a_row(self, dim: int) -> int:
        return dim + 3  # a first moment, a second, and a step in int64


@dataclass(frozen=True)
class RowAdagrad(_ByRows):
    """`fastpop.optim.RowAdagrad`."""

    name: ClassVar[str] = "row_adagrad"
    made: ClassVar[Any] = optim.RowAdagrad

    def numbers_a_row(self, dim: int) -> int:
        return 1


@dataclass(frozen=True)
class RowSGD(_ByRows):
    """`fastpop.optim.RowSGD`."""

    name: ClassVar[str] = "row_sgd"
    made: ClassVar[Any] = optim.RowSGD

    def numbers_a_row(self, dim: int) -> int:
        return 0


registry.ours("table_optimizer", Adam, RowAdam, RowAdagrad, RowSGD)
