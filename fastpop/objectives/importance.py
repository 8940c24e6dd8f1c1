"""Adaptive importance sampling: as many draws as each row needs, from a proposal that follows the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, registry
from fastpop.objectives.candidates import wide
from fastpop.objectives.options import MOST_NEGATIVES, LossInputs, Objective
from fastpop.objectives.softmax import own_rank
from fastpop.ops import RowShard, collectives, row_shard
from fastpop.ops.draw import seed_of
from fastpop.ops.shared_sums import RowsOfAll, largest_of_rows, sum_for_all
from fastpop.ops.upload import uploaded

# (queries [R, D], ids [K]) -> [R, K]
LogWeight = Callable[[Tensor, Tensor], Tensor]
# (queries [R, D], ids, the subscripts of their product) -> scores
Score = Callable[[Tensor, Tensor, str], Tensor]


def effective_sample_size(log_weight_RK: Tensor) -> Tensor:
    """[R]: (sum of weights)^2 / sum of squared weights, between 1 and K (Kong 1992)."""
    return (2 * log_weight_RK.logsumexp(1) - (2 * log_weight_RK).logsumexp(1)).exp()


@dataclass(frozen=True)
class ImportanceSampling(Objective):
    """Biased importance sampling of the full softmax (Bengio & Senecal 2003, 2008).

    loss = log mean over K of exp(score_k) / q_k - score of the positive: its gradient is that of the full
    softmax, the model's mean replaced by one over draws with self-normalised weights. As in the original, the
    positive is no draw, so the loss has a bound only where every likely item is likely to be drawn.

    Blocks are drawn until a row's effective sample size reaches `effective`, at most `most` draws; rows share
    draws and stop each on their own. The proposal q is `base_share` of the run's, and else a distribution
    over items that follows the model: after each step it moves by `rate` to the mean of the step's weights
    (the original adapts an n-gram model so). The numbers are not the original's, whose catalogues are small.

    block: draws a block. effective: wanted. most: draws a row. rate: 0 does not adapt. base_share: of q.
    """

    name: ClassVar[str] = "importance_sampling"
    needs: ClassVar[Literal["catalogue", "negatives"]] = "negatives"
    row_gradients: ClassVar[bool] = True
    adapts: ClassVar[bool] = True
    takes_shard: ClassVar[bool] = True
    block: int = 256
    effective: float = 64.0
    most: int = 4096
    rate: float = 0.01
    base_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.block", self.block, ge=1, integer=True)
        checks.number("loss.most", self.most, ge=self.block, le=MOST_NEGATIVES, integer=True)
        checks.number("loss.effective", self.effective, ge=1)
        checks.number("loss.rate", self.rate, ge=0, le=1)
        checks.number("loss.base_share", self.base_share, gt=0, le=1)

    def build(self, given: LossInputs) -> "ImportanceSamplingLoss":
        return ImportanceSamplingLoss(self, given)


class ImportanceSamplingLoss(nn.Module):
    """See `ImportanceSampling`. `adapt` moves the proposal; the state dict keeps it.

    shard: of items that several processes share (docs/distributed.md).
    Cost: 2 R D FLOPs for each draw that a row weighs, twice; on a device that is not waited for these are all
    `most`, in R most numbers.
    found_inf: None, or 0-d on a device: the proposal stays where it is not 0.
    """

    heeds_found_inf = True
    found_inf: Tensor | None = None
    base_V: Tensor
    follows_V: Tensor

    def __init__(self, options: ImportanceSampling, given: LossInputs) -> None:
        super().__init__()
        self.options, self.sparse = options, given.sparse
        base_V = torch.from_numpy(np.exp(given.distribution().log_proposal_V))
        self.register_buffer("base_V", base_V, persistent=False)
        self.register_buffer("follows_V", base_V.clone())
        self.seed = given.seed
        self._seen: list[tuple[Tensor, Tensor]] = []

    def distribution(self) -> Tensor:
        """[V] float64: q, of the next draws."""
        share = self.options.base_share
        return share * self.base_V + (1 - share) * self.follows_V

    def draws(self, step: int, *, shared: bool = False) -> Tensor:
        """[most] ids: a function of q and of (seed, step), and of the process's rank but where the catalogue
        is shared, which all draw from as one."""
        cumulative_V = self.distribution().cumsum(0)
        seed = seed_of(self.seed, 0 if shared else own_rank())
        uniform = np.random.default_rng([seed, step]).random(self.options.most)
        at = uploaded(uniform, cumulative_V.device) * cumulative_V[-1]
        return torch.searchsorted(cumulative_V, at, right=True).clamp(max=len(cumulative_V) - 1)

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
        def score(query: Tensor, item_id: Tensor, at: str) -> Tensor:
            row = F.embedding(item_id, items, sparse=self.sparse and items.is_leaf)
            found = wide(torch.einsum(at, query, row)) * scale
            return found if log_prior is None else found + prior_weight * log_prior[item_id]

        if shard is not None:
            items, _ = row_shard.part_of(items, shard, "each")
            log_prior = row_shard.vector_of("log_prior", log_prior, shard, len(items))
            loss_R = self._of_parts(query, pos_id, len(items), score, step, shard)
            return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()
        if len(query) == 0:
            return 0 * query.sum()
        neg_id, log_q_V = self.draws(step), self.distribution().log()

        def log_weight(query: Tensor, item_id: Tensor) -> Tensor:
            found = score(query, item_id, "rd,kd->rk")
            return found - log_q_V[item_id].to(found.dtype)

        with torch.no_grad():
            count_R, neg_id = self._taken(query, neg_id, log_weight)
        is_out_RK = torch.arange(len(neg_id), device=neg_id.device) >= count_R[:, None]
        log_weight_RK = log_weight(query, neg_id).masked_fill(is_out_RK, -torch.inf)
        lse_R = log_weight_RK.logsumexp(1)
        if self.training and self.options.rate:
            share_K = (log_weight_RK.detach() - lse_R.detach()[:, None]).exp().double().mean(0)
            self._seen.append((neg_id, share_K))
        loss_R = lse_R - count_R.to(lse_R.dtype).log() - score(query, pos_id, "rd,rd->r")
        return loss_R.sum() if row_weight is None else (loss_R * row_weight).sum()

    def _of_parts(
        self, query: Tensor, pos_id: Tensor, num_items: int, score: Score, step: int, shard: RowShard
    ) -> Tensor:
        """[R] losses where each of several processes has num_items rows of the catalogue: it weighs those of
        the draws that are among them, for the rows of all. score: of places among its rows."""
        rows = RowsOfAll(query, pos_id, shard)
        drawn_K, log_q_V = self.draws(step, shared=True), self.distribution().log()
        at_k = shard.holds(drawn_K, num_items).nonzero()[:, 0]

        def log_weight(query: Tensor, at: Tensor) -> Tensor:
            found = score(query, drawn_K[at] - shard.first, "rd,kd->rk")
            return found - log_q_V[drawn_K[at]].to(found.dtype)

        with torch.no_grad():
            count_N = self._counts_of_parts(rows.query, at_k, log_weight, shard)
        most = int(count_N.max()) if len(count_N) else 0
        at_k = at_k[at_k < most]
        log_weight_Nk = log_weight(rows.query, at_k)
        log_weight_Nk = log_weight_Nk.masked_fill(at_k >= count_N[:, None], -torch.inf)
        own_at = shard.holds(rows.pos_id, num_items).nonzero()[:, 0]
        pos_n = score(rows.query[own_at], rows.pos_id[own_at] - shard.first, "rd,rd->r")
        pos_N = torch.zeros_like(log_weight_Nk[:, :1].sum(1)).index_copy(0, own_at, pos_n)
        base_N = largest_of_rows(log_weight_Nk, shard)
        sums = torch.stack([(log_weight_Nk - base_N[:, None]).exp().sum(1), pos_N])
        sum_N, pos_N = sum_for_all(sums, shard=shard)
        lse_N = base_N + sum_N.log()
        if self.training and self.options.rate and len(rows.query):
            share_K = torch.zeros(most, dtype=torch.float64, device=query.device)
            share_K[at_k] = (log_weight_Nk.detach() - lse_N.detach()[:, None]).exp().double().mean(0)
            self._seen.append((drawn_K[:most], collectives.total(share_K, shard.group)))
        return rows.own(lse_N - count_N.to(lse_N.dtype).log() - pos_N)

    def _counts_of_parts(self, query: Tensor, at_k: Tensor, log_weight: LogWeight, shard: RowShard) -> Tensor:
        """`_counts` of the rows of all processes. at_k: which of the draws are of this one's items, in order.
        Each block's sums of weights and of their squares are made of all."""
        count_N = torch.zeros(len(query), dtype=torch.int64, device=query.device)
        first_N, second_N = (torch.full((len(query),), -torch.inf, device=query.device) for _ in range(2))
        going = torch.arange(len(query), device=query.device)
        for low in range(0, self.options.most, self.options.block):
            if len(going) == 0:
                break
            high = min(low + self.options.block, self.options.most)
            log_weight_Gk = log_weight(query[going], at_k[(at_k >= low) & (at_k < high)]).float()
            base_G = largest_of_rows(log_weight_Gk, shard)
            part_Gk = log_weight_Gk - base_G[:, None]
            sums = torch.stack([part_Gk.exp().sum(1), (2 * part_Gk).exp().sum(1)])
            log_1_G, log_2_G = collectives.total(sums, shard.group).log()
            first_N[going] = torch.logaddexp(first_N[going], base_G + log_1_G)
            second_N[going] = torch.logaddexp(second_N[going], 2 * base_G + log_2_G)
            count_N[going] += high - low
            going = going[(2 * first_N[going] - second_N[going]).exp() < self.options.effective]
        return count_N

    def _taken(self, query: Tensor, neg_id: Tensor, log_weight: LogWeight) -> tuple[Tensor, Tensor]:
        """([R] how many of the draws each row takes, the draws that one of them takes)."""
        if query.device.type != "cpu":
            return self._taken_at_once(query, neg_id, log_weight)
        count_R = self._counts(query, neg_id, log_weight)
        return count_R, neg_id[: int(count_R.max())]

    def _taken_at_once(self, query: Tensor, neg_id: Tensor, log_weight: LogWeight) -> tuple[Tensor, Tensor]:
        """All draws: what no row takes is the first one again, so that no other item is touched."""
        count_R = self._counts_at_once(query, neg_id, log_weight)
        at_K = torch.arange(len(neg_id), device=neg_id.device)
        return count_R, torch.where(at_K < count_R.max(), neg_id, neg_id[0])

    def _counts(self, query: Tensor, neg_id: Tensor, log_weight: LogWeight) -> Tensor:
        """[R] how many of the draws each row takes."""
        count_R = torch.zeros(len(query), dtype=torch.int64, device=query.device)
        first_R, second_R = (torch.full((len(query),), -torch.inf, device=query.device) for _ in range(2))
        going = torch.arange(len(query), device=query.device)
        for some in neg_id.split(self.options.block):
            log_weight_GK = log_weight(query[going], some).float()
            first_R[going] = torch.logaddexp(first_R[going], log_weight_GK.logsumexp(1))
            second_R[going] = torch.logaddexp(second_R[going], (2 * log_weight_GK).logsumexp(1))
            count_R[going] += len(some)
            going = going[(2 * first_R[going] - second_R[going]).exp() < self.options.effective]
            if len(going) == 0:
                break
        return count_R

    def _counts_at_once(self, query: Tensor, neg_id: Tensor, log_weight: LogWeight) -> Tensor:
        """`_counts` of a device: every row weighs all draws, as which rows go on would have to be waited for.
        Sums of blocks are rounded otherwise: a row at the very size wanted may take a block more or less."""
        block = self.options.block
        log_weight_RK = F.pad(log_weight(query, neg_id).float(), (0, -len(neg_id) % block), value=-torch.inf)
        block_RNK = log_weight_RK.unflatten(1, (-1, block))
        first_RN, second_RN = ((power * block_RNK).logsumexp(2).logcumsumexp(1) for power in (1, 2))
        going_RN = (2 * first_RN - second_RN).exp() < self.options.effective
        return ((going_RN.cumprod(1).sum(1) + 1) * block).clamp(max=len(neg_id))

    @torch.no_grad()
    def adapt(self) -> None:
        """Move the distribution that follows the model to the weights of the last step."""
        if not self._seen:
            return
        moved_V = self.follows_V * (1 - self.options.rate)
        for neg_id, share_K in self._seen:
            moved_V.index_add_(0, neg_id, self.options.rate / len(self._seen) * share_K)
        if self.found_inf is not None:
            moved_V = torch.where(self.found_inf == 0, moved_V, self.follows_V)
        self.follows_V.copy_(moved_V)
        self._seen = []


registry.ours("loss", ImportanceSampling)
