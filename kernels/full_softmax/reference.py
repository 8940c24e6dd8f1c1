"""Softmax cross-entropy over the whole catalogue in plain torch: the specification.

    z(b, i) = scale * <query[b], items[i]> + prior_weight * log_prior[i]
    lse[b]  = logsumexp_i z(b, i)

Of a row with several positives P, mask_positives leaves the others out of each one's sum, around the op
(fastpop/ops/_positives.py): lse[b, m] = logsumexp of z(b, i) over m and the items outside of P.

Rows go through in tiles: [b, V] logits are alive, never [B, V]; backward makes them again.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

TILE_NUMBERS = 1 << 22


class Inputs(NamedTuple):
    """What every implementation of the op takes, already checked; the one list, as in sampled_softmax."""

    query_BD: Tensor
    item_VD: Tensor
    pos_id_B: Tensor
    prior_weight: Tensor  # 0-d
    scale: Tensor  # 0-d
    log_prior_V: Tensor | None = None


class Gradients(NamedTuple):
    query_BD: Tensor | None
    item_VD: Tensor | None
    log_prior_V: Tensor | None
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


def bad_ids(inputs: Inputs) -> tuple[int, int]:
    """(an id whose log p is NaN or +inf, -1), -1 where there is none: this op reads no log q."""
    if inputs.log_prior_V is None:
        return -1, -1
    bad = (~(inputs.log_prior_V < torch.inf)).nonzero()  # NaN fails here too
    return int(bad[0]) if len(bad) else -1, -1


def _tiles(inputs: Inputs) -> Iterator[slice]:
    num_rows, num_items = inputs.query_BD.shape[0], inputs.item_VD.shape[0]
    step = max(1, TILE_NUMBERS // num_items)
    for first in range(0, num_rows, step):
        yield slice(first, min(first + step, num_rows))


def _items_and_bias(inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """The table, zeros for removed items, whose rows may hold anything (0 * NaN is NaN), and the bias."""
    if inputs.log_prior_V is None:
        return inputs.item_VD.to(dtype), None
    bias_V = (inputs.prior_weight * inputs.log_prior_V).to(dtype)
    bias_V = torch.where(inputs.log_prior_V == -torch.inf, -torch.inf, bias_V)
    # A weight that turns out to be 0 at run time must not make 0 * -inf.
    bias_V = torch.where(inputs.prior_weight == 0, torch.zeros_like(bias_V), bias_V)
    return torch.where((bias_V == -torch.inf)[:, None], 0, inputs.item_VD).to(dtype), bias_V


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(lse [B], pos_logit [B]) in the compute dtype. Cost: 2 B V D FLOPs, O(B + VD) memory."""
    dtype = torch.float64 if inputs.query_BD.dtype == torch.float64 else torch.float32
    item_VD, bias_V = _items_and_bias(inputs, dtype)
    lse_B = inputs.query_BD.new_empty(inputs.query_BD.shape[0], dtype=dtype)
    pos_logit_B = torch.empty_like(lse_B)
    for rows in _tiles(inputs):
        logit_bV = (inputs.query_BD[rows].to(dtype) @ item_VD.T).mul_(inputs.scale.to(dtype))
        if bias_V is not None:
            logit_bV += bias_V
        lse_B[rows] = torch.logsumexp(logit_bV, dim=1)
        pos_logit_B[rows] = logit_bV.gather(1, inputs.pos_id_B[rows][:, None])[:, 0]
    return lse_B, pos_logit_B


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit); a removed positive gives none.

    Cost: 6 B V D FLOPs (2 of them make the logits again).
    """
    dtype = lse_B.dtype
    live_B = torch.isfinite(lse_B) & torch.isfinite(pos_logit_B)
    d_lse_B = torch.where(live_B, d_lse_B.to(dtype), 0)
    d_pos_B = torch.where(live_B, d_pos_B.to(dtype), 0)
    safe_lse_B = torch.where(live_B, lse_B, 0)
    scale = inputs.scale.to(dtype)
    item_VD, bias_V = _items_and_bias(inputs, dtype)
    d_query_BD = torch.empty_like(inputs.query_BD, dtype=dtype) if needs.query else None
    d_item_VD = torch.zeros_like(item_VD) if needs.item else None
    needs_prior = (needs.log_prior or needs.prior_weight) and bias_V is not None
    d_bias_V = item_VD.new_zeros(item_VD.shape[0]) if needs_prior else None
    # fp64: one number gathers the cancelling terms of a whole batch.
    d_scale = torch.zeros((), dtype=torch.float64, device=lse_B.device)
    for rows in _tiles(inputs):
        query_bD = inputs.query_BD[rows].to(dtype)
        dot_bV = query_bD @ item_VD.T
        d_bV = dot_bV * scale
        if bias_V is not None:
            d_bV += bias_V
        d_bV.sub_(safe_lse_B[rows][:, None]).exp_().mul_(d_lse_B[rows][:, None])
        d_bV.masked_fill_(~live_B[rows][:, None], 0)
        d_bV.scatter_add_(1, inputs.pos_id_B[rows][:, None], d_pos_B[rows][:, None])
        if d_query_BD is not None:
            d_query_BD[rows] = scale * (d_bV @ item_VD)
        if d_item_VD is not None:
            d_item_VD.addmm_(d_bV.T, query_bD)
        if needs.scale:
            d_scale += (d_bV * dot_bV).sum(dtype=torch.float64)
        if d_bias_V is not None:
            d_bias_V += d_bV.sum(0)
    if d_item_VD is not None:
        d_item_VD *= scale
    d_prior_weight = d_log_prior_V = None
    if d_bias_V is not None:
        d_log_prior_V, d_prior_weight = prior_gradients(inputs, d_bias_V)
    return Gradients(
        query_BD=d_query_BD,
        item_VD=d_item_VD,
        log_prior_V=d_log_prior_V if needs.log_prior else None,
        prior_weight=d_prior_weight if needs.prior_weight else None,
        scale=d_scale.to(dtype) if needs.scale else None,
    )


def prior_gradients(inputs: Inputs, d_bias_V: Tensor) -> tuple[Tensor, Tensor]:
    """(d_log_prior [V], d_prior_weight) from the gradients of the logits' biases."""
    log_prior_V = inputs.log_prior_V.to(d_bias_V.dtype)  # type: ignore[union-attr]
    # A removed item has no finite logit to move.
    finite_V = torch.isfinite(log_prior_V)
    d_bias_V = torch.where(finite_V, d_bias_V, 0)
    weighted_V = d_bias_V * torch.where(finite_V, log_prior_V, 0)
    d_prior_weight = weighted_V.sum(dtype=torch.float64).to(d_bias_V.dtype)
    return inputs.prior_weight.to(d_bias_V.dtype) * d_bias_V, d_prior_weight
