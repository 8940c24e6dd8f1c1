"""DICE: one half of each vector for interest, the other for conformity."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, registry
from fastpop.objectives.candidates import wide
from fastpop.objectives.item_rows import ItemRows
from fastpop.objectives.options import MOST_NEGATIVES, LossInputs, Objective
from fastpop.objectives.softmax import own_rank
from fastpop.ops import RowShard
from fastpop.ops.draw import seed_of
from fastpop.ops.upload import uploaded
from fastpop.popularity import ProposalOptions


class PopularityMargin(nn.Module):
    """Negatives that are clearly more, or clearly less, popular than a row's positive (PNSM).

    count_V: [V] training events. margin: how many events apart. A row tosses a coin for the side; where one
    side is empty it is the other, and where both are, any item. Its tables, three numbers an item, go where
    the module goes.
    """

    order_V: Tensor
    below_V: Tensor
    above_V: Tensor

    def __init__(self, count_V: np.ndarray, margin: float) -> None:
        super().__init__()
        order_V = np.argsort(count_V, kind="stable")  # from rare to popular
        sorted_V = count_V[order_V]
        tables = {
            "order_V": order_V,
            "below_V": np.searchsorted(sorted_V, count_V - margin, side="left"),
            "above_V": len(count_V) - np.searchsorted(sorted_V, count_V + margin, side="right"),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def draw(self, pos_id_R: np.ndarray, num_negatives: int, rng: np.random.Generator) -> np.ndarray:
        """[R, K] ids."""
        uniform_2RK = rng.random((2, len(pos_id_R), num_negatives))
        return self.picked(torch.from_numpy(pos_id_R), torch.from_numpy(uniform_2RK)).numpy()

    def picked(self, pos_id_R: Tensor, uniform_2RK: Tensor) -> Tensor:
        """[R, K] ids by numbers in [0, 1), float64, on their device: the same ones on any."""
        below_R1, above_R1 = self.below_V[pos_id_R][:, None], self.above_V[pos_id_R][:, None]
        (coin_RK, u_RK), num_items = uniform_2RK, len(self.order_V)
        is_above_RK = (above_R1 > 0) & ((coin_RK < 0.5) | (below_R1 == 0))
        size_RK = torch.where(is_above_RK, above_R1, torch.where(below_R1 > 0, below_R1, num_items))
        place_RK = torch.minimum((u_RK * size_RK).long(), size_RK - 1)
        return self.order_V[torch.where(is_above_RK, num_items - 1 - place_RK, place_RK)]


@dataclass(frozen=True)
class DICE(Objective):
    """DICE (Zheng et al. 2021): click + alpha (interest + conformity) - beta discrepancy.

    The halves of a vector are its interest and its conformity; a click's score is their sum, the whole dot
    product. With BPR(part) = -log sigmoid(pos - neg) of a part's scores: click is BPR of the whole for every
    negative; where the negative is less popular, conformity is BPR of its half; where it is more popular,
    conformity is BPR the other way round and interest is BPR of its half, since the click then speaks of
    interest alone. Discrepancy is the mean distance of the halves of queries, plus that of items, positive
    and negative alike. Negatives come from `PopularityMargin`, whatever the proposal.
    The original lets alpha and margin decay by epochs, which a loss does not know. Its code has a third
    distance, the correlation of distances (dCor) of a batch; calls an item less popular below half of the
    positive's events; and leaves a side out that has fewer than 40 items.

    negatives: a row. margin: events apart. alpha, beta: weights. distance: "l1" or "l2" between halves.
    """

    name: ClassVar[str] = "dice"
    needs: ClassVar[Literal["catalogue", "negatives"]] = "negatives"
    logits: ClassVar[bool] = False
    row_gradients: ClassVar[bool] = True
    takes_shard: ClassVar[bool] = True
    negatives: int = 4
    margin: float = 40.0
    alpha: float = 0.1
    beta: float = 0.01
    distance: Literal["l1", "l2"] = "l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.negatives", self.negatives, ge=1, le=MOST_NEGATIVES, integer=True)
        for name in ("margin", "alpha", "beta"):
            checks.number(f"loss.{name}", getattr(self, name), ge=0)

    def check(self, dim: int, rows: int, proposal: ProposalOptions) -> None:
        _check_even(dim)

    def build(self, given: LossInputs) -> nn.Module:
        return _DICELoss(self, given)


class _DICELoss(nn.Module):
    count_V: Tensor

    def __init__(self, options: DICE, given: LossInputs) -> None:
        super().__init__()
        self.options, self.sparse = options, given.sparse
        count_V = np.asarray(given.event_counts(), dtype=np.float64)
        self.register_buffer("count_V", torch.from_numpy(count_V), persistent=False)
        self.sampler = PopularityMargin(count_V, options.margin)
        self.seed = given.seed

    def negatives(self, pos_id: Tensor, step: int, shard: RowShard | None = None) -> Tensor:
        """[R, K] ids, a function of (seed, step), and of the process where it shares no catalogue, by numbers
        of the host, which does not read the rows. Processes that share one draw as one."""
        seed, first, total = seed_of(self.seed, own_rank()), 0, len(pos_id)
        if shard is not None:
            seed, (first, total) = self.seed, shard.place_among(len(pos_id), pos_id.device)
        uniform_2RK = np.random.default_rng([seed, step]).random((2, total, self.options.negatives))
        mine_2RK = np.ascontiguousarray(uniform_2RK[:, first : first + len(pos_id)])
        return self.sampler.picked(pos_id, uploaded(mine_2RK, pos_id.device))

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
        _check_even(items.shape[1])
        neg_id = self.negatives(pos_id, step, shard)
        is_above = self.count_V[neg_id] > self.count_V[pos_id][:, None]
        rows = ItemRows(items, log_prior, pos_id, neg_id, sparse=self.sparse, shard=shard)
        pos, neg = rows.vectors(pos_id), rows.vectors(neg_id)
        # [R, K, 2]: how far the positive is ahead, by interest and by conformity.
        ahead = scale * wide(_halves(query[:, None] * (pos[:, None] - neg)).sum(-1))
        whole = ahead.sum(-1)
        if log_prior is not None:
            whole = whole + prior_weight * (rows.log_p(pos_id)[:, None] - rows.log_p(neg_id))
        interest = -F.logsigmoid(ahead[..., 0]) * is_above
        conformity = -F.logsigmoid(torch.where(is_above, -ahead[..., 1], ahead[..., 1]))
        loss_R = (-F.logsigmoid(whole) + self.options.alpha * (interest + conformity)).mean(1)
        of_items_R = (self._distance(pos) + self._distance(neg).sum(1)) / (1 + neg.shape[1])
        loss_R = loss_R - self.options.beta * (self._distance(query) + of_items_R)
        return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()

    def _distance(self, rows: Tensor) -> Tensor:
        interest, conformity = _halves(wide(rows)).unbind(-2)
        apart = interest - conformity
        return (apart.abs() if self.options.distance == "l1" else apart.square()).mean(-1)


def _check_even(dim: int) -> None:
    if dim % 2:
        raise checks.wrong("dim", "an even number with loss='dice', which halves vectors", dim)


def _halves(rows: Tensor) -> Tensor:
    """[..., D] as [..., 2, D / 2]."""
    return rows.unflatten(-1, (2, -1))


registry.ours("loss", DICE)
