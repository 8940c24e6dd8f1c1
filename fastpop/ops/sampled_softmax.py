"""Sampled softmax with the popularity prior and the sampling correction as separate terms."""

from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from fastpop import checks, deprecated
from fastpop.ops import _positives, _vocab_parallel, row_shard, validation
from fastpop.ops._counted import NOBODY
from fastpop.ops._sampled_softmax_op import SIGNATURE, Inputs, Options  # which registers the operators
from fastpop.ops.draw import Draw
from fastpop.ops.row_shard import RowShard
from fastpop.types import AccidentalHits, Impl, LogQ, Reduction


class _Keywords(TypedDict, total=False):
    """Of `sampled_softmax`, but return_lse, which its results depend on."""

    log_prior: Tensor | None
    prior_weight: float | Tensor
    log_proposal: Tensor | None
    scale: float | Tensor
    logq: LogQ
    accidental_hits: AccidentalHits | None
    group_size: int | None
    exclude_diagonal: bool
    row_weight: Tensor | None
    ignore_index: int | None
    padding_idx: int | None
    mask_positives: bool
    sparse_grad: bool
    reduction: Reduction
    shard: RowShard | None
    impl: Impl


@overload
def sampled_softmax(
    query: Tensor,
    items: Tensor,
    pos_id: Tensor,
    neg_id: Tensor | Draw,
    *,
    return_lse: Literal[False] = False,
    **keywords: Unpack[_Keywords],
) -> Tensor: ...
@overload
def sampled_softmax(
    query: Tensor,
    items: Tensor,
    pos_id: Tensor,
    neg_id: Tensor | Draw,
    *,
    return_lse: Literal[True],
    **keywords: Unpack[_Keywords],
) -> tuple[Tensor, Tensor]: ...
@overload
def sampled_softmax(
    query: Tensor,
    items: Tensor,
    pos_id: Tensor,
    neg_id: Tensor | Draw,
    *,
    return_lse: bool,
    **keywords: Unpack[_Keywords],
) -> Tensor | tuple[Tensor, Tensor]: ...
@deprecated.arguments(hits="accidental_hits", exclude_own_slot="exclude_diagonal")
def sampled_softmax(
    query: Tensor,
    items: Tensor,
    pos_id: Tensor,
    neg_id: Tensor | Draw,
    *,
    log_prior: Tensor | None = None,
    prior_weight: float | Tensor = 1.0,
    log_proposal: Tensor | None = None,
    scale: float | Tensor = 1.0,
    logq: LogQ = "standard",
    accidental_hits: AccidentalHits | None = None,
    group_size: int | None = None,
    exclude_diagonal: bool = False,
    row_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    padding_idx: int | None = None,
    mask_positives: bool = False,
    sparse_grad: bool = False,
    reduction: Reduction = "none",
    return_lse: bool = False,
    shard: RowShard | None = None,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """logsumexp(cat([z_pos, z_neg], 1), 1) - z_pos, without the [B, 1 + K] logits.

    With z(b, i) = scale * <query[b], items[i]> + prior_weight * log_prior[i]:

    - logq="standard": every candidate, the positive too, gets - log q(i) (K cancels);
      consistent with the full softmax over z, exact when negatives are the catalogue. With
      accidental_hits="keep" and negatives drawn from q the expected loss is least at
      z = log p(i|c) + const for every K.
    - logq="corrected": negatives get - log(K q(i)), the positive nothing, because it is there
      with probability one. Accidental hits are dropped. K is the number of candidates per row: one less with
      exclude_diagonal. Biased at small K: enumerated
      over catalogues of 3 to 5 items, the z of least expected loss has slope 1.7 to 2.1 on log p(i|c) with
      K = 1 uniform negatives, 1.3 to 1.5 with 2, 1.02 to 1.04 with 16, 1.001 with 256; and slope .5
      with one negative drawn from p itself.
    - logq="none": z as it is. Learns z - log q, not z.

    scale multiplies the dot product only, never log_prior or log_proposal.

    Args:
        query: [B, D] float16, bfloat16, float32 or float64. [..., D] is taken wherever B stands here,
            rows in order: [B, L, D] with pos_id, row_weight and losses [B, L], say.
        items: [V, D], same device; the dtype may differ from query's (float64 goes with float64). Under
            autocast the query is cast, and of a float32 table the rows that are read are rounded likewise,
            unless fewer than nine rows share their negatives; its gradient is float32, and not rounded.
        pos_id: [B] int64 in [0, V), or [B, M] for rows with several positives: a row's loss is
            the mean over its entries that are not `ignore_index`.
        neg_id: int64 in [0, V): [K] shared by all rows; [G, K] with `group_size`, row b reading
            group b // group_size; [B, K] a set for each row; or a `fastpop.Draw`. Drawn with
            replacement; repeats count each time.
        log_prior: [V] nats, or None. -inf removes an item; a removed positive has loss +inf and
            gives no gradient. Need not be normalised.
        prior_weight: τ. 0 ignores log_prior entirely. May be a learned one-element tensor.
        log_proposal: [V] nats, log q(i) of the distribution that the negatives were drawn from: a
            probability, not an expected count. Required unless logq="none" (a Draw brings its
            own). Takes no gradient.
        scale: inverse temperature, > 0. May be a learned one-element tensor.
        accidental_hits: what to do with negatives equal to the row's positive: "keep" (default with
            "standard" and "none") or "drop" (the only choice with "corrected").
        group_size: rows per group of a [G, K] neg_id; G = ceil(B / group_size).
        exclude_diagonal: row b ignores negative b of a shared neg_id, K >= B: the diagonal of in-batch
            negatives, whose first B entries are the rows' own positives. Equal ids of other rows stay.
        row_weight: [B] multiplies each row's loss.
        ignore_index: rows with this pos_id have loss 0 and do not count in the mean. They cost nothing on
            the CPU with shared negatives or ids for each row.
            None: every row counts, and none is looked for, which saves a GPU ten small launches.
        padding_idx: a row of items that is no item: as if log_prior were -inf there (no gradient, in no
            sum, whoever drew it), and a pos_id equal to it is ignored. O(V) more a call.
        mask_positives: of rows with several positives: whether a row's other positives are left out of
            each one's sum, as they are no negatives of it. accidental_hits says what happens to the
            one itself. Costs a set of ids for each of the row's positives, where its negatives hold one
            of them (elsewhere than on the CPU: always).
        sparse_grad: the gradients of items and log_prior are sparse: sorted unique ids.
        reduction: "none" [B], "sum", or "mean" = sum(w loss) / sum(w) over rows that count (0 if
            none does). The last two make loss and gradients in one pass.
        return_lse: also the rows' log-sum-exp in the shape of pos_id (0 where it is ignored),
            differentiable: for a z-loss, loss + 1e-4 * lse.square().mean().
        shard: items are this process's rows of a catalogue that several share; log_prior and log_proposal are
            of these rows, or of all, and all processes give the same neg_id. A DTensor with Shard(0) says so
            itself: then each process brings queries of its own. docs/distributed.md.
        impl: "auto" or a name; a named one runs or raises.
    Returns:
        loss in nats, float32 (float64 for float64 inputs). Differentiable in query, items,
        log_prior, prior_weight and scale, once. With return_lse, (loss, lse).
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came. Also when a
            positive (logq="standard") or a negative has log_proposal -inf: the proposal that is
            claimed cannot have drawn it.
        NotImplementedError: a named implementation does not take these inputs; lists the reasons.
    Cost: 2 B K D FLOPs forward and 6 B K D backward, or 6 B K D in one pass; beyond inputs and
        results O(K D) memory for shared and group negatives, O(B K) for a set for each row. A Draw
        is drawn inside: no [G, K] ids are stored.
    Source: Jean et al. 2015 (doi 10.3115/v1/P15-1001), Bengio & Senécal 2008; "corrected" is
        arXiv 2507.09331; with log_prior, Menon et al. 2021 and Ren et al. 2020.
    """
    if sparse_grad and row_shard.is_dtensor(items):
        raise checks.wrong("sparse_grad", "False with a DTensor table, whose gradient is dense", True)
    items, shard = row_shard.part_of(items, shard, "each")
    query, lead = validation.check_query_and_items(query, items, least_items=int(shard is None))
    num_rows, num_here = query.shape[0], items.shape[0]
    num_items = num_here if shard is None else shard.num_items
    checks.one_of("logq", logq, ("standard", "corrected", "none"))
    checks.one_of("reduction", reduction, ("none", "mean", "sum"))
    drop_accidental_hits = drops_accidental_hits(accidental_hits, logq)
    pos_id, pos_shape = validation.check_pos_id(pos_id, query, lead, num_items, ignore_index, padding_idx)
    if mask_positives and pos_id.ndim == 2:
        if shard is not None:
            raise checks.wrong("mask_positives", "False beside a catalogue in parts", True)
        return _masked(
            query,
            items,
            pos_id,
            neg_id,
            lead,
            pos_shape,
            log_proposal=log_proposal,
            logq=logq,
            drop_accidental_hits=drop_accidental_hits,
            group_size=group_size,
            exclude_diagonal=exclude_diagonal,
            row_weight=row_weight,
            ignore_index=NOBODY if ignore_index is None else ignore_index,
            reduction=reduction,
            return_lse=return_lse,
            log_prior=log_prior,
            prior_weight=prior_weight,
            scale=scale,
            padding_idx=padding_idx,
            sparse_grad=sparse_grad,
            impl=impl,
        )
    counts = validation.counted(pos_id, ignore_index)
    table = counter = None
    merge_repeats = False
    if isinstance(neg_id, Draw):
        draw, neg_id = neg_id, None  # type: ignore[assignment]
        if group_size is not None:
            raise checks.wrong("group_size", "None beside a Draw, which has its own", group_size)
        if draw.proposal.num_items != num_items:
            raise checks.wrong("neg_id", f"a Draw over {num_items} items", draw.proposal)
        if exclude_diagonal:
            raise checks.wrong(
                "exclude_diagonal", "False with a Draw, which has no diagonal of positives", True
            )
        if log_proposal is None and logq != "none":
            dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
            log_proposal = draw.proposal.log_proposal_on(query.device, dtype)
        table, counter = draw.proposal.table_on(query.device), draw.counter_on(query.device)
        num_groups, num_negatives = max(draw.num_groups(num_rows), 1), int(draw.num_negatives)
        one_group = draw.group_size is None
        merge_repeats = one_group and _repeats_cost(draw, query)
        group_size = draw.group_size or max(num_rows, 1)
    else:
        neg_id = validation.check_ids("neg_id", neg_id, num_items, query)
        is_shared = neg_id.ndim == 1
        neg_id, group_size = _grouped(neg_id, lead, num_rows, group_size)
        num_groups, num_negatives = neg_id.shape
        one_group = num_groups == 1
        if shard is not None and shard.queries == "each" and (exclude_diagonal or not is_shared):
            raise checks.wrong(
                "neg_id",
                "shared negatives [K] or a Draw, without exclude_diagonal, where processes bring own queries",
                neg_id,
            )
    if exclude_diagonal and (num_groups != 1 or num_negatives < num_rows):
        raise checks.wrong(
            "exclude_diagonal",
            f"shared negatives [K] with K >= B = {num_rows}",
            text=f"[{num_groups}, {num_negatives}]",
        )
    if exclude_diagonal and pos_id.ndim == 2:
        raise checks.wrong("exclude_diagonal", "one positive a row", pos_id)
    if shard is not None:
        log_prior = row_shard.vector_of("log_prior", log_prior, shard, num_here)
        log_proposal = row_shard.vector_of("log_proposal", log_proposal, shard, num_here)
        query, scale, prior_weight = _vocab_parallel.shared(shard, query, scale, prior_weight)
        padding_idx = shard.place_of(padding_idx, num_here)
    if log_prior is not None:
        log_prior = validation.check_vector("log_prior", log_prior, num_here, query)
    log_proposal = _checked_proposal(log_proposal, logq, query, num_here)
    if log_proposal is not None and padding_idx is not None and neg_id is not None:
        log_proposal = _with_padding(log_proposal, padding_idx)
    if log_proposal is not None and logq == "standard" and shard is None:
        pos_id = _drawable(pos_id, log_proposal, counts)
    if not isinstance(prior_weight, Tensor) and prior_weight == 0:
        log_prior = None
    if (
        padding_idx is not None
        and sparse_grad
        and isinstance(prior_weight, Tensor)
        and (log_prior is not None and log_prior.requires_grad)
    ):
        raise checks.wrong(
            "prior_weight", "a number beside padding_idx, sparse_grad and a learned log_prior", prior_weight
        )
    log_prior, prior_weight = validation.without_padding(
        log_prior, prior_weight, padding_idx, num_here, query
    )
    prior_weight = validation.scalar("prior_weight", prior_weight, query, positive=False)
    scale = validation.scalar("scale", scale, query, positive=True)
    row_weight = validation.check_row_weight(row_weight, query, lead)

    if pos_id.ndim == 2:
        group_size *= pos_id.shape[1]
    inputs = Inputs(
        query_BD=validation.rows_for_kernel(query, pos_id),
        item_VD=items,
        pos_id_B=pos_id.reshape(-1),
        prior_weight=prior_weight,
        scale=scale,
        num_groups=num_groups,
        num_negatives=num_negatives,
        group_size=max(group_size, 1),
        neg_id_GK=neg_id,
        table_V2=table,
        counter_2=counter,
        log_prior_V=log_prior,
        log_proposal_V=log_proposal,
        logq=logq,
        drop_accidental_hits=drop_accidental_hits,
        exclude_diagonal=exclude_diagonal,
        round_items=validation.rounds_items(query, items, group_size),
        merge_repeats=merge_repeats,
    )
    options = Options(
        ignore_index=NOBODY if ignore_index is None else ignore_index,
        impl=impl,
        sparse_grad=sparse_grad,
        fixed_rows=validation.shapes_are_fixed(),
    )
    if shard is None:
        found = reduced(inputs, options, counts, row_weight, reduction, return_lse)
    else:
        counts = torch.ones_like(pos_id, dtype=torch.bool) if counts is None else counts
        lse_R, pos_logit_R = _vocab_parallel.sampled_forward(
            inputs, options, shard, counts, one_group=one_group
        )
        loss = validation.finish(validation.loss_of(lse_R, pos_logit_R), counts, row_weight, reduction)
        found = (loss, lse_R) if return_lse else loss
    loss, *lse = found if return_lse else (found,)
    if reduction == "none":
        loss = loss.view(lead)
    return (loss, lse[0].view(pos_shape)) if return_lse else loss


def _masked(
    query: Tensor,
    items: Tensor,
    pos_id: Tensor,
    neg_id: Tensor | Draw,
    lead: torch.Size,
    pos_shape: torch.Size,
    *,
    log_proposal: Tensor | None,
    logq: LogQ,
    drop_accidental_hits: bool,
    group_size: int | None,
    exclude_diagonal: bool,
    row_weight: Tensor | None,
    ignore_index: int,
    reduction: Reduction,
    return_lse: bool,
    **options: Any,
) -> Any:
    """`sampled_softmax` of [B, M] positives whose others are no negatives."""
    if exclude_diagonal:
        raise checks.wrong("exclude_diagonal", "one positive a row", pos_id)
    num_rows = query.shape[0]
    if isinstance(neg_id, Draw):
        if group_size is not None:
            raise checks.wrong("group_size", "None beside a Draw, which has its own", group_size)
        rows_a_group = neg_id.group_size or max(num_rows, 1)
        if log_proposal is None and logq != "none":
            dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
            log_proposal = neg_id.proposal.log_proposal_on(query.device, dtype)
    else:
        neg_id = validation.check_ids("neg_id", neg_id, items.shape[0], query)
        neg_id, rows_a_group = _grouped(neg_id, lead, num_rows, group_size)
    weight_B = validation.check_row_weight(row_weight, query, lead)
    loss, lse = _positives.sampled(
        sampled_softmax,
        query,
        items,
        pos_id,
        neg_id,
        rows_a_group,
        ignore_index=ignore_index,
        keep_hits=not drop_accidental_hits,
        log_proposal=log_proposal,
        logq=logq,
        **options,
    )
    loss = validation.finish(loss, pos_id != ignore_index, weight_B, reduction)
    if reduction == "none":
        loss = loss.view(lead)
    return (loss, lse.view(pos_shape)) if return_lse else loss


def reduced(
    inputs: Inputs,
    options: Options,
    counts: Tensor | None,
    row_weight: Tensor | None,
    reduction: str,
    return_lse: bool,
) -> Any:
    """The loss of the operators' inputs; in one pass with its gradients where that saves work. counts: as
    of `validation.counted`."""
    args = (*inputs, *options)
    needs = SIGNATURE.wanted(args)
    one_pass = reduction != "none" and not return_lse
    if row_weight is not None and row_weight.requires_grad:
        one_pass = False
    # A device is spared the small operators that make a loss of lse, also where no gradient is wanted.
    if one_pass and (any(needs) or inputs.query_BD.device.type != "cpu"):
        like_R = inputs.scale.new_empty(inputs.query_BD.shape[0])
        weight_R = validation.loss_weights(counts, row_weight, reduction, like_R)
        return torch.ops.fastpop.sampled_softmax_loss(*args, weight_R, SIGNATURE.bits(needs))[0]
    lse, pos_logit = torch.ops.fastpop.sampled_softmax_forward(*args)
    loss = validation.finish(validation.loss_of(lse, pos_logit), counts, row_weight, reduction)
    return (loss, lse) if return_lse else loss


# Logits that repeats have to cost a GPU before it looks for them, by the bytes of a query's number: as many
# as it makes, forward and backward, in the time that looking takes. By the model (`least_saved` of
# bench/gpu/costs.py; a test holds these to it) that is three launches of 3 us, and at D = 64 a logit takes
# 0.94 ps in bfloat16 (its floor of 6 D operations at 798 TFLOP/s is 0.48) and 4.8 ps in float32, of three
# times the operations in tf32: 9.6 and 1.9 million, here the powers of two beside them. float64, which no
# tile takes, goes with float32.
# `python bench/gpu_day.py` measures both numbers of a card ("draws that repeat"): put them here.
LEAST_SAVED = {2: 1 << 23, 4: 1 << 21, 8: 1 << 21}


def _repeats_cost(draw: Draw, query: Tensor) -> bool:
    """Whether so many draws are expected to repeat others that to multiply each once pays. Not where it is
    traced: what is asked is the distribution, which a program would have to hold."""
    if torch.compiler.is_compiling():
        return False
    num_draws = int(draw.num_negatives)
    saved = query.shape[0] * (num_draws - draw.proposal.expected_distinct(num_draws))
    return saved >= LEAST_SAVED[query.element_size()]


def drops_accidental_hits(accidental_hits: str | None, logq: str) -> bool:
    if accidental_hits is None:
        return logq == "corrected"
    checks.one_of("accidental_hits", accidental_hits, ("keep", "drop"))
    if logq == "corrected" and accidental_hits == "keep":
        raise checks.wrong(
            "accidental_hits", "'drop' with logq='corrected', which counts the positive once", accidental_hits
        )
    return accidental_hits == "drop"


def _grouped(neg_id: Tensor, lead: torch.Size, num_rows: int, group_size: int | None) -> tuple[Tensor, int]:
    """neg_id as [G, K] and the rows per group."""
    if group_size is None and len(lead) > 1 and neg_id.shape[:-1] == lead:
        neg_id = neg_id.reshape(-1, neg_id.shape[-1])  # a set for each row, in the queries' dimensions
    if neg_id.ndim not in (1, 2) or neg_id.shape[-1] == 0:
        raise checks.wrong("neg_id", "[K], [G, K] or [B, K] with K >= 1", neg_id)
    if neg_id.ndim == 1:
        if group_size is not None:
            raise checks.wrong("neg_id", "[G, K] when group_size is given", neg_id)
        return neg_id[None], max(num_rows, 1)
    if group_size is None:
        if neg_id.shape[0] != num_rows:
            shape = ", ".join(map(str, lead))
            raise checks.wrong("neg_id", f"[{shape}, K], a set for each row (or give group_size)", neg_id)
        return neg_id, 1
    checks.number("group_size", group_size, ge=1, integer=True)
    num_groups = max(-(-num_rows // group_size), 1)
    if neg_id.shape[0] != num_groups:
        raise checks.wrong(
            "neg_id", f"[{num_groups}, K] for {num_rows} rows in groups of {group_size}", neg_id
        )
    return neg_id, int(group_size)


def _checked_proposal(log_proposal: Any, logq: str, query: Tensor, num_items: int) -> Tensor | None:
    """log q as the kernels read it; they check that of the negatives themselves."""
    if logq == "none":
        return None
    if log_proposal is None:
        raise checks.wrong(
            "log_proposal",
            f"[V] log q of the negatives for logq={logq!r} (logq='none' leaves them uncorrected)",
            None,
        )
    log_proposal = validation.check_vector("log_proposal", log_proposal, num_items, query)
    if log_proposal.requires_grad:
        raise checks.wrong(
            "log_proposal",
            "a tensor without gradient: it is the sampler's distribution",
            text="requires_grad=True",
        )
    return log_proposal


def _with_padding(log_proposal: Tensor, padding_idx: int) -> Tensor:
    """log q that is a number at the padding row, where it is not used."""
    if validation.can_read(log_proposal) and torch.isfinite(log_proposal[padding_idx]):
        return log_proposal
    log_proposal = log_proposal.clone()
    log_proposal[padding_idx] = 0
    return log_proposal


def _drawable(pos_id: Tensor, log_proposal: Tensor, counts: Tensor | None) -> Tensor:
    """pos_id, every one of which the proposal can draw."""
    if not torch.compiler.is_compiling() and pos_id.device.type != "cpu":
        return pos_id  # where a positive that it cannot has a loss that is not finite
    counts = torch.ones_like(pos_id, dtype=torch.bool) if counts is None else counts
    if torch.compiler.is_compiling():
        # Out of range ids are refused by the operator itself, later.
        safe_id = torch.where(counts, pos_id, 0).clamp(0, log_proposal.shape[0] - 1)
        numbers = torch.where(counts, log_proposal[safe_id], 0)
        return validation.check_numbers("log_proposal at pos_id", pos_id, "finite log q", numbers)
    ids = pos_id[counts]
    at_ids = log_proposal[ids]
    if not torch.isfinite(at_ids).all():
        bad = int(ids[~torch.isfinite(at_ids)][0])
        raise checks.no_proposal("pos_id", bad, float(log_proposal[bad]))
    return pos_id
