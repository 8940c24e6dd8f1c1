"""A second opinion on the softmax ops: every logit written out, autograd for the gradients.
What a gradient may be off by: helpers_budget.py."""

import math
import os

import torch
from torch import Tensor

from fastpop.ops._dispatch import IMPLEMENTATIONS


def implementations_here(op: str) -> list[str]:
    """The implementations that take CPU tensors in this process: Triton's under its interpreter
    only, which test_triton.py starts processes for."""
    elsewhere = {"cuda"} if os.environ.get("TRITON_INTERPRET") == "1" else {"cuda", "triton"}
    return sorted(set(IMPLEMENTATIONS[op]) - elsewhere)


def on(device, inputs: dict) -> dict:
    """The inputs with every tensor on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def on_device(device, function):
    """`function` on a device, its inputs and its result here."""
    return lambda **inputs: function(**on(device, inputs)).cpu()


def dense_sampled_logits(
    query,
    items,
    pos_id,
    neg_id,
    *,
    log_prior=None,
    prior_weight=1.0,
    log_proposal=None,
    scale=1.0,
    logq="standard",
    accidental_hits=None,
    group_size=None,
    exclude_diagonal=False,
    ignore_index=-100,
    **_,
) -> tuple[Tensor, Tensor]:
    """[B, 1 + K] corrected logits, -inf where a negative is dropped, and their ids; the positive comes
    first. pos_id is [B]."""
    num_rows = len(query)
    if neg_id.ndim == 1:
        neg_BK = neg_id.expand(num_rows, -1)
    elif group_size is None:
        neg_BK = neg_id
    else:
        neg_BK = neg_id[torch.arange(num_rows) // group_size]
    pos = torch.where(pos_id != ignore_index, pos_id, 0)
    ids = torch.cat([pos[:, None], neg_BK], 1)
    has_prior = log_prior is not None and not (not isinstance(prior_weight, Tensor) and prior_weight == 0)
    if has_prior:
        items = without_removed(items, log_prior)
    logit = scale * torch.einsum("bd,bkd->bk", query, items[ids])
    if has_prior:
        logit = logit + weighted_prior(log_prior, prior_weight)[ids]
    drawn = neg_BK.shape[1] - int(exclude_diagonal)
    if logq == "standard":
        logit = logit - log_proposal[ids]
    elif logq == "corrected":
        correction = log_proposal[ids] + math.log(drawn) if drawn else log_proposal[ids]
        correction = torch.cat([torch.zeros_like(correction[:, :1]), correction[:, 1:]], 1)
        logit = logit - correction
    gone = torch.zeros_like(logit, dtype=torch.bool)
    if accidental_hits == "drop" or logq == "corrected":
        gone[:, 1:] |= neg_BK == pos[:, None]
    if exclude_diagonal:
        own = torch.arange(num_rows)
        gone[own, 1 + own] = True
    return torch.where(gone, -math.inf, logit), ids


def dense_sampled_losses(query, items, pos_id, neg_id, *, ignore_index=-100, row_weight=None, **options):
    """[B] losses from a [B, 1 + K] logit matrix. pos_id is [B]."""
    logit, _ = dense_sampled_logits(query, items, pos_id, neg_id, ignore_index=ignore_index, **options)
    removed = logit[:, 0] == -math.inf
    safe = torch.where(removed[:, None], torch.zeros_like(logit), logit)
    loss = torch.logsumexp(safe, 1) - safe[:, 0]
    loss = torch.where(removed, math.inf, loss)
    loss = torch.where(pos_id != ignore_index, loss, 0.0)
    if row_weight is not None:
        loss = torch.where(row_weight == 0, 0.0, loss) * row_weight
    return loss


def without_removed(items, log_prior) -> Tensor:
    """Items whose removed rows, which may hold anything, are zeros."""
    return torch.where((log_prior == -math.inf)[:, None], 0, items)


def weighted_prior(log_prior, prior_weight) -> Tensor:
    """prior_weight * log_prior whose gradient is finite where log_prior is -inf."""
    finite = torch.isfinite(log_prior)
    return torch.where(finite, prior_weight * torch.where(finite, log_prior, 0), -math.inf)


def dense_full_logits(query, items, *, log_prior=None, prior_weight=1.0, scale=1.0, **_) -> Tensor:
    """The [B, V] logit matrix."""
    if log_prior is None:
        return scale * (query @ items.T)
    return scale * (query @ without_removed(items, log_prior).T) + weighted_prior(log_prior, prior_weight)


def dense_full_losses(query, items, pos_id, *, label_smoothing=0.0, ignore_index=-100, **options) -> Tensor:
    """[B] losses from the [B, V] logit matrix."""
    logit = dense_full_logits(query, items, **options)
    counts = pos_id != ignore_index
    pos = torch.where(counts, pos_id, 0)
    own = logit.gather(1, pos[:, None])[:, 0]
    removed = own == -math.inf
    loss = torch.where(removed, math.inf, torch.logsumexp(logit, 1) - torch.where(removed, 0, own))
    if label_smoothing:
        kept = torch.isfinite(logit)
        mean = torch.where(kept, logit, 0).sum(1) / kept.sum(1)
        smooth = torch.logsumexp(logit, 1) - mean
        loss = torch.where(removed, math.inf, (1 - label_smoothing) * loss + label_smoothing * smooth)
    return torch.where(counts, loss, 0.0)


def in_dtype(inputs: dict, dtype: torch.dtype) -> dict:
    """Float tensors of at least one dimension cast; the rest as it is."""
    return {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


def upstream_of(loss: Tensor) -> Tensor:
    """The upstream gradient of each loss in these tests: 1, 2, 3, ... over their sum; 0 where it is +inf."""
    weight = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view(loss.shape)
    return torch.where(torch.isfinite(loss), weight / weight.sum().clamp(min=1), 0)


def loss_and_gradients(function, inputs: dict, wanted: tuple[str, ...]) -> tuple[Tensor, dict]:
    """Losses, and gradients of their sum weighted by `upstream_of`, or of the one number that came."""
    leaves = {
        name: value.detach().clone().requires_grad_() if name in wanted else value
        for name, value in inputs.items()
    }
    loss = function(**leaves)
    if loss.requires_grad:
        (torch.where(torch.isfinite(loss), loss, 0) * upstream_of(loss.detach())).sum().backward()
    grads = {}
    for name in wanted:
        grad = leaves[name].grad
        grads[name] = torch.zeros_like(leaves[name]) if grad is None else grad.to_dense()
    return loss.detach(), grads


def assert_as_exact_as_reference(
    got: Tensor, at_dtype: Tensor, truth: Tensor, out_dtype, name: str, largest: float = 0.0
) -> None:
    """err <= 2 (error of plain torch at this dtype + eps max(|truth|, largest)).

    fp64 has no truth above it here: there two orders of summation may differ by rounding, 1e-13
    of the largest number.
    """
    truth = truth.double()
    finite = torch.isfinite(truth)
    assert torch.equal(finite, torch.isfinite(got)), f"{name}: finite where it should not be"
    if not finite.any():
        return
    error = (got.double() - truth)[finite].abs().max().item()
    own = (at_dtype.double() - truth)[finite].abs().max().item()
    scale = max(truth[finite].abs().max().item(), largest)
    allowed = 2 * (own + torch.finfo(out_dtype).eps * scale)
    if out_dtype == torch.float64:
        allowed = 1e-13 * max(scale, 1.0)
    assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"
