"""Validation and composition that the softmax ops share: what stands before and after a kernel."""

import os
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import _checked_op, readable

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_query_and_items(
    query: Any, items: Any, items_name: str = "items", *, least_items: int = 1
) -> tuple[Tensor, torch.Size]:
    """(query [B, D], its leading dimensions): rows of [..., D] in order."""
    for name, value in (("query", query), (items_name, items)):
        readable.tensor(name, value)
        if value.dtype not in FLOATS:
            raise checks.wrong_type(name, "float16, bfloat16, float32 or float64", value)
    rows, lead = flat_rows("query", query)
    if items_name == "items":
        checks.shape(items_name, items, ("V", query.shape[-1]))
        if items.shape[0] < least_items:
            raise checks.wrong(items_name, "at least one item", items)
    else:
        checks.shape(items_name, items, tuple(query.shape))
    if query.shape[-1] == 0:
        raise checks.wrong("query", "at least one dimension", query)
    same_device(items_name, items, query)
    if torch.float64 in (query.dtype, items.dtype) and query.dtype != items.dtype:
        raise checks.wrong(
            items_name, f"the dtype of query ({str(query.dtype)[6:]}), as one of the two is float64", items
        )
    return rows, lead


def flat_rows(name: str, rows: Tensor) -> tuple[Tensor, torch.Size]:
    """[..., D] as ([B, D], the leading dimensions), of which there is at least one."""
    if rows.ndim < 2:
        raise checks.wrong(name, "shape [B, D], or [..., D] with leading dimensions", rows)
    return rows.reshape(-1, rows.shape[-1]) if rows.ndim > 2 else rows, rows.shape[:-1]


def real_here(name: str, value: Tensor) -> None:
    """Real numbers, integers too, that can be read."""
    readable.tensor(name, value)
    if value.is_complex() or (value.is_floating_point() and value.dtype not in FLOATS):
        raise checks.wrong_type(name, "real numbers", value)


def same_device(name: str, value: Tensor, query: Tensor, first: str = "query") -> None:
    if value.device != query.device:
        raise checks.wrong(name, f"a tensor on {query.device}, where {first} is", text=f"{value.device}")


def check_ids(
    name: str, ids: Any, num_items: int, query: Tensor, *, ignore_index: int | None = None
) -> Tensor:
    """int64 ids on query's device, in range on the CPU (on CUDA when FASTPOP_CHECK_IDS=1)."""
    readable.tensor(name, ids, "an int64 torch tensor")
    if ids.dtype != torch.int64:
        raise checks.wrong_type(name, "an int64 tensor", ids)
    same_device(name, ids, query)
    if not torch.compiler.is_compiling():
        check_range(name, ids, num_items, ignore_index=ignore_index)
    return ids


def check_range(name: str, ids: Tensor, num_items: int, *, ignore_index: int | None = None) -> None:
    if ids.device.type == "cpu" or os.environ.get("FASTPOP_CHECK_IDS") == "1":
        real = ids if ignore_index is None else ids[ids != ignore_index]
        checks.ids_in_range(name, real, num_items)


def check_found(bad_ids: tuple[int, int], log_prior_V: Tensor | None, log_proposal_V: Tensor | None) -> None:
    """The errors for what a reference's `bad_ids` found."""
    bad_prior_id, bad_proposal_id = bad_ids
    if bad_prior_id >= 0 and log_prior_V is not None:
        raise checks.no_prior(bad_prior_id, float(log_prior_V[bad_prior_id]))
    if bad_proposal_id >= 0 and log_proposal_V is not None:
        raise checks.no_proposal("neg_id", bad_proposal_id, float(log_proposal_V[bad_proposal_id]))


def check_vector(name: str, value: Any, num_items: int, query: Tensor) -> Tensor:
    """A [V] float vector on query's device, fp32 (fp64 beside fp64 queries). Kernels check the
    numbers that they read."""
    readable.tensor(name, value, "a [V] float torch tensor")
    if value.dtype not in FLOATS:
        raise checks.wrong_type(name, "a [V] float tensor", value)
    checks.shape(name, value, (num_items,))
    same_device(name, value, query)
    return value.to(torch.float64 if query.dtype == torch.float64 else torch.float32)


