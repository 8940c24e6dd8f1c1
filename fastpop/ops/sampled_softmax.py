"""Sampled softmax with the popularity prior and the sampling correction as separate terms."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels.sampled_softmax.reference import Inputs, Needs
from fastpop.ops import _dispatch, _door
from fastpop.popularity import Draw
from fastpop.types import Hits, Impl, LogQ, Reduction


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
    hits: Hits | None = None,
    group_size: int | None = None,
    exclude_own_slot: bool = False,
    row_weight: Tensor | None = None,
    ignore_index: int = -100,
    sparse_grad: bool = False,
    reduction: Reduction = "none",
    impl: Impl = "auto",
) -> Tensor:
    """logsumexp(cat([z_pos, z_neg], 1), 1) - z_pos, without the [B, 1 + K] logits.

    With z(b, i) = scale * <query[b], items[i]> + prior_weight * log_prior[i]:

    - logq="standard": every candidate, the positive too, gets - log q(i) (K cancels);
      consistent with the full softmax over z, exact when negatives are the catalogue.
    - logq="corrected": negatives get - log(K q(i)), the positive nothing, because it is there
      with probability one. Accidental hits are dropped. K is the number drawn.
    - logq="none": z as it is. Learns z - log q, not z.

    scale multiplies the dot product only, never log_prior or log_proposal.

    Args:
        query: [B, D] float16, bfloat16, float32 or float64.
        items: [V, D], same device; the dtype may differ from query's (float64 goes with float64).
        pos_id: [B] int64 in [0, V), or [B, M] for rows with several positives: a row's loss is
            the mean over its entries that are not `ignore_index`.
        neg_id: int64 in [0, V): [K] shared by all rows; [G, K] with `group_size`, row b reading
            group b // group_size; [B, K] a set for each row; or a `fastpop.Draw`. Drawn with
            replacement; repeats count each time.
        log_prior: [V] nats, or None. -inf removes an item; a removed positive has loss +inf and
            gives no gradient. Need not be normalised.
        prior_weight: τ. 0 ignores log_prior entirely. May be a learned one-element tensor.
        log_proposal: [V] nats, log q(i) of the law that the negatives were drawn from: a
            probability, not an expected count. Required unless logq="none" (a Draw brings its
            own). Takes no gradient.
        scale: inverse temperature, > 0. May be a learned one-element tensor.
        hits: negatives equal to the row's positive: "keep" (default with "standard" and "none")
            or "drop" (the only choice with "corrected").
        group_size: rows per group of a [G, K] neg_id; G = ceil(B / group_size).
        exclude_own_slot: row b ignores negative b of a shared neg_id, K >= B: in-batch negatives,
            whose first B entries are the rows' own positives. Other rows' equal ids stay.
        row_weight: [B] multiplies each row's loss.
        ignore_index: rows with this pos_id have loss 0 and do not count in the mean.
        sparse_grad: the gradients of items and log_prior are sparse: sorted unique ids.
        reduction: "none" [B], "sum", or "mean" = sum(w loss) / sum(w) over rows that count (0 if
            none does).
        impl: "auto" or a name; a named one runs or raises.
    Returns:
        loss in nats, float32 (float64 for float64 inputs). Differentiable in query, items,
        log_prior, prior_weight and scale, once.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came. Also when a
            positive (logq="standard") or a negative has log_proposal -inf: the proposal that is
            claimed cannot have drawn it.
        NotImplementedError: a named implementation does not take these inputs; lists the reasons.
    Cost: 2 B K D FLOPs forward, 6 B K D backward; O(B + K D) memory beyond inputs for shared
        negatives.
    Source: Jean et al. 2015 (doi 10.3115/v1/P15-1001), Bengio & Senécal 2008; "corrected" is
        arXiv 2507.09331; with log_prior, Menon et al. 2021 and Ren et al. 2020.
    """
    _door.check_query_and_items(query, items)
    num_rows, num_items = query.shape[0], items.shape[0]
    checks.one_of("logq", logq, ("standard", "corrected", "none"))
    checks.one_of("reduction", reduction, ("none", "mean", "sum"))
    drop_hits = _drops_hits(hits, logq)
    pos_id = _door.check_pos_id(pos_id, query, num_items, ignore_index)
    if isinstance(neg_id, Draw):
        if group_size is not None:
            raise checks.wrong("group_size", "None beside a Draw, which has its own", group_size)
        if log_proposal is None and logq != "none":
            dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
            log_proposal = neg_id.proposal.log_proposal_on(query.device, dtype)
        group_size = neg_id.group_size
        neg_id = neg_id.tensor(num_rows, query.device)
        if group_size is None:
            group_size = max(num_rows, 1)
    neg_id = _door.check_ids("neg_id", neg_id, num_items, query)
    neg_id_GK, group_size = _grouped(neg_id, num_rows, group_size)
    if exclude_own_slot and (neg_id_GK.shape[0] != 1 or neg_id_GK.shape[1] < num_rows):
        raise checks.wrong("exclude_own_slot", f"shared negatives [K] with K >= B = {num_rows}",
                           neg_id)
    if exclude_own_slot and pos_id.ndim == 2:
        raise checks.wrong("exclude_own_slot", "one positive a row", pos_id)
    if log_prior is not None:
        log_prior = _door.check_vector("log_prior", log_prior, num_items, query)
    log_proposal = _checked_proposal(log_proposal, logq, pos_id, neg_id_GK, query, num_items,
                                     ignore_index)
    if not isinstance(prior_weight, Tensor) and prior_weight == 0:
        log_prior = None
    prior_weight = _door.scalar("prior_weight", prior_weight, query, positive=False)
    scale = _door.scalar("scale", scale, query, positive=True)
    row_weight = _door.check_row_weight(row_weight, query)

    rows, safe_id_R, counts = _door.rows_for_kernel(query, pos_id, ignore_index)
    if pos_id.ndim == 2:
        group_size *= pos_id.shape[1]
    inputs = Inputs(
        rows, items, safe_id_R, neg_id_GK, log_prior, prior_weight, log_proposal, scale,
        max(group_size, 1), logq, drop_hits, exclude_own_slot,
    )
    module = _dispatch.choose("sampled_softmax", impl, query.device.type, inputs)
    lse, pos_logit = _SampledSoftmax.apply(
        rows, items, log_prior, prior_weight, scale, inputs, module, sparse_grad
    )
    return _door.finish(_door.loss_of(lse, pos_logit), counts, row_weight, reduction)


def _drops_hits(hits: str | None, logq: str) -> bool:
    if hits is None:
        return logq == "corrected"
    checks.one_of("hits", hits, ("keep", "drop"))
    if logq == "corrected" and hits == "keep":
        raise checks.wrong("hits", "'drop' with logq='corrected', which counts the positive once",
                           hits)
    return hits == "drop"


def _grouped(neg_id: Tensor, num_rows: int, group_size: int | None) -> tuple[Tensor, int]:
    """neg_id as [G, K] and the rows per group."""
    if neg_id.ndim not in (1, 2) or neg_id.shape[-1] == 0:
        raise checks.wrong("neg_id", "[K], [G, K] or [B, K] with K >= 1", neg_id)
    if neg_id.ndim == 1:
        if group_size is not None:
            raise checks.wrong("neg_id", "[G, K] when group_size is given", neg_id)
        return neg_id[None], max(num_rows, 1)
    if group_size is None:
        if neg_id.shape[0] != num_rows:
            raise checks.wrong("neg_id", f"[{num_rows}, K], a set for each row (or give "
                               "group_size)", neg_id)
        return neg_id, 1
    checks.number("group_size", group_size, least=1, integer=True)
    num_groups = max(-(-num_rows // group_size), 1)
    if neg_id.shape[0] != num_groups:
        raise checks.wrong("neg_id", f"[{num_groups}, K] for {num_rows} rows in groups of "
                           f"{group_size}", neg_id)
    return neg_id, int(group_size)


def _checked_proposal(
    log_proposal: Any, logq: str, pos_id: Tensor, neg_id_GK: Tensor, query: Tensor, num_items: int,
    ignore_index: int,
) -> Tensor | None:
    if logq == "none":
        return None
    if log_proposal is None:
        raise checks.wrong(
            "log_proposal", f"[V] log q of the negatives for logq={logq!r} (logq='none' leaves "
            "them uncorrected)", None)
    log_proposal = _door.check_vector("log_proposal", log_proposal, num_items, query)
    if log_proposal.requires_grad:
        raise checks.wrong("log_proposal", "a tensor without gradient: it is the sampler's law",
                           "=requires_grad=True")
    if query.device.type == "cpu":
        drawn = [("neg_id", neg_id_GK)]
        if logq == "standard":
            drawn.append(("pos_id", pos_id[pos_id != ignore_index]))
        for name, ids in drawn:
            at_ids = log_proposal[ids.reshape(-1)]
            if at_ids.numel() and not torch.isfinite(at_ids).all():
                bad = int(ids.reshape(-1)[~torch.isfinite(at_ids)][0])
                raise checks.wrong(
                    "log_proposal", f"a finite log q for every id in {name}: the proposal cannot "
                    "draw an item whose log q is -inf", f"={float(log_proposal[bad])} for item {bad}")
    return log_proposal


class _SampledSoftmax(torch.autograd.Function):
    """(lse [B], pos_logit [B]); backward asks the same module for the gradients."""

    @staticmethod
    def forward(ctx, query, items, log_prior, prior_weight, scale, inputs: Inputs,
                module: ModuleType, sparse_grad: bool):
        # Not through `inputs`: only saved tensors are checked for in-place changes.
        with _door.without_autocast(query):
            lse_B, pos_logit_B = module.forward(inputs)
        ctx.save_for_backward(
            query, items, log_prior, prior_weight, scale, inputs.pos_id_B, inputs.neg_id_GK,
            inputs.log_proposal_V, lse_B, pos_logit_B,
        )
        ctx.options = inputs[8:]
        ctx.module, ctx.sparse_grad = module, sparse_grad
        return lse_B, pos_logit_B

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_lse_B, d_pos_B):
        (query, items, log_prior, prior_weight, scale, pos_id_B, neg_id_GK, log_proposal_V,
         lse_B, pos_logit_B) = ctx.saved_tensors
        inputs = Inputs(query, items, pos_id_B, neg_id_GK, log_prior, prior_weight,
                        log_proposal_V, scale, *ctx.options)
        needs = Needs(*ctx.needs_input_grad[:5])
        with _door.without_autocast(query):
            grads = ctx.module.backward(inputs, lse_B, pos_logit_B, d_lse_B, d_pos_B, needs)
        d_query = None if grads.query_BD is None else grads.query_BD.to(query.dtype)
        return (
            d_query,
            _table_gradient(grads.item, items, ctx.sparse_grad),
            _table_gradient(grads.log_prior, log_prior, ctx.sparse_grad),
            grads.prior_weight, grads.scale, None, None, None,
        )


def _table_gradient(rows: tuple[Tensor, Tensor] | None, table: Tensor | None, sparse: bool):
    """(ids, rows) as a gradient of `table`: sparse, or dense with zeros elsewhere."""
    if rows is None or table is None:
        return None
    ids_n, rows_n = rows
    rows_n = rows_n.to(table.dtype)
    if sparse:
        return torch.sparse_coo_tensor(
            ids_n[None], rows_n, table.shape, is_coalesced=True, check_invariants=False
        )
    dense = torch.zeros_like(table, memory_format=torch.contiguous_format)
    dense[ids_n] = rows_n
    return dense
