"""A Draw's ids where a graph is traced: there drawing has to be one operator, whose step is a tensor."""

from typing import Any

import torch
from torch import Tensor

from fastpop.kernels.alias_draw.tensors import draw_ids
from fastpop.popularity import Draw


def ids_of(draw: Draw, num_rows: int, device: Any) -> Tensor:
    """int64 [G, K] on a device: `Draw.tensor`, under torch.compile too."""
    if not torch.compiler.is_compiling():
        return draw.tensor(num_rows, device)
    return torch.ops.fastpop.alias_draw(draw.proposal.table_on(device), draw.counter_on(device),
                                        draw.num_groups(num_rows), draw.num_negatives)


def _register() -> None:
    def draw(table: Tensor, counter: Tensor, num_groups: int, num_negatives: int) -> Tensor:
        return draw_ids(table, counter, 0, num_groups, num_negatives)

    operator = torch.library.custom_op(
        "fastpop::alias_draw", draw, mutates_args=(),
        schema="(Tensor table, Tensor counter, SymInt num_groups, SymInt num_negatives) -> Tensor")
    operator.register_fake(lambda table, counter, num_groups, num_negatives: torch.empty(
        num_groups, num_negatives, dtype=torch.int64, device=table.device))


_register()
