"""Sampled softmax on candidate rows that the caller has gathered: for sharded embeddings."""

from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from fastpop import checks, deprecated
from fastpop.ops import readable, validation
from fastpop.ops._counted import NOBODY
from fastpop.ops._sampled_softmax_op import Inputs, Options
from fastpop.ops.sampled_softmax import drops_accidental_hits, reduced
from fastpop.types import AccidentalHits, Impl, LogQ, Reduction


class _Keywords(TypedDict, total=False):
    """Of `gathered_softmax`, but return_lse, which its results depend on."""

    pos_id: Tensor | None
    neg_id: Tensor | None
    pos_log_prior: Tensor | None
    neg_log_prior: Tensor | None
    prior_weight: float | Tensor
    pos_log_proposal: Tensor | None
    neg_log_proposal: Tensor | None
    scale: float | Tensor
    logq: LogQ
    accidental_hits: AccidentalHits | None
    group_size: int | None
    row_weight: Tensor | None
    reduction: Reduction
    impl: Impl


@overload
def gathered_softmax(
    query: Tensor,
    pos_item: Tensor,
    neg_item: Tensor,
    *,
    return_lse: Literal[False] = False,
    **keywords: Unpack[_Keywords],
) -> Tensor: ...
@overload
def gathered_softmax(
    query: Tensor,
    pos_item: Tensor,
    neg_item: Tensor,
    *,
    return_lse: Literal[True],
    **keywords: Unpack[_Keywords],
) -> tuple[Tensor, Tensor]: ...
@overload
def gathered_softmax(
    query: Tensor, pos_item: Tensor, neg_item: Tensor, *, return_lse: bool, **keywords: Unpack[_Keywords]
) -> Tensor | tuple[Tensor, Tensor]: ...
@deprecated.arguments(hits="accidental_hits")
def gathered_softmax(
    query: Tensor,
    pos_item: Tensor,
    neg_item: Tensor,
    *,
    pos_id: Tensor | None = None,
    neg_id: Tensor | None = None,
    pos_log_prior: Tensor | None = None,
    neg_log_prior: Tensor | None = None,
    prior_weight: float | Tensor = 1.0,
    pos_log_proposal: Tensor | None = None,
    neg_log_proposal: Tensor | None = None,
    scale: float | Tensor = 1.0,
    logq: LogQ = "standard",
    accidental_hits: AccidentalHits | None = None,
    group_size: int | None = None,
    row_weight: Tensor | None = None,
    reduction: Reduction = "none",
    return_lse: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """sampled_softmax(query, items, pos_id, neg_id, ...) from items[pos_id] and items[neg_id].

    For tables that live elsewhere (sharded, quantised, on other machines): look the rows up with
    whatever owns them, and give them here; their gradients go back the same way.

    Args:
        query: [B, D] float16, bfloat16, float32 or float64. [..., D] is taken wherever B stands here.
        pos_item: [B, D] the positives' rows; neg_item: [K, D] shared negatives, or [G, K, D] with
            `group_size`, row b reading group b // group_size (group_size=1: a set for each row).
        pos_id, neg_id: int64 [B] and [K] or [G, K], any numbers that tell items apart. Needed to
            drop accidental hits (accidental_hits="drop", logq="corrected"), not used otherwise.
        pos_log_prior, neg_log_prior: log p of each candidate in nats, [B] and [K] or [G, K];
            both or neither.
        pos_log_proposal, neg_log_proposal: log q of each, likewise; the first only for
            logq="standard", neither for logq="none".
        prior_weight, scale, logq, accidental_hits, row_weight, reduction, return_lse, impl: as in
            `sampled_softmax`.
    Returns:
        loss in nats; differentiable in query, pos_item, neg_item, both log priors, prior_weight and
        scale, once.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came.
    Cost: as `sampled_softmax`, and one copy of the candidate rows.
    """
    query, lead = validation.check_query_and_items(query, pos_item, "pos_item")
    num_rows, dim = query.shape
    pos_item = pos_item.reshape(num_rows, dim)
    readable.tensor("neg_item", neg_item)
    checks.one_of("logq", logq, ("standard", "corrected", "none"))
    checks.one_of("reduction", reduction, ("none", "mean", "sum"))
    drop_accidental_hits = drops_accidental_hits(accidental_hits, logq)
    if group_size is None:
        checks.shape("neg_item", neg_item, ("K", dim))
        num_groups, num_negatives, rows_a_group = 1, neg_item.shape[0], max(num_rows, 1)
    else:
        checks.number("group_size", group_size, ge=1, integer=True)
        num_groups, rows_a_group = max(-(-num_rows // group_size), 1), int(group_size)
        checks.shape("neg_item", neg_item, (num_groups, "K", dim))
        num_negatives = neg_item.shape[1]
    if num_negatives == 0:
        raise checks.wrong("neg_item", "K >= 1 negatives", neg_item)
    if neg_item.dtype != pos_item.dtype:
        raise checks.wrong("neg_item", f"{str(pos_item.dtype)[6:]}, as pos_item", neg_item)
    validation.same_device("neg_item", neg_item, query)

    flat = num_groups * num_negatives
    table = torch.cat([pos_item, neg_item.reshape(flat, dim)])
    vectors = {}
    for name, pos, neg, asked in (
        ("log_prior", pos_log_prior, neg_log_prior, None),
        ("log_proposal", pos_log_proposal, neg_log_proposal, logq),
    ):
        vectors[name] = _joined(name, pos, neg, query, lead, neg_item.shape[:-1], asked)
    key = None
    if drop_accidental_hits:
        key = torch.cat(
            [_keys("pos_id", pos_id, lead, query), _keys("neg_id", neg_id, neg_item.shape[:-1], query)]
        )
    log_prior = vectors["log_prior"]
    if not isinstance(prior_weight, Tensor) and prior_weight == 0:
        log_prior = None
    if log_prior is not None:
        for name, part in (("pos_log_prior", slice(num_rows)), ("neg_log_prior", slice(num_rows, None))):
            log_prior = validation.check_numbers(
                name, log_prior, "numbers below +inf, none NaN", log_prior[part]
            )
    place = torch.arange(num_rows + flat, device=query.device)
    row_weight = validation.check_row_weight(row_weight, query, lead)
    inputs = Inputs(
        query_BD=validation.autocast_query(query),
        item_VD=table,
        pos_id_B=place[:num_rows],
        prior_weight=validation.scalar("prior_weight", prior_weight, query, positive=False),
        scale=validation.scalar("scale", scale, query, positive=True),
        num_groups=num_groups,
        num_negatives=num_negatives,
        group_size=rows_a_group,
        neg_id_GK=place[num_rows:].view(num_groups, num_negatives),
        log_prior_V=log_prior,
        log_proposal_V=vectors["log_proposal"],
        key_V=key,
        logq=logq,
        drop_accidental_hits=drop_accidental_hits,
    )
    options = Options(
        ignore_index=NOBODY, impl=impl, sparse_grad=False, fixed_rows=validation.shapes_are_fixed()
    )
    found = reduced(inputs, options, None, row_weight, reduction, return_lse)
    if reduction != "none":
        return found
    return tuple(one.view(lead) for one in found) if return_lse else found.view(lead)


def _joined(
    name: str, pos: Any, neg: Any, query: Tensor, lead: torch.Size, neg_shape: torch.Size, logq: str | None
) -> Tensor | None:
    """One vector over the table's rows; None where the term is not there."""
    for side, value in ((f"pos_{name}", pos), (f"neg_{name}", neg)):
        if value is None:
            continue
        if readable.tensor(side, value, "a float torch tensor").dtype not in validation.FLOATS:
            raise checks.wrong_type(side, "a float tensor", value)
    if name == "log_proposal":
        if logq == "none":
            return None
        if neg is None:
            raise checks.wrong("neg_log_proposal", f"log q of the negatives for logq={logq!r}", None)
        if logq == "standard" and pos is None:
            raise checks.wrong("pos_log_proposal", "log q of the positives for logq='standard'", None)
        if logq == "corrected":
            pos = torch.zeros(lead, dtype=neg.dtype, device=neg.device)  # not read
        if neg.requires_grad or pos.requires_grad:
            raise checks.wrong(
                "log_proposal",
                "tensors without gradient: it is the sampler's distribution",
                text="requires_grad=True",
            )
        pos = validation.check_numbers("pos_log_proposal", pos, "finite log q")
        neg = validation.check_numbers("neg_log_proposal", neg, "finite log q")
    elif (pos is None) != (neg is None):
        raise checks.wrong("pos_log_prior, neg_log_prior", "both or neither", text="only one of them")
    elif pos is None:
        return None
    checks.shape(f"pos_{name}", pos, tuple(lead))
    checks.shape(f"neg_{name}", neg, tuple(neg_shape))
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    for side, value in ((f"pos_{name}", pos), (f"neg_{name}", neg)):
        validation.same_device(side, value, query)
    return torch.cat([pos.to(wide).reshape(-1), neg.to(wide).reshape(-1)])


def _keys(name: str, ids: Any, shape: torch.Size, query: Tensor) -> Tensor:
    if ids is None:
        raise checks.wrong(name, "int64 ids, by which accidental hits are found and dropped", None)
    if readable.tensor(name, ids, "an int64 torch tensor").dtype != torch.int64:
        raise checks.wrong_type(name, "an int64 tensor", ids)
    checks.shape(name, ids, tuple(shape))
    validation.same_device(name, ids, query)
    return ids.reshape(-1)
