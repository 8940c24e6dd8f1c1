"""Rows of several positives, whose others are no negatives: around the ops, once for all implementations.

With z the logits, P a row's positives and m one of them, loss_m = log(e^z_m + N) - z_m, where N sums e^z over
negatives outside of P:

- sampled: a negative in P is replaced by m itself, which the op drops as an accidental hit; where the caller
  keeps those, the entry's own are added again. No digits are lost.
- full: loss_m + log(1 - S), S the softmax's probability of P without m, exp(-loss_j) each. Where S is above a
  half, 1 - S has lost digits, and the row is a sampled one over the whole catalogue instead.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import validation
from fastpop.ops.draw import Draw
from fastpop.types import Impl

PAIRS = 1 << 24  # comparisons of negatives with positives, and ids of whole rows, at a time
MOST_OTHERS = 0.5  # S up to which 1 - S has its digits


def sampled(
    softmax: Callable[..., Any],
    query_BD: Tensor,
    items: Tensor,
    pos_id_BM: Tensor,
    neg_id: Tensor | Draw,
    group_size: int,
    *,
    ignore_index: int,
    keep_hits: bool,
    log_proposal: Tensor | None,
    logq: str,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """(loss [B M], lse [B M]) by `sampled_softmax`. neg_id: [G, K], or what draws it. group_size: rows a
    group. keep_hits: whether negatives equal to the entry's own positive count.

    On the CPU rows without a positive among their negatives share these as ever; elsewhere, where nobody
    waits to know which they are, every entry has a set of ids of its own.
    """
    (num_rows, each), (query_RD, pos_id_R) = pos_id_BM.shape, _entries(query_BD, pos_id_BM)
    neg_GK = neg_id.tensor(num_rows, query_BD.device) if isinstance(neg_id, Draw) else neg_id
    options |= {"ignore_index": ignore_index, "logq": logq, "reduction": "none", "return_lse": True}
    group_of_B = torch.arange(num_rows, device=neg_GK.device) // group_size
    real_BM = pos_id_BM != ignore_index
    if not validation.can_read(query_BD):
        own, times = _own_sets(pos_id_BM, real_BM, neg_GK[group_of_B])
        return _dropped(
            softmax, query_RD, items, pos_id_R, own, times, keep_hits, log_proposal, logq, options
        )
    has_other_B = _touched(pos_id_BM, real_BM, neg_GK, group_of_B)
    at = has_other_B.repeat_interleave(each).logical_and(real_BM.reshape(-1)).nonzero()[:, 0]
    shared = pos_id_R.index_fill(0, at, ignore_index)
    if isinstance(neg_id, Draw):
        rows = None if neg_id.group_size is None else neg_id.group_size * each
        given: dict[str, Any] = {"neg_id": dataclasses.replace(neg_id, group_size=rows)}
    elif len(neg_GK) == 1:
        given = {"neg_id": neg_GK[0]}
    else:
        given = {"neg_id": neg_GK, "group_size": group_size * each}
    hits = "keep" if keep_hits else "drop"
    loss_R, lse_R = softmax(
        query_RD, items, shared, **given, accidental_hits=hits, log_proposal=log_proposal, **options
    )
    size = max(1, PAIRS // (neg_GK.shape[1] * each))
    rows_n = has_other_B.nonzero()[:, 0]
    for some in rows_n.split(size):
        own, times = _own_sets(pos_id_BM[some], real_BM[some], neg_GK[group_of_B[some]])
        place = (some[:, None] * each + torch.arange(each)).reshape(-1)
        loss, lse = _dropped(
            softmax,
            query_RD[place],
            items,
            pos_id_R[place],
            own,
            times,
            keep_hits,
            log_proposal,
            logq,
            options,
        )
        loss_R, lse_R = loss_R.index_copy(0, place, loss), lse_R.index_copy(0, place, lse)
    return loss_R, lse_R


def full(
    softmax: Callable[..., Any],
    of_candidates: Callable[..., Any],
    query_BD: Tensor,
    items: Tensor,
    pos_id_BM: Tensor,
    *,
    ignore_index: int,
    impl: Impl,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """(loss [B M], lse [B M]) by `full_softmax`, and by `sampled_softmax` over the whole catalogue for
    entries whose others have more than half of the probability: of triton by another implementation, since
    that one takes no set of ids for each row.

    Raises ValueError under torch.compile, since which those are depends on values.
    """
    if torch.compiler.is_compiling():
        raise checks.wrong(
            "mask_positives", "False under torch.compile: which rows are made anew depends on values", True
        )
    options |= {"ignore_index": ignore_index, "reduction": "none", "return_lse": True}
    query_RD, pos_id_R = _entries(query_BD, pos_id_BM)
    real_BM = pos_id_BM != ignore_index
    loss_R, lse_R = softmax(query_RD, items, pos_id_R, impl=impl, **options)
    share_BM = torch.where(real_BM & _first(pos_id_BM), (-loss_R.view(pos_id_BM.shape)).exp(), 0)
    is_other_BMj = pos_id_BM[:, :, None] != pos_id_BM[:, None, :]
    others_R = torch.where(is_other_BMj, share_BM[:, None, :], 0).sum(2).reshape(-1)
    others_R = torch.where(real_BM.reshape(-1), others_R, 0)
    is_most_R = others_R > MOST_OTHERS
    delta_R = torch.log1p(-torch.where(is_most_R, 0, others_R))
    removed_R = loss_R == torch.inf
    loss_R, lse_R = loss_R + torch.where(removed_R, 0, delta_R), lse_R + delta_R
    each, all_V = pos_id_BM.shape[1], torch.arange(len(items), device=items.device)
    for place in is_most_R.nonzero()[:, 0].split(max(1, PAIRS // len(items))):
        row = place // each
        is_other_nV = _among(all_V.expand(len(row), -1), pos_id_BM[row], real_BM[row])
        own = torch.where(is_other_nV, pos_id_R[place, None], all_V)
        loss, lse = of_candidates(
            query_RD[place],
            items,
            pos_id_R[place],
            own,
            logq="none",
            accidental_hits="drop",
            impl="auto" if impl == "triton" else impl,
            **options,
        )
        loss_R, lse_R = loss_R.index_copy(0, place, loss), lse_R.index_copy(0, place, lse)
    return loss_R, lse_R


def _entries(query_BD: Tensor, pos_id_BM: Tensor) -> tuple[Tensor, Tensor]:
    """A row for each entry."""
    return query_BD.repeat_interleave(pos_id_BM.shape[1], 0), pos_id_BM.reshape(-1)


def _dropped(
    softmax: Callable[..., Any],
    query_RD: Tensor,
    items: Tensor,
    pos_id_R: Tensor,
    own_RK: Tensor,
    times_R: Tensor,
    keep_hits: bool,
    log_proposal: Tensor | None,
    logq: str,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Of sets in which the row's positives are the entry's own, which are dropped, and added again."""
    if logq == "corrected" and log_proposal is not None:
        # A positive need not be one that could be drawn; among the negatives it is dropped unread.
        safe = torch.where(pos_id_R == options["ignore_index"], 0, pos_id_R)
        there = log_proposal[safe]
        log_proposal = log_proposal.index_put((safe,), torch.where(there == -torch.inf, 0, there))
    loss_R, lse_R = softmax(
        query_RD, items, pos_id_R, own_RK, accidental_hits="drop", log_proposal=log_proposal, **options
    )
    if not keep_hits:
        return loss_R, lse_R
    with_own_R = torch.logaddexp(loss_R, times_R.to(loss_R.dtype).log())
    with_own_R = torch.where(torch.isfinite(loss_R) & (times_R > 0), with_own_R, loss_R)
    more_R = torch.where(torch.isfinite(loss_R), with_own_R - loss_R, 0)
    return with_own_R, lse_R + more_R


