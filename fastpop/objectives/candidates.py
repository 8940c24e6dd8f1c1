"""What losses share that compare a row's positive with candidates: scores of both, and the sum over rows."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastpop.objectives.item_rows import ItemRows, draw_of_rows
from fastpop.objectives.options import LossInputs
from fastpop.objectives.softmax import own_rank
from fastpop.ops import RowShard, all_rows
from fastpop.ops.draw import Draw, seed_of
from fastpop.popularity import Proposal


class CandidateLoss(nn.Module):
    """Sum over rows of weight * compare(score of the positive [R], scores of the negatives [R, K]).

    scores: scale * <query, item> + prior_weight * log_prior. A subclass says `compare`.

    Args:
        given: what the run knows. num_negatives: K. shared: whether all rows see the same K draws.
        in_batch: whether the other rows' positives are negatives, too. With the proposal in_batch they are
            the only ones.

    A negative that equals the positive stays: the expected loss is then a function of p and q alone, whose
    optimum is known. One row of a batch without a draw has no negatives, and no loss.
    Cost: 2 R K D FLOPs forward; O(R K D) memory, or O(R K) for negatives that rows share.
    """

    def __init__(
        self, given: LossInputs, num_negatives: int, *, shared: bool = False, in_batch: bool = False
    ) -> None:
        super().__init__()
        distribution = given.distribution()
        self.drawn = distribution if isinstance(distribution, Proposal) else None
        self.in_batch = in_batch or self.drawn is None
        self.shared = shared or self.in_batch
        self.num_negatives, self.seed, self.sparse = num_negatives, given.seed, given.sparse

    def compare(self, pos_R: Tensor, neg_RK: Tensor) -> Tensor:
        """[R] losses of rows."""
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        items: Tensor,
        pos_id: Tensor,
        *,
        row_weight: Tensor | None,
        log_prior: Tensor | None,
        prior_weight: float | Tensor,
        scale: float | Tensor,
        step: int,
        shard: RowShard | None = None,
    ) -> Tensor:
        neg_id = self._draw(len(pos_id), step, pos_id, shard)
        named = [pos_id] if neg_id is None else [pos_id, neg_id]
        batch_id, first = pos_id, 0  # of the whole batch, and which of them these rows' are
        if self.in_batch and shard is not None:
            batch_id, first = all_rows(pos_id, shard=shard), shard.place_among(len(pos_id), pos_id.device)[0]
            named.append(batch_id)
        rows = ItemRows(items, log_prior, *named, sparse=self.sparse, shard=shard)

        def score(item_id: Tensor, at: str) -> Tensor:
            found = wide(torch.einsum(at, query, rows.vectors(item_id))) * scale
            return found if log_prior is None else found + prior_weight * rows.log_p(item_id)

        pos_R = score(pos_id, "rd,rd->r")
        neg = [] if neg_id is None else [score(neg_id, "rd,kd->rk" if self.shared else "rd,rkd->rk")]
        if self.in_batch:
            if shard is None:
                neg.insert(0, without_diagonal(score(pos_id, "rd,kd->rk")))
            else:
                place_K = torch.arange(max(len(batch_id) - 1, 0), device=pos_id.device)
                own_R1 = first + torch.arange(len(pos_id), device=pos_id.device)[:, None]
                other_RK = score(batch_id, "rd,kd->rk").gather(1, place_K + (place_K >= own_R1))
                neg.insert(0, other_RK)
        neg_RK = torch.cat(neg, 1)
        loss_R = self.compare(pos_R, neg_RK) if neg_RK.shape[1] else 0 * pos_R
        return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()

    def _draw(self, num_rows: int, step: int, like: Tensor, shard: RowShard | None) -> Tensor | None:
        """[K] ids for all rows, or [R, K]. Processes that share a catalogue draw as one."""
        if self.drawn is None or self.num_negatives == 0:
            return None
        seed = seed_of(self.seed, 0 if shard is not None else own_rank())
        draw = Draw(self.drawn, seed, step, self.num_negatives, None if self.shared else 1)
        if self.shared:
            return draw.tensor(max(num_rows, 1), like.device)[0]
        return draw_of_rows(draw, num_rows, like.device, shard)


def without_diagonal(square_RR: Tensor) -> Tensor:
    """[R, R - 1], or [0, 0]: each row without its own column. By no mask, whose size a device would be asked
    for: between two numbers of the diagonal stand R others."""
    num_rows, least = len(square_RR), max(len(square_RR) - 1, 0)
    return square_RR.flatten()[1:].view(least, num_rows + 1)[:, :-1].reshape(num_rows, least)


def wide(scores: Tensor) -> Tensor:
    """float32, or float64 as it came."""
    return scores if scores.dtype == torch.float64 else scores.float()


def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that computes outside autocast, of 16-bit tensors as float32: over many pairs the rounding
    of a bfloat16 product is as large as what is looked for."""

    @functools.wraps(function)
    def computed(*given: Any, **options: Any) -> Tensor:
        rows = [wide(one) if isinstance(one, Tensor) else one for one in given]
        with torch.autocast(rows[0].device.type, enabled=False):
            return function(*rows, **options)

    return computed
