"""Softmax cross-entropy over the whole catalogue with the popularity prior as its own term."""

from typing import Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import _positives, _vocab_parallel, row_shard, validation
from fastpop.ops._counted import NOBODY
from fastpop.ops._full_softmax_op import Inputs, Options  # which registers the operators
from fastpop.ops.row_shard import RowShard
from fastpop.ops.sampled_softmax import sampled_softmax
from fastpop.types import Impl, Reduction


class _Keywords(TypedDict, total=False):
    """Of `full_softmax`, but return_lse, which its results depend on."""

    log_prior: Tensor | None
    prior_weight: float | Tensor
    scale: float | Tensor
    label_smoothing: float
    row_weight: Tensor | None
    ignore_index: int | None
    padding_idx: int | None
    mask_positives: bool
    reduction: Reduction
    shard: RowShard | None
    impl: Impl


@overload
def full_softmax(
    query: Tensor,
    items: Tensor,
    pos_id: Tensor,
    *,
    return_lse: Literal[False] = False,
    **keywords: Unpack[_Keywords],
) -> Tensor: ...
@overload
def full_softmax(
    query: Tensor, items: Tensor, pos_id: Tensor, *, return_lse: Literal[True], **keywords: Unpack[_Keywords]
) -> tuple[Tensor, Tensor]: ...
@overload
def full_softmax(
    query: Tensor, items: Tensor, pos_id: Tensor, *, return_lse: bool, **keywords: Unpack[_Keywords]
) -> Tensor | tuple[Tensor, Tensor]: ...
def full_softmax(
    query: Tensor,
    items: Tensor,
    pos_id: Tensor,
    *,
    log_prior: Tensor | None = None,
    prior_weight: float | Tensor = 1.0,
    scale: float | Tensor = 1.0,
    label_smoothing: float = 0.0,
    row_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    padding_idx: int | None = None,
    mask_positives: bool = False,
    reduction: Reduction = "none",
    return_lse: bool = False,
    shard: RowShard | None = None,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """cross_entropy(scale * query @ items.T + prior_weight * log_prior, pos_id), no [B, V] logits.

    Args:
        query: [B, D] float16, bfloat16, float32 or float64. [..., D] is taken wherever B stands here:
            [B, L, D] with pos_id, row_weight and losses [B, L], say.
        items: [V, D], same device; the dtype may differ from query's (float64 goes with float64).
        pos_id: [B] int64 in [0, V), or [B, M] for rows with several positives: a row's loss is
            the mean over its entries that are not `ignore_index`.
        log_prior: [V] nats, or None. -inf removes an item; a removed positive has loss +inf and
            gives no gradient. Need not be normalised.
        prior_weight: τ. 0 ignores log_prior entirely. May be a learned one-element tensor.
        scale: inverse temperature of the dot product, > 0. May be a learned one-element tensor.
        label_smoothing: ε in [0, 1): the target is 1 - ε on the positive plus ε spread evenly
            over the items that are not removed.
        row_weight: [B] multiplies each row's loss.
        ignore_index: rows with this pos_id have loss 0 and do not count in the mean. They cost nothing on
            the CPU: the others have the bits that they have without them.
            None: every row counts, and none is looked for, which saves a GPU ten small launches.
        padding_idx: a row of items that is no item: as if log_prior were -inf there (no gradient, in no
            sum), and a pos_id equal to it is ignored.
        mask_positives: of rows with several positives: whether a row's other positives are left out of
            each one's sum, as they are no negatives of it. Not beside label_smoothing, nor under
            torch.compile. Costs V ids for each positive beside which the others have more than half of the
            probability.
        reduction: "none" [B], "sum", or "mean" = sum(w loss) / sum(w) over rows that count (0 if
            none does).
        return_lse: also the rows' log-sum-exp in the shape of pos_id (0 where it is ignored),
            differentiable: for a z-loss, loss + 1e-4 * lse.square().mean().
        shard: items are this process's rows of a catalogue that several share; log_prior is of these rows, or
            of all. A DTensor with Shard(0) says so itself: then each process brings queries of its own.
            docs/distributed.md.
        impl: "auto" or a name; a named one runs or raises.
    Returns:
        loss in nats, float32 (float64 for float64 inputs). Differentiable in query, items,
        log_prior, prior_weight and scale, once. With return_lse, (loss, lse).
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came.
        NotImplementedError: a named implementation does not take these inputs; lists the reasons.
    Cost: 2 B V D FLOPs forward, 6 B V D backward; O(B) memory and one tile of logits.
    Source: logit-adjusted loss, Menon et al. 2021 (arXiv 2007.07314); balanced softmax, Ren et
        al. 2020 (arXiv 2007.10740), both at prior_weight 1.
    """
    items, shard = row_shard.part_of(items, shard, "each")
    query, lead = validation.check_query_and_items(query, items, least_items=int(shard is None))
    num_items, num_here = items.shape[0] if shard is None else shard.num_items, items.shape[0]
    checks.one_of("reduction", reduction, ("none", "mean", "sum"))
    checks.number("label_smoothing", label_smoothing, ge=0)
    if label_smoothing >= 1:
        raise checks.wrong("label_smoothing", "a number in [0, 1)", label_smoothing)
    pos_id, pos_shape = validation.check_pos_id(pos_id, query, lead, num_items, ignore_index, padding_idx)
    if mask_positives and pos_id.ndim == 2:
        if shard is not None:
            raise checks.wrong("mask_positives", "False beside a catalogue in parts", True)
        if label_smoothing:
            raise checks.wrong("label_smoothing", "0 beside mask_positives", label_smoothing)
        loss, lse = _positives.full(
            full_softmax,
            sampled_softmax,
            query,
            items,
            pos_id,
            ignore_index=NOBODY if ignore_index is None else ignore_index,
            log_prior=log_prior,
            prior_weight=prior_weight,
            scale=scale,
            padding_idx=padding_idx,
            impl=impl,
        )
        weight_B = validation.check_row_weight(row_weight, query, lead)
        loss = validation.finish(loss, validation.counted(pos_id, ignore_index), weight_B, reduction)
        if reduction == "none":
            loss = loss.view(lead)
        return (loss, lse.view(pos_shape)) if return_lse else loss
    own_query, own_scale = query, scale
    if shard is not None:
        log_prior = row_shard.vector_of("log_prior", log_prior, shard, num_here)
        query, scale, prior_weight = _vocab_parallel.shared(shard, query, scale, prior_weight)
        padding_idx = shard.place_of(padding_idx, num_here)
    if log_prior is not None:
        log_prior = validation.check_vector("log_prior", log_prior, num_here, query)
    if not isinstance(prior_weight, Tensor) and prior_weight == 0:
        log_prior = None
    log_prior, prior_weight = validation.without_padding(
        log_prior, prior_weight, padding_idx, num_here, query
    )
    prior_weight = validation.scalar("prior_weight", prior_weight, query, positive=False)
    scale = validation.scalar("scale", scale, query, positive=True)
    row_weight = validation.check_row_weight(row_weight, query, lead)

    rows, counts = validation.rows_for_kernel(query, pos_id), validation.counted(pos_id, ignore_index)
    inputs = Inputs(
        query_BD=rows,
        item_VD=items,
        pos_id_B=pos_id.reshape(-1),
        prior_weight=prior_weight,
        scale=scale,
        log_prior_V=log_prior,
    )
    ignored = NOBODY if ignore_index is None else ignore_index
    options = Options(ignore_index=ignored, impl=impl, check_ids=torch.compiler.is_compiling())
    if shard is None:
        lse, pos_logit = torch.ops.fastpop.full_softmax_forward(*inputs, *options)
    else:
        lse, pos_logit = _vocab_parallel.full_forward(inputs, options, shard, _all_of(counts, pos_id))
    loss = validation.loss_of(lse, pos_logit)
    if label_smoothing:
        with validation.without_autocast(query):
            if shard is None:
                mean_B = _mean_logit(_real(rows, counts), items, log_prior, prior_weight, scale)
            else:
                scale = validation.scalar("scale", own_scale, query, positive=True)
                own_rows = _real(validation.rows_for_kernel(own_query, pos_id), counts)
                mean_B = _vocab_parallel.mean_logit(own_rows, items, log_prior, prior_weight, scale, shard)
        smooth = lse - mean_B.to(lse.dtype)
        # A removed positive stays at +inf, also where everything else is removed and smooth is -inf.
        mixed = (1 - label_smoothing) * loss + label_smoothing * smooth
        loss = torch.where(loss == torch.inf, loss, mixed)
    loss = validation.finish(loss, counts, row_weight, reduction)
    if reduction == "none":
        loss = loss.view(lead)
    return (loss, lse.view(pos_shape)) if return_lse else loss


def _all_of(counts: Tensor | None, pos_id: Tensor) -> Tensor:
    return torch.ones_like(pos_id, dtype=torch.bool) if counts is None else counts


def _real(rows: Tensor, counts: Tensor | None) -> Tensor:
    """Zeros in place of ignored rows, which may hold anything."""
    return rows if counts is None else torch.where(counts.reshape(-1, 1), rows, 0)


def _mean_logit(
    query: Tensor, items: Tensor, log_prior: Tensor | None, prior_weight: Tensor, scale: Tensor
) -> Tensor:
    """Mean over the catalogue of z(b, i), items removed by the prior left out: O(VD), no logits."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    if log_prior is None:
        return scale * (query.to(dtype) @ items.mean(0, dtype=dtype))
    kept_V = torch.isfinite(log_prior) | (prior_weight == 0)
    num_kept = kept_V.sum().clamp(min=1)
    mean_item_D = torch.where(kept_V[:, None], items, 0).to(dtype).sum(0) / num_kept
    term_V = prior_weight * torch.where(torch.isfinite(log_prior), log_prior, 0)
    mean_prior = torch.where(kept_V, term_V, 0).sum() / num_kept
    return scale * (query.to(dtype) @ mean_item_D) + mean_prior
