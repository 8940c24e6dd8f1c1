"""Sampled softmax in plain torch, in the order of the maths: the specification.

    z(b, i)   = scale * <query[b], items[i]> + prior_weight * log_prior[i]
    standard  : every candidate, the positive too, gets - log q(i)
    corrected : a negative gets - log(K q(i)), the positive nothing, accidental hits are dropped
    none      : z as it is
    lse[b]    = logsumexp over the positive and the row's K negatives

Of a row with several positives P, mask_positives leaves the others out of each one's sum:

    lse[b, m] = logsumexp(z(b, m), z(b, n) for the negatives n outside of P)

and, where accidental hits are kept, for those equal to m: the op's own business (fastpop/ops/_positives.py),
which gives m's row the negatives with m in the places of P, and drops these hits.

Negatives come as [G, K]: row b reads group b // group_size. Shared negatives are G = 1, per-row
negatives are group_size = 1. Rows go through in tiles, so that a tile of logits, not [B, K], is alive;
backward makes each tile again from lse, and reads its ids again: where they are drawn, whoever calls
gives something that draws them when a slice of groups is read. Half inputs are computed in fp32, fp64
in fp64. Numbers that no distribution has are not refused here but found (`bad_ids`).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Logits (or gathered numbers) alive at once: 4 MiB of fp32 stays in a last-level cache.
TILE_NUMBERS = 1 << 20


class Inputs(NamedTuple):
    """What every implementation of the op takes, already checked.

    The one list of inputs: the schema of the torch operators and the arguments of the bindings have these
    names, without the shapes. Those that have gradients are the fields of Needs.
    """

    query_BD: Tensor
    item_VD: Tensor
    pos_id_B: Tensor
    prior_weight: Tensor  # 0-d
    scale: Tensor  # 0-d
    num_groups: int
    num_negatives: int
    group_size: int
    neg_id_GK: Tensor | None = None  # int64, given; None: drawn from
    table_V2: Tensor | None = None  # this alias table, uint32 bits as int32, under
    counter_2: Tensor | None = None  # seed and step, uint64 bits as int64
    log_prior_V: Tensor | None = None  # None: no prior, or a weight that is the number 0
    log_proposal_V: Tensor | None = None  # None exactly when logq is "none"
    key_V: Tensor | None = (
        None  # rows with equal keys are one item when accidental hits are dropped; None: each its own
    )
    logq: str = "none"
    drop_accidental_hits: bool = False
    exclude_diagonal: bool = False
    round_items: bool = False  # rows of items are multiplied as the numbers that query's dtype has
    merge_repeats: bool = False  # of shared draws so many are expected to repeat that looking for them pays


class Gradients(NamedTuple):
    """None where not needed. Ids are sorted; one that comes again carries zeros there, so that a
    device that cannot know the number of unique ids may return B + G K of them."""

    query_BD: Tensor | None
    id_n: Tensor | None
    item_nD: Tensor | None
    log_prior_n: Tensor | None
    prior_weight: Tensor | None
    scale: Tensor | None


class Needs(NamedTuple):
    """Which gradients are asked for, by the inputs' names."""

    query: bool
    item: bool
    log_prior: bool
    prior_weight: bool
    scale: bool


def unsupported(inputs: Inputs) -> str | None:
    return None