def scalar(name: str, value: Any, query: Tensor, *, positive: bool) -> Tensor:
    """A number or a one-element tensor (which may be learned) as a 0-d tensor."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise checks.wrong(name, "a number or a tensor of one element", value)
        same_device(name, value, query)
        real_here(name, value)
        # As float32, where 1e300 is no finite number and 1e-60 none above 0.
        value = value.reshape(()).to(dtype)
        return check_numbers(name, value, f"a finite number{' > 0' if positive else ''}")
    if positive:
        checks.number(name, value, gt=0)
    else:
        checks.number(name, value)
    if abs(value) > torch.finfo(dtype).max or (positive and value < torch.finfo(dtype).tiny):
        raise checks.wrong(name, f"a number that {str(dtype)[6:]} holds", value)
    # Not torch.tensor, which copies a number to a device and waits for what runs there.
    return torch.full((), float(value), dtype=dtype, device=query.device)


def check_row_weight(row_weight: Any, query: Tensor, lead: torch.Size) -> Tensor | None:
    """[B] of a row_weight in the leading dimensions of the queries."""
    if row_weight is None:
        return None
    real_here("row_weight", readable.tensor("row_weight", row_weight, "a [B] float torch tensor"))
    checks.shape("row_weight", row_weight, tuple(lead))
    same_device("row_weight", row_weight, query)
    return check_numbers("row_weight", row_weight.reshape(-1), "finite weights >= 0")


def check_numbers(name: str, value: Tensor, rule: str, numbers: Tensor | None = None) -> Tensor:
    """`value`, once its numbers (or those given) have passed a rule: now, or under torch.compile when the
    program runs. Not on a device that would be waited for."""
    numbers = value if numbers is None else numbers
    if value.device.type != "cpu":
        return value
    if torch.compiler.is_compiling():
        return torch.ops.fastpop.checked(value, numbers, name, rule)
    _checked_op.check(name, numbers, rule)
    return value


def can_read(tensor: Tensor) -> bool:
    """Whether the numbers are at hand: not on a device that would be waited for, nor while tracing."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def without_autocast(tensor: Tensor) -> torch.autocast:
    """Inside an op autocast is off: accumulation is fp32 whatever the caller's region says."""
    return torch.autocast(tensor.device.type, enabled=False)


def loss_of(lse_B: Tensor, pos_logit_B: Tensor) -> Tensor:
    """lse - pos_logit, and +inf (never NaN) where the positive itself is removed."""
    removed_B = pos_logit_B == -torch.inf
    return torch.where(removed_B, torch.inf, lse_B - torch.where(removed_B, 0, pos_logit_B))


def check_pos_id(
    pos_id: Any,
    query: Tensor,
    lead: torch.Size,
    num_items: int,
    ignore_index: int | None,
    padding_idx: int | None = None,
) -> tuple[Tensor, torch.Size]:
    """([B] or [B, M] ids, their shape as it came): one positive a query, or M of them. The padding row is
    nobody's positive: such entries are ignored."""
    if padding_idx is not None:
        checks.number("padding_idx", padding_idx, ge=0, le=num_items - 1, integer=True)
    if ignore_index is None and padding_idx is not None:
        raise checks.wrong("ignore_index", "an id that stands for none, beside padding_idx", None)
    if ignore_index is not None:
        checks.number("ignore_index", ignore_index, integer=True)
    pos_id = check_ids("pos_id", pos_id, num_items, query, ignore_index=ignore_index)
    if pos_id.shape[: len(lead)] != lead or pos_id.ndim > len(lead) + 1:
        shape = ", ".join(map(str, lead))
        raise checks.wrong("pos_id", f"shape [{shape}] or [{shape}, M]", pos_id)
    if padding_idx is not None:
        pos_id = torch.where(pos_id == padding_idx, ignore_index, pos_id)  # type: ignore[arg-type]
    flat = pos_id.reshape(-1) if pos_id.ndim == len(lead) else pos_id.reshape(-1, pos_id.shape[-1])
    return flat, pos_id.shape


def autocast_query(query: Tensor) -> Tensor:
    if torch.is_autocast_enabled(query.device.type) and query.dtype != torch.float64:
        return query.to(torch.get_autocast_dtype(query.device.type))
    return query


# Rows that share their negatives: for fewer the products are no matrix products, and their kernels read rows
# as they are.
FEW_ROWS = 8


def rounds_items(query: Tensor, items: Tensor, group_size: int) -> bool:
    """Whether autocast has rows of items rounded as well, those that are read: its dtype is the products'."""
    kind = query.device.type
    return (
        torch.is_autocast_enabled(kind)
        and items.dtype == torch.float32
        and torch.get_autocast_dtype(kind) != torch.float32
        and query.dtype != torch.float64
        and group_size > FEW_ROWS
    )


