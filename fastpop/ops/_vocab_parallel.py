"""Softmax over a catalogue whose rows processes share: the ops' operators, on parts.

Every process makes the log-sum-exp of the candidates among its own rows, with the operator that a whole
table has; two small collectives, the largest and the sums, make the rows' lse and pos_logit of the parts.
Backward needs none for rows: a part's gradient is the operator's own, its upstream times
exp(lse of the part - lse).

- A positive of another part has a stand-in, a row of zeros at -1e30 nats: its exponential is 0, and the
  row lives. So the sampled softmax runs on its candidates alone, gathered: ids [m] of this part, then two
  rows that are no items.
- Queries are the same everywhere, and their gradients are summed over processes (one collective, with those
  of scale and prior_weight); or every process brings its own, which are gathered, and each gets its rows'
  sums. Gradients of scale and prior_weight then stay partial: what sums or averages those of the
  encoder over processes does the same to them.
"""

import math
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels.full_softmax.reference import Inputs as FullInputs
from fastpop.kernels.sampled_softmax.reference import Inputs
from fastpop.ops import _draw_op, collectives  # noqa: F401  (_draw_op registers the operator that draws)
from fastpop.ops._sampled_softmax_op import table_gradient
from fastpop.ops.row_shard import RowShard
from fastpop.ops.shared_rows import AllRows
from fastpop.ops.shared_sums import total

ABSENT = -1e30  # nats: finite, so that its row lives, and of no weight beside any logit
NOBODY = -1  # the ignored positive of a part, whose ids are its own


def full_forward(
    inputs: FullInputs, options: Any, shard: RowShard, counts_R: Tensor
) -> tuple[Tensor, Tensor]:
    """(lse [R], pos_logit [R]) of this process's rows, as `fastpop::full_softmax_forward` gives them."""
    rows = _Rows(shard, inputs.query_BD, inputs.pos_id_B, counts_R)
    num_rows = len(inputs.item_VD)
    table, log_prior = inputs.item_VD, inputs.log_prior_V
    if num_rows == 0:  # a part without rows has one that is no item: every process is in every collective
        table = torch.cat([table, table.new_zeros(1, table.shape[1])])
        log_prior = inputs.scale.new_full((1,), -torch.inf)
        if inputs.log_prior_V is not None:
            log_prior = torch.cat([inputs.log_prior_V, log_prior])
    own_R = shard.holds(rows.pos_id, num_rows) & rows.counts
    # What stands for a positive of another part is an item that is there, or its row would give no gradient.
    there = 0 if log_prior is None else torch.isfinite(log_prior).to(torch.int8).argmax()
    pos_id = torch.where(own_R, rows.pos_id - shard.first, there)
    args = inputs._replace(
        query_BD=rows.query,
        item_VD=table,
        pos_id_B=torch.where(rows.counts, pos_id, NOBODY),
        log_prior_V=log_prior,
        prior_weight=inputs.prior_weight if num_rows else 0 * inputs.prior_weight + 1,
    )
    options = options._replace(ignore_index=NOBODY)
    found = torch.ops.fastpop.full_softmax_forward(*args, *options)
    return rows.own(*_Joined.apply(*found, own_R, rows.counts, shard.group))