def tiles(
    num_rows: int, num_groups: int, group_size: int, per_row: int, per_group: int
) -> Iterator[tuple[slice, slice]]:
    """(rows, groups) of each tile: part of one group, or whole groups of one size."""
    if group_size * per_row > TILE_NUMBERS or num_groups == 1:
        step = max(1, TILE_NUMBERS // max(per_row, 1))
        for group in range(num_groups):
            stop = min((group + 1) * group_size, num_rows)
            for first in range(group * group_size, stop, step):
                yield slice(first, min(first + step, stop)), slice(group, group + 1)
        return
    step = max(1, TILE_NUMBERS // max(group_size * per_row, per_group, 1))
    full = num_rows // group_size
    for first in range(0, full, step):
        last = min(first + step, full)
        yield slice(first * group_size, last * group_size), slice(first, last)
    if full < num_groups:
        yield slice(full * group_size, num_rows), slice(full, num_groups)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _dots(inputs: Inputs, rows: slice, neg_id_gK: Tensor) -> tuple[Tensor, ...]:
    """Tile views and the plain dot products: positive [r], negatives [g, s, K]."""
    dtype = compute_dtype(inputs.query_BD.dtype)
    query_rD = inputs.query_BD[rows].to(dtype)
    pos_item_rD = _rows_of(inputs, inputs.pos_id_B[rows]).to(dtype)
    neg_item_gKD = _rows_of(inputs, neg_id_gK).to(dtype)
    query_gsD = query_rD.view(neg_id_gK.shape[0], -1, query_rD.shape[1])
    pos_dot_r = (query_rD * pos_item_rD).sum(1)
    neg_dot_gsK = query_gsD @ neg_item_gKD.transpose(1, 2)
    return query_gsD, pos_item_rD, neg_item_gKD, pos_dot_r, neg_dot_gsK


def _rows_of(inputs: Inputs, ids: Tensor) -> Tensor:
    """Item rows; zeros for removed items, whose rows may hold anything (0 * NaN is NaN)."""
    rows = inputs.item_VD[ids]
    if inputs.round_items:
        rows = rows.to(inputs.query_BD.dtype)
    if inputs.log_prior_V is None:
        return rows
    term = _prior_term(inputs.prior_weight, inputs.log_prior_V, ids)
    return torch.where((term == -math.inf).unsqueeze(-1), 0, rows)


def _prior_term(prior_weight: Tensor, log_prior_V: Tensor, ids: Tensor) -> Tensor:
    """prior_weight * log_prior at ids; a weight of 0 ignores it, with any other -inf removes."""
    log_prior = log_prior_V[ids]
    term = torch.where(log_prior == -math.inf, -math.inf, prior_weight * log_prior)
    return torch.where(prior_weight == 0, torch.zeros_like(term), term)


def _logits(
    inputs: Inputs, rows: slice, neg_id_gK: Tensor, pos_dot_r: Tensor, neg_dot_gsK: Tensor
) -> tuple[Tensor, ...]:
    """Logits of a tile: bias, correction and masks on top of the dot products."""
    pos_id_r = inputs.pos_id_B[rows]
    pos_r = inputs.scale.to(pos_dot_r.dtype) * pos_dot_r
    neg_gsK = inputs.scale.to(pos_dot_r.dtype) * neg_dot_gsK
    if inputs.log_prior_V is not None:
        prior = inputs.prior_weight, inputs.log_prior_V
        pos_r = pos_r + _prior_term(*prior, pos_id_r)
        neg_gsK = neg_gsK + _prior_term(*prior, neg_id_gK).unsqueeze(1)
    if inputs.log_proposal_V is not None:
        num_drawn = neg_id_gK.shape[1] - int(inputs.exclude_diagonal)
        log_count = math.log(max(num_drawn, 1)) if inputs.logq == "corrected" else 0.0
        log_q_gK = inputs.log_proposal_V[neg_id_gK]
        neg_gsK = neg_gsK - (log_q_gK + log_count).unsqueeze(1)
        if inputs.logq == "standard":
            pos_r = pos_r - inputs.log_proposal_V[pos_id_r]
    if inputs.drop_accidental_hits:
        # A dropped hit leaves the sum: exp(-inf) = 0, never a phantom exp(0).
        pos_key_r, neg_key_gK = (
            ids if inputs.key_V is None else inputs.key_V[ids] for ids in (pos_id_r, neg_id_gK)
        )
        hit_gsK = neg_key_gK.unsqueeze(1) == pos_key_r.view(neg_gsK.shape[0], -1, 1)
        neg_gsK = neg_gsK.masked_fill(hit_gsK, -math.inf)
    if inputs.exclude_diagonal:
        slot_K = torch.arange(neg_id_gK.shape[1], device=neg_gsK.device)
        row_r = torch.arange(rows.start, rows.stop, device=neg_gsK.device)
        own_gsK = (slot_K == row_r[:, None]).view_as(neg_gsK)
        neg_gsK = neg_gsK.masked_fill(own_gsK, -math.inf)
    return pos_r, neg_gsK


def _tiles_of(inputs: Inputs) -> Iterator[tuple[slice, slice]]:
    (num_rows, dim), num_negatives = inputs.query_BD.shape, inputs.num_negatives
    return tiles(
        num_rows,
        inputs.num_groups,
        inputs.group_size,
        per_row=max(num_negatives, dim),
        per_group=num_negatives * dim,
    )


def _negatives(inputs: Inputs, groups: slice) -> Tensor:
    """int64 [g, K] of some groups."""
    return inputs.neg_id_GK[groups]  # type: ignore[index]


def bad_ids(inputs: Inputs) -> tuple[int, int]:
    """(an id whose log p is NaN or +inf, an id of a negative whose log q is not finite), -1 where there is
    none. Of the ids that are read, and no others."""
    bad_prior_id = bad_proposal_id = -1
    for rows, groups in _tiles_of(inputs):
        neg_id_gK = _negatives(inputs, groups)
        if inputs.log_prior_V is not None and bad_prior_id < 0:
            for ids in (inputs.pos_id_B[rows], neg_id_gK):
                bad = ids[~(inputs.log_prior_V[ids] < math.inf)]  # of a NaN, too
                if bad_prior_id < 0 and len(bad):
                    bad_prior_id = int(bad[0])
        if inputs.log_proposal_V is not None and bad_proposal_id < 0:
            bad = neg_id_gK[~torch.isfinite(inputs.log_proposal_V[neg_id_gK])]
            bad_proposal_id = int(bad[0]) if len(bad) else -1
    return bad_prior_id, bad_proposal_id


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(lse [B], pos_logit [B]) in the compute dtype; loss = lse - pos_logit.

    Cost: 2 B K D FLOPs, O(B + K D) memory beyond inputs.
    """
    dtype = compute_dtype(inputs.query_BD.dtype)
    lse_B = inputs.query_BD.new_empty(inputs.query_BD.shape[0], dtype=dtype)
    pos_logit_B = torch.empty_like(lse_B)
    for rows, groups in _tiles_of(inputs):
        neg_id_gK = _negatives(inputs, groups)
        *_, pos_dot_r, neg_dot_gsK = _dots(inputs, rows, neg_id_gK)
        pos_r, neg_gsK = _logits(inputs, rows, neg_id_gK, pos_dot_r, neg_dot_gsK)
        neg_lse_r = torch.logsumexp(neg_gsK, dim=2).reshape(-1)
        lse_B[rows] = torch.logaddexp(pos_r, neg_lse_r)
        pos_logit_B[rows] = pos_r
    return lse_B, pos_logit_B


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit).

    A row whose positive is removed (pos_logit -inf) gives no gradient. Duplicate ids are summed in
    a fixed order. Cost: 6 B K D FLOPs (2 of them make the logits again).
    """
    dtype = lse_B.dtype
    live_B = torch.isfinite(lse_B) & torch.isfinite(pos_logit_B)
    d_lse_B = torch.where(live_B, d_lse_B.to(dtype), 0)
    d_pos_B = torch.where(live_B, d_pos_B.to(dtype), 0)
    safe_lse_B = torch.where(live_B, lse_B, 0)
    scale = inputs.scale.to(dtype)
    d_query_BD = torch.empty_like(inputs.query_BD, dtype=dtype) if needs.query else None
    item_rows = RowSums(inputs.item_VD.shape[1:], dtype, inputs.query_BD.device)
    prior_rows = RowSums((), dtype, inputs.query_BD.device)
    # fp64: one number gathers the cancelling terms of a whole batch.
    d_scale = torch.zeros((), dtype=torch.float64, device=lse_B.device)
    d_prior_weight = None
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    for rows, groups in _tiles_of(inputs):
        neg_id_gK = _negatives(inputs, groups)
        query_gsD, pos_item_rD, neg_item_gKD, pos_dot_r, neg_dot_gsK = _dots(inputs, rows, neg_id_gK)
        pos_r, neg_gsK = _logits(inputs, rows, neg_id_gK, pos_dot_r, neg_dot_gsK)
        shape_gs1 = (*neg_gsK.shape[:2], 1)
        d_lse_r, lse_r = d_lse_B[rows], safe_lse_B[rows]
        d_pos_r = torch.where(live_B[rows], d_lse_r * torch.exp(pos_r - lse_r) + d_pos_B[rows], 0)
        d_neg_gsK = d_lse_r.view(shape_gs1) * torch.exp(neg_gsK - lse_r.view(shape_gs1))
        d_neg_gsK = torch.where(live_B[rows].view(shape_gs1), d_neg_gsK, 0)
        pos_id_r = inputs.pos_id_B[rows]
        if d_query_BD is not None:
            from_neg_rD = (d_neg_gsK @ neg_item_gKD).reshape(-1, query_gsD.shape[2])
            d_query_BD[rows] = scale * (from_neg_rD + d_pos_r[:, None] * pos_item_rD)
        if needs.item:
            query_rD = query_gsD.reshape(-1, query_gsD.shape[2])
            item_rows.add(pos_id_r, scale * d_pos_r[:, None] * query_rD)
            d_rows_gKD = scale * (d_neg_gsK.transpose(1, 2) @ query_gsD)
            item_rows.add(neg_id_gK.reshape(-1), d_rows_gKD.reshape(-1, query_gsD.shape[2]))
        if needs.scale:
            d_scale += (d_pos_r * pos_dot_r).sum(dtype=torch.float64)
            d_scale += (d_neg_gsK * neg_dot_gsK).sum(dtype=torch.float64)
        if needs_prior:
            d_bias_gK = d_neg_gsK.sum(1)
            prior_rows.add(pos_id_r, d_pos_r)
            prior_rows.add(neg_id_gK.reshape(-1), d_bias_gK.reshape(-1))
    id_n = item_nD = log_prior_n = d_prior_weight = None
    if needs.item:
        id_n, item_nD = item_rows.total()
    if needs_prior:
        id_n, d_bias_n = prior_rows.total()
        log_prior_n, d_prior_weight = prior_gradients(inputs, id_n, d_bias_n)
    return Gradients(
        query_BD=d_query_BD,
        id_n=id_n,
        item_nD=item_nD,
        log_prior_n=log_prior_n if needs.log_prior else None,
        prior_weight=d_prior_weight if needs.prior_weight else None,
        scale=d_scale.to(dtype) if needs.scale else None,
    )


def prior_gradients(inputs: Inputs, id_n: Tensor, d_bias_n: Tensor) -> tuple[Tensor, Tensor]:
    """(d_log_prior [n], d_prior_weight) from the gradients of the logits' biases."""
    log_prior_n = inputs.log_prior_V[id_n].to(d_bias_n.dtype)  # type: ignore[index]
    # A removed item has no finite logit to move.
    finite_n = torch.isfinite(log_prior_n)
    d_bias_n = torch.where(finite_n, d_bias_n, 0)
    weighted_n = d_bias_n * torch.where(finite_n, log_prior_n, 0)
    d_prior_weight = weighted_n.sum(dtype=torch.float64).to(d_bias_n.dtype)
    return inputs.prior_weight.to(d_bias_n.dtype) * d_bias_n, d_prior_weight


class RowSums:
    """Sums rows by id; ids come out sorted and unique. Duplicates add up in order of arrival, in fp64: a
    popular item gathers thousands of terms that cancel."""

    def __init__(self, row_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device):
        self.dtype = dtype
        self.ids = torch.empty(0, dtype=torch.int64, device=device)
        self.rows = torch.empty(0, *row_shape, dtype=torch.float64, device=device)
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.num_waiting = 0

    def add(self, ids_n: Tensor, rows_n: Tensor) -> None:
        self.waiting.append((ids_n, rows_n))
        self.num_waiting += rows_n.numel()
        if self.num_waiting > 16 * TILE_NUMBERS:
            self._merge()

    def total(self) -> tuple[Tensor, Tensor]:
        self._merge()
        return self.ids, self.rows.to(self.dtype)

    def _merge(self) -> None:
        if not self.waiting:
            return
        ids_n = torch.cat([self.ids, *(ids for ids, _ in self.waiting)])
        rows_n = torch.cat([self.rows, *(rows.double() for _, rows in self.waiting)])
        self.ids, self.rows = sum_duplicates(ids_n, rows_n)
        self.waiting, self.num_waiting = [], 0


def sum_duplicates(ids_n: Tensor, rows_n: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted unique ids and the sums of their rows."""
    size = (int(ids_n.max()) + 1 if ids_n.numel() else 1, *rows_n.shape[1:])
    summed = torch.sparse_coo_tensor(ids_n[None], rows_n, size, check_invariants=False).coalesce()
    return summed.indices()[0], summed.values()