def rows_for_kernel(query: Tensor, pos_id: Tensor) -> Tensor:
    """One query row per positive. Under autocast the query is cast, and no table is: that of 1e7 rows costs
    more than a step (`rounds_items` is of rows that are read)."""
    return autocast_query(query.repeat_interleave(pos_id.shape[1], 0) if pos_id.ndim == 2 else query)


def without_padding(
    log_prior: Tensor | None,
    prior_weight: float | Tensor,
    padding_idx: int | None,
    num_items: int,
    query: Tensor,
) -> tuple[Tensor | None, float | Tensor]:
    """(log_prior, prior_weight) that remove the table's padding row beside what they removed before.
    O(V), and nothing without a padding row."""
    if padding_idx is None:
        return log_prior, prior_weight
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    if (
        log_prior is not None
        and can_read(query)
        and log_prior[padding_idx] == -torch.inf
        and not isinstance(prior_weight, Tensor)
    ):
        return log_prior, prior_weight
    removed_V = torch.zeros(num_items, dtype=dtype, device=query.device)
    removed_V[padding_idx] = -torch.inf
    if log_prior is None:
        return removed_V, 1.0
    if isinstance(prior_weight, Tensor):
        # Which may be 0 and then ignores log_prior, but not the padding row.
        weight = scalar("prior_weight", prior_weight, query, positive=False)
        gone_V = log_prior == -torch.inf
        term_V = weight * torch.where(gone_V, 0, log_prior)
        log_prior = torch.where(gone_V & (weight != 0), -torch.inf, term_V)
        prior_weight = 1.0
    # A sum, through which a sparse gradient passes as it is.
    return log_prior + removed_V, prior_weight


def shapes_are_fixed() -> bool:
    """Whether shapes may not depend on values: under torch.compile and CUDA graph capture."""
    return torch.compiler.is_compiling() or (
        torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    )


def refuse_second_derivative(operator: Any, op: str) -> None:
    """Of an operator that makes gradients."""

    def refuse(*_: Any) -> None:
        raise NotImplementedError(
            f"fastpop.ops.{op} is differentiable once; expected no derivative of its "
            "gradient (a backward through what create_graph=True made)"
        )

    operator.register_autograd(refuse)


def counted(pos_id: Tensor, ignore_index: int | None) -> Tensor | None:
    """Which entries count; None: all, of one positive a row."""
    if ignore_index is not None:
        return pos_id != ignore_index
    return None if pos_id.ndim == 1 else torch.ones_like(pos_id, dtype=torch.bool)


def loss_weights(counts: Tensor | None, row_weight: Tensor | None, reduction: str, like_R: Tensor) -> Tensor:
    """[R] what a kernel row's loss counts in the result: a row's positives share its weight. like: [R] in the
    dtype of the result."""
    dtype = like_R.dtype
    if counts is None:
        weight_R = torch.ones_like(like_R) if row_weight is None else row_weight.to(dtype)
        return _shares(weight_R) if reduction == "mean" else weight_R
    weight_R = counts.to(dtype)
    if counts.ndim == 2:
        weight_R = weight_R / weight_R.sum(1, keepdim=True).clamp(min=1)
        counts = counts.any(1)
    weight_B = counts.to(dtype)
    if row_weight is not None:
        weight_B = weight_B * row_weight.to(dtype)
    if reduction == "mean":
        weight_B = _shares(weight_B)
    # where: an ignored entry stays without weight.
    return torch.where(weight_R == 0, 0, weight_R * weight_B.view(-1, *[1] * (weight_R.ndim - 1))).reshape(-1)


def _shares(weight_B: Tensor) -> Tensor:
    """Of their sum; zeros where that is 0."""
    total = weight_B.sum()
    return weight_B / torch.where(total == 0, 1, total)


def weighted(loss_R: Tensor, weight_R: Tensor) -> Tensor:
    """loss * weight, 0 where the weight is 0: such a row must not turn an infinite loss into NaN."""
    return torch.where(weight_R == 0, 0, loss_R) * weight_R


def finish(loss_R: Tensor, counts: Tensor | None, row_weight: Tensor | None, reduction: str) -> Tensor:
    """Loss of each kernel row -> mean over a row's positives -> weights -> reduction."""
    weighted_R = weighted(loss_R, loss_weights(counts, row_weight, reduction, loss_R))
    if reduction != "none":
        return weighted_R.sum()
    several = counts is not None and counts.ndim == 2
    return weighted_R.view(counts.shape).sum(1) if several else weighted_R  # type: ignore[union-attr]