def sampled_forward(
    inputs: Inputs, options: Any, shard: RowShard, counts_R: Tensor, *, one_group: bool
) -> tuple[Tensor, Tensor]:
    """(lse [R], pos_logit [R]) of this process's rows, as `fastpop::sampled_softmax_forward` gives them.

    inputs: ids of the whole catalogue, vectors of this part. one_group: all rows share their negatives.
    """
    rows = _Rows(shard, inputs.query_BD, inputs.pos_id_B, counts_R)
    num_rows = max(len(rows.query), 1)
    group_size = num_rows if one_group else inputs.group_size
    num_groups = -(-num_rows // group_size)
    neg_id_GK = inputs.neg_id_GK
    if neg_id_GK is None:
        neg_id_GK = torch.ops.fastpop.alias_draw(
            inputs.table_V2, inputs.counter_2, num_groups, inputs.num_negatives
        )
    found = _Candidates(rows, neg_id_GK, shard, len(inputs.item_VD), keep_slots=inputs.exclude_diagonal)
    own = found.ids
    _refuse_numbers(inputs, found, shard)
    dtype = inputs.scale.dtype
    absent = inputs.scale.new_tensor([ABSENT, -torch.inf])
    if inputs.log_prior_V is None:
        bias = torch.cat([inputs.scale.new_zeros(len(own)), absent])
    else:
        bias = torch.cat([_prior_term(inputs, _taken(inputs.log_prior_V, own, options.sparse_grad)), absent])
    log_proposal = inputs.log_proposal_V
    if log_proposal is not None:
        # In "corrected" the operator adds the log of how many negatives it sees; of all of them is meant.
        less = int(inputs.exclude_diagonal)
        shift = 0.0
        if inputs.logq == "corrected":
            shift = math.log(max(neg_id_GK.shape[1] - less, 1)) - math.log(
                max(found.neg_id.shape[1] - less, 1)
            )
        log_proposal = torch.cat([log_proposal[own].to(dtype) + shift, absent.new_zeros(2)])
    args = inputs._replace(
        query_BD=rows.query,
        item_VD=_taken(inputs.item_VD, own, options.sparse_grad, absent=2),
        pos_id_B=found.pos_id,
        prior_weight=torch.ones_like(inputs.prior_weight),
        num_groups=num_groups,
        num_negatives=found.neg_id.shape[1],
        group_size=group_size,
        neg_id_GK=found.neg_id,
        table_V2=None,
        counter_2=None,
        log_prior_V=bias,
        log_proposal_V=log_proposal,
    )
    options = options._replace(ignore_index=NOBODY, sparse_grad=False, fixed_rows=False)
    lse, pos_logit = torch.ops.fastpop.sampled_softmax_forward(*args, *options)
    return rows.own(*_Joined.apply(lse, pos_logit, found.own_R, rows.counts, shard.group))


class _Rows:
    """Queries and positives of all processes, and the way back to this one's."""

    def __init__(self, shard: RowShard, query: Tensor, pos_id: Tensor, counts_R: Tensor):
        self.shard, self.sizes = shard, None
        self.query, self.pos_id, self.counts = query, pos_id, counts_R.reshape(-1)
        if shard.queries == "each":
            self.sizes = collectives.counts(len(query), shard.group, query.device)
            # An ignored row's positive may be any number: it travels as none.
            pos_id = torch.where(self.counts, pos_id, NOBODY)
            self.query = AllRows.apply(query, self.sizes, shard.group)
            self.pos_id = collectives.gathered(pos_id, self.sizes, shard.group)
            self.counts = self.pos_id != NOBODY

    def own(self, lse: Tensor, pos_logit: Tensor) -> tuple[Tensor, Tensor]:
        if self.sizes is None:
            return lse, pos_logit
        return _Own.apply(lse, pos_logit, self.sizes, self.shard.group)


class _Candidates:
    """What is of this part among positives and negatives, numbered anew.

    ids: int64 [m], sorted, places in the part. pos_id: [R] places among them, m where another part has it,
    NOBODY where it is ignored. neg_id: [G, K'] likewise, m + 1 where none is. own_R: whose positive is here;
    own_pos: places of these.
    keep_slots: K' = K, every negative in its place; else as few as the groups have here, and one at least.
    """

    def __init__(self, rows: _Rows, neg_id_GK: Tensor, shard: RowShard, num_items: int, *, keep_slots: bool):
        self.own_R = shard.holds(rows.pos_id, num_items) & rows.counts
        here_GK = shard.holds(neg_id_GK, num_items)
        self.ids, place = torch.unique(
            torch.cat([rows.pos_id[self.own_R], neg_id_GK[here_GK]]) - shard.first, return_inverse=True
        )
        num_pos = len(place) - int(here_GK.sum())
        pos_place, neg_place = place[:num_pos], place[num_pos:]
        self.own_pos = pos_place
        stand_in, none = len(self.ids), len(self.ids) + 1
        self.pos_id = torch.where(rows.counts, stand_in, NOBODY)
        self.pos_id[self.own_R] = pos_place
        if len(neg_id_GK) == 1 and not keep_slots:
            self.neg_id = neg_place[None] if len(neg_place) else neg_place.new_full((1, 1), none)
            return
        self.neg_id = torch.full_like(neg_id_GK, none)
        self.neg_id[here_GK] = neg_place
        if not keep_slots:
            most = max(int(here_GK.sum(1).max()), 1)
            order = (~here_GK).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
            self.neg_id = self.neg_id.gather(1, order)


def _refuse_numbers(inputs: Inputs, found: _Candidates, shard: RowShard) -> None:
    """What the operator would refuse by numbers of its own for items."""
    if inputs.scale.device.type != "cpu":
        return

    def first_bad(is_bad: Tensor) -> int:
        return int(is_bad.nonzero()[0, 0]) if bool(is_bad.any()) else -1

    if inputs.log_prior_V is not None:
        log_p = inputs.log_prior_V.detach()[found.ids]
        at = first_bad(~(log_p < torch.inf))
        if at >= 0:
            raise checks.no_prior(int(found.ids[at]) + shard.first, float(log_p[at]))
    if inputs.log_proposal_V is not None:
        log_q = inputs.log_proposal_V[found.ids]
        drawn = torch.ones_like(log_q, dtype=torch.bool)
        if inputs.logq != "standard":  # where a positive's is not read
            drawn[found.own_pos] = False
            drawn[found.neg_id[found.neg_id < len(log_q)]] = True
        at = first_bad(~torch.isfinite(log_q) & drawn)
        if at >= 0:
            name = "pos_id" if bool((found.own_pos == at).any()) else "neg_id"
            raise checks.no_proposal(name, int(found.ids[at]) + shard.first, float(log_q[at]))


def _prior_term(inputs: Inputs, log_prior_n: Tensor) -> Tensor:
    """prior_weight * log_prior; a weight of 0 ignores it, with any other -inf removes."""
    gone = log_prior_n == -torch.inf
    term = inputs.prior_weight * torch.where(gone, 0, log_prior_n)
    return torch.where(gone & (inputs.prior_weight != 0), -torch.inf, term)


def shared(shard: RowShard, *tensors: Any) -> tuple[Any, ...]:
    """What all processes bring alike, whose gradients each makes a part of: the sums come back."""
    wanted = [at for at, one in enumerate(tensors) if isinstance(one, Tensor) and one.requires_grad]
    if shard.queries == "each" or not wanted or not torch.is_grad_enabled():
        return tensors
    found = list(tensors)
    for at, one in zip(wanted, _Shared.apply(shard.group, *(tensors[at] for at in wanted))):
        found[at] = one
    return tuple(found)


def mean_logit(
    query: Tensor,
    items: Tensor,
    log_prior: Tensor | None,
    prior_weight: Tensor,
    scale: Tensor,
    shard: RowShard,
) -> Tensor:
    """Mean over the catalogue of z(b, i), items removed by the prior left out."""
    dtype = scale.dtype
    kept_n = torch.ones(len(items), dtype=torch.bool, device=items.device)
    term_n = scale.new_zeros(len(items))
    if log_prior is not None:
        kept_n = torch.isfinite(log_prior) | (prior_weight == 0)
        term_n = prior_weight * torch.where(torch.isfinite(log_prior), log_prior, 0)
    sums = torch.cat(
        [
            torch.where(kept_n[:, None], items, 0).to(dtype).sum(0),
            torch.where(kept_n, term_n, 0).sum()[None],
            kept_n.sum()[None].to(dtype),
        ]
    )
    sums = total(shard, sums)
    mean = sums[:-1] / sums[-1].detach().clamp(min=1)
    return scale * (query.to(dtype) @ mean[:-1]) + mean[-1]


class _Joined(torch.autograd.Function):
    """(lse, pos_logit) of the parts -> of the catalogue: log of the sum of exp(lse), and what the part that
    has the positive says of it. Two collectives; none backward."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, lse_R: Tensor, pos_R: Tensor, own_R: Tensor, counts_R: Tensor, group: Any
    ) -> tuple[Tensor, Tensor]:
        largest_R = collectives.largest(lse_R, group)
        base_R = torch.where(largest_R == -torch.inf, 0, largest_R)
        sums = collectives.total(torch.stack([(lse_R - base_R).exp(), torch.where(own_R, pos_R, 0)]), group)
        joined_R = base_R + sums[0].log()
        joined_R = torch.where(joined_R < ABSENT / 2, -torch.inf, joined_R)  # stand-ins alone
        # The positive is one of the sum's terms, made in another order there: a loss is never negative.
        joined_R = torch.where(counts_R, torch.maximum(joined_R, sums[1]), 0)
        pos_R = torch.where(counts_R, sums[1], 0)
        ctx.save_for_backward(lse_R, joined_R, pos_R, own_R, counts_R)
        return joined_R, pos_R

    @staticmethod
    def backward(ctx: Any, d_lse_R: Tensor, d_pos_R: Tensor) -> Any:  # type: ignore[override]
        lse_R, joined_R, pos_R, own_R, counts_R = ctx.saved_tensors
        # A removed positive gives no gradient, whatever comes from upstream.
        lives_R = counts_R & torch.isfinite(joined_R) & torch.isfinite(pos_R)
        share_R = torch.where(lives_R, lse_R - joined_R, -torch.inf).exp()
        d_lse_R = torch.where(lives_R, d_lse_R, 0) * share_R
        return d_lse_R, torch.where(own_R & lives_R, d_pos_R, 0), None, None, None


class _Own(torch.autograd.Function):
    """This process's of the rows of all; every process learns of all upstream gradients."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, lse: Tensor, pos_logit: Tensor, sizes: list[int], group: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.sizes, ctx.group = sizes, group
        first = sum(sizes[: collectives.rank_in(group)])
        mine = slice(first, first + sizes[collectives.rank_in(group)])
        return lse[mine].clone(), pos_logit[mine].clone()

    @staticmethod
    def backward(ctx: Any, d_lse: Tensor, d_pos: Tensor) -> Any:  # type: ignore[override]
        both = collectives.gathered(torch.stack([d_lse, d_pos], 1), ctx.sizes, ctx.group)
        return both[:, 0], both[:, 1], None, None


class _Shared(torch.autograd.Function):
    """What is alike on all processes; the parts of its gradient are summed, all in one collective."""

    @staticmethod
    def forward(ctx: Any, group: Any, *tensors: Tensor) -> Any:  # type: ignore[override]
        ctx.group = group
        return tuple(one.view_as(one) for one in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # type: ignore[override]
        wide = torch.promote_types(torch.float32, grads[0].dtype)
        flat = torch.cat([grad.reshape(-1).to(wide) for grad in grads])
        parts = collectives.total(flat, ctx.group).split([grad.numel() for grad in grads])
        return None, *(part.view_as(grad).to(grad.dtype) for part, grad in zip(parts, grads))


class _Taken(torch.autograd.Function):
    """table[ids], and rows of zeros after; the table's gradient sparse or not. ids: sorted, each once."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, sparse: bool, absent: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(table, ids)
        ctx.sparse = sparse
        rows = table.new_empty(len(ids) + absent, *table.shape[1:])
        torch.index_select(table, 0, ids, out=rows[: len(ids)])
        rows[len(ids) :] = 0
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        table, ids = ctx.saved_tensors
        return table_gradient(table, ids, grad[: len(ids)], ctx.sparse, repeats=False), None, None, None


def _taken(table: Tensor, ids: Tensor, sparse: bool, absent: int = 0) -> Tensor:
    return _Taken.apply(table, ids, sparse, absent)