def _own_sets(pos_id_BM: Tensor, real_BM: Tensor, neg_BK: Tensor) -> tuple[Tensor, Tensor]:
    """(ids [B M, K] of each entry, the row's positives replaced by its own; how often its own was drawn)."""
    is_positive_BK = _among(neg_BK, pos_id_BM, real_BM)
    own_BMK = torch.where(
        (is_positive_BK[:, None] & real_BM[..., None]), pos_id_BM[..., None], neg_BK[:, None]
    )
    times_BM = (neg_BK[:, None] == pos_id_BM[..., None]).sum(2)
    return own_BMK.reshape(-1, neg_BK.shape[1]), times_BM.reshape(-1)


def _among(neg_BK: Tensor, pos_id_BM: Tensor, real_BM: Tensor) -> Tensor:
    """[B, K] whether an id is a positive of its row."""
    found_BK = torch.zeros_like(neg_BK, dtype=torch.bool)
    for m in range(pos_id_BM.shape[1]):
        found_BK |= (neg_BK == pos_id_BM[:, m, None]) & real_BM[:, m, None]
    return found_BK


def _touched(pos_id_BM: Tensor, real_BM: Tensor, neg_GK: Tensor, group_of_B: Tensor) -> Tensor:
    """[B] whether a row with several positives has one among its negatives."""
    several_B = real_BM.sum(1) > 1
    touched_B = torch.zeros_like(several_B)
    for rows in several_B.nonzero()[:, 0].split(max(1, PAIRS // neg_GK.shape[1])):
        touched_B[rows] = _among(neg_GK[group_of_B[rows]], pos_id_BM[rows], real_BM[rows]).any(1)
    return touched_B


def _first(pos_id_BM: Tensor) -> Tensor:
    """[B, M] whether an id stands there for the first time in its row."""
    same_BMj = pos_id_BM[:, :, None] == pos_id_BM[:, None, :]
    return ~same_BMj.tril(-1).any(2)
