"""What a loss reads of items by id, from wherever it lies, and the draws of its rows."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fastpop.ops import RowShard, shared_rows
from fastpop.ops.draw import Draw


class ItemRows:
    """Vectors of items and log p beside them, by id.

    items: [V, D]; or, with shard, this process's rows of it. log_prior: [V], or as items where it is learned,
    or None. ids: all that will be asked for. sparse: the gradient of items is sparse; sparse_log_p: that of a
    learned log p, too, whose rows that are named are then the only ones touched.
    With shard each id that this process names travels once, whatever its repeats, and its gradient back
    (`ops.shared_rows`), so all processes make one of these together.
    """

    def __init__(
        self,
        items: Tensor,
        log_prior: Tensor | None,
        *ids: Tensor,
        sparse: bool = False,
        sparse_log_p: bool = False,
        shard: RowShard | None = None,
    ):
        self.items, self.log_prior, self.sparse = items, log_prior, sparse and items.is_leaf
        self.ids: Tensor | None = None
        if shard is None:
            return
        self.ids = torch.cat([one.reshape(-1) for one in ids]).unique()
        self.items = shared_rows(items, self.ids, shard=shard, sparse_grad=self.sparse)
        self.sparse = False
        # What is learned lies as the table does, and gets its gradient there; log p is whole everywhere.
        if log_prior is not None and log_prior.requires_grad:
            self.log_prior = shared_rows(log_prior, self.ids, shard=shard, sparse_grad=sparse_log_p)
        elif log_prior is not None:
            self.log_prior = log_prior[self.ids]

    def vectors(self, ids: Tensor) -> Tensor:
        """[..., D]"""
        return F.embedding(self.places(ids), self.items, sparse=self.sparse)

    def log_p(self, ids: Tensor) -> Tensor:
        """[...] nats."""
        assert self.log_prior is not None
        return self.log_prior[self.places(ids)]

    def places(self, ids: Tensor) -> Tensor:
        """Where ids stand in `items` and `log_prior`."""
        return ids if self.ids is None else torch.searchsorted(self.ids, ids)


def draw_of_rows(draw: Draw, num_rows: int, device: Any, shard: RowShard | None) -> Tensor:
    """[num_rows, K] ids of draws of which each row has its own: with shard the rows of all processes are
    numbered in order of rank, so that these are the draws of one process that has them all."""
    first, total = (0, num_rows) if shard is None else shard.place_among(num_rows, device)
    return draw.tensor(max(total, 1), device)[first : first + num_rows]
