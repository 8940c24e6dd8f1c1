"""Sums over processes that share a catalogue, of what each makes of its rows; and the ways back."""

from typing import Any

import torch
from torch import Tensor

from fastpop.ops import collectives
from fastpop.ops.row_shard import RowShard
from fastpop.ops.shared_rows import AllRows


class RowsOfAll:
    """The rows that all processes bring, in order of rank, and the way back to this one's.

    query: [N, D] of [R, D] here, differentiable. pos_id: [N]. own: of [N, ...] that every process has alike,
    this one's rows; back goes to all what comes from above of each row.
    """

    def __init__(self, query_RD: Tensor, pos_id_R: Tensor, shard: RowShard):
        self.shard = shard
        self.sizes = collectives.counts(len(query_RD), shard.group, query_RD.device)
        self.query: Tensor = AllRows.apply(query_RD, self.sizes, shard.group)
        self.pos_id = collectives.gathered(pos_id_R, self.sizes, shard.group)

    def own(self, rows_N: Tensor) -> Tensor:
        return _Own.apply(rows_N, self.sizes, self.shard.group)


def sum_for_all(part: Tensor, *, shard: RowShard) -> Tensor:
    """The sum over processes, of what makes the same numbers on each, with the same gradient from above: it
    goes to every part as it is."""
    return _SumForAll.apply(part, shard.group)


def total(shard: RowShard, value: Tensor) -> Tensor:
    """The sum over processes, differentiable. With queries="each" each has a gradient of its own from above,
    and the parts get the sum of these."""
    return _Total.apply(value, shard.group, shard.queries == "each")


def largest_of_rows(value_Rn: Tensor, shard: RowShard) -> Tensor:
    """[R]: the largest of each row of [R, V] whose columns processes share, which may be none here."""
    here_R = value_Rn.amax(1) if value_Rn.shape[1] else value_Rn.new_full((len(value_Rn),), -torch.inf)
    return collectives.largest(here_R.detach(), shard.group)


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_N: Tensor, sizes: list[int], group: Any) -> Tensor:  # type: ignore[override]
        ctx.sizes, ctx.group = sizes, group
        rank = collectives.rank_in(group)
        return rows_N.split(sizes)[rank].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return collectives.gathered(grad, ctx.sizes, ctx.group), None, None


class _SumForAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:  # type: ignore[override]
        return collectives.total(part, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return grad, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any, summed: bool) -> Tensor:  # type: ignore[override]
        ctx.group, ctx.summed = group, summed
        return collectives.total(value, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return collectives.total(grad, ctx.group) if ctx.summed else grad, None, None
