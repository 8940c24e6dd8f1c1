"""alias_draw where a graph is traced: there it has to be one operator, whose step is a tensor."""

import torch
from torch import Tensor

from fastpop.kernels.alias_draw.reference import Inputs
from fastpop.ops.alias_draw import drawn


class IdsWhenRead:
    """int64 [G, K] of which the groups that are read are drawn, each time."""

    def __init__(self, table: Tensor, counter: Tensor, num_negatives: int):
        self.table, self.counter, self.num_negatives = table, counter, num_negatives

    def __getitem__(self, groups: slice) -> Tensor:
        return drawn(
            Inputs(self.table, self.counter, groups.start, groups.stop - groups.start, self.num_negatives),
            "auto",
        )


def _register() -> None:
    def draw(table: Tensor, counter: Tensor, num_groups: int, num_negatives: int) -> Tensor:
        return drawn(Inputs(table, counter, 0, num_groups, num_negatives), "auto")

    operator = torch.library.custom_op(
        "fastpop::alias_draw",
        draw,
        mutates_args=(),
        schema="(Tensor table, Tensor counter, SymInt num_groups, SymInt num_negatives) -> Tensor",
    )
    operator.register_fake(
        lambda table, counter, num_groups, num_negatives: torch.empty(
            num_groups, num_negatives, dtype=torch.int64, device=table.device
        )
    )


_register()
