"""Rows of a table that processes share, by id; rows of all processes."""

from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import collectives, readable, row_shard
from fastpop.ops._sampled_softmax_op import table_gradient
from fastpop.ops.row_shard import RowShard


def shared_rows(
    items: Tensor, ids: Tensor, *, shard: RowShard | None = None, sparse_grad: bool = False
) -> Tensor:
    """table[ids] of a table whose rows processes share: each asks for its own ids, at the same time.

    Args:
        items: [n, D], or [n], one number an item: this process's rows, with their shard; or a DTensor
            [V, D] with Shard(0).
        ids: [...] int64 in [0, V), which may differ between processes in number, too.
        sparse_grad: the gradient of items is sparse: ids as they came, repeats among them.
    Returns:
        [..., D], or [...], differentiable in items: gradients go back to who has the row.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came.
    Cost: every id that this process asks for travels once, whatever its repeats: 8 bytes there, a row back,
        and a row there in backward.
    """
    if sparse_grad and row_shard.is_dtensor(items):
        raise checks.wrong("sparse_grad", "False with a DTensor table, whose gradient is dense", True)
    is_vector = isinstance(items, Tensor) and not row_shard.is_dtensor(items) and items.ndim == 1
    part, found = row_shard.part_of(items.detach()[:, None] if is_vector else items, shard, "each")
    if found is None:
        raise checks.wrong("shard", "a RowShard beside rows that are no DTensor", None)
    items = row_shard.vector_of("items", items, found, len(items)) if is_vector else part
    readable.tensor("items", items)
    if readable.tensor("ids", ids, "an int64 torch tensor").dtype != torch.int64:
        raise checks.wrong_type("ids", "an int64 tensor", ids)
    checks.ids_in_range("ids", ids, found.num_items)
    wanted, place = torch.unique(ids, return_inverse=True)
    rows = _Fetched.apply(items, wanted, found, sparse_grad)
    # Ids in order and each once, as whoever numbered them brings, need no second table.
    return rows if wanted.shape == ids.shape and torch.equal(wanted, ids) else rows[place]


def all_rows(rows: Tensor, *, shard: RowShard) -> Tensor:
    """[total, ...]: the rows that all processes bring, in order of rank, on each of them.

    rows: [n, ...], of any number. Differentiable: each gets the sums over processes of its rows' gradients.
    Cost: rows go to all, and as many numbers of gradients are summed.
    """
    readable.tensor("rows", rows)
    sizes = collectives.counts(len(rows), shard.group, rows.device)
    if not rows.requires_grad:
        return collectives.gathered(rows, sizes, shard.group)
    return AllRows.apply(rows, sizes, shard.group)


class AllRows(torch.autograd.Function):
    """Rows of all processes; of their gradients each gets the sums of its own."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], group: Any) -> Tensor:  # type: ignore[override]
        ctx.sizes, ctx.group = sizes, group
        return collectives.gathered(rows, sizes, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return collectives.own_sums(grad, ctx.sizes, ctx.group), None, None


class _Fetched(torch.autograd.Function):
    """Rows of ids [m], each once."""

    @staticmethod
    def forward(ctx: Any, items: Tensor, ids: Tensor, shard: RowShard, sparse: bool) -> Tensor:  # type: ignore[override]
        owner = shard.owner_of(ids, len(items))
        order = owner.argsort(stable=True)
        to = torch.bincount(owner, minlength=shard.size).tolist()
        come = collectives.exchanged_counts(to, shard.group, ids.device)
        asked = collectives.exchanged(ids[order], to, come, shard.group) - shard.first
        found = collectives.exchanged(items[asked], come, to, shard.group)
        ctx.save_for_backward(items, asked, order)
        ctx.shard, ctx.sparse, ctx.to, ctx.come = shard, sparse, to, come
        rows = torch.empty_like(found)
        rows[order] = found
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        items, asked, order = ctx.saved_tensors
        grad = (
            grad.to_dense() if grad.is_sparse else grad
        )  # of an nn.Embedding's kind of lookup in these rows
        given = collectives.exchanged(grad[order], ctx.to, ctx.come, ctx.shard.group)
        return table_gradient(items, asked, given, ctx.sparse, repeats=True), None, None, None
