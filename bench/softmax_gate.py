"""No softmax is timed whose loss or gradients differ from float64 by more than rounding."""

import torch
from torch import Tensor

# Largest error allowed: of a loss in nats, and of a gradient as a part of its largest entry.
# A bfloat16 near 16, as losses and log p here are, is rounded by up to 1/16; peers do so up to four times.
TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (0.25, 0.05)}


def check(loss: Tensor, query: Tensor, items: Tensor, case) -> float:
    """Errors of a contender after `loss` went backward; returns the loss's, raises when too large.

    loss: [B], or its sum for a contender that gives no more (judged by its mean row).
    case: holds the truth: loss_B, query_grad, touched (ids) and items_grad (of those ids).
    """
    most_loss, most_grad = TOLERANCE[query.dtype]
    if loss.ndim == 0:
        error = (loss.double() - case.loss_B.sum()).abs().item() / len(case.loss_B)
    else:
        error = (loss.double() - case.loss_B).abs().max().item()
    if not error <= most_loss:
        raise AssertionError(f"loss: expected float64's within {most_loss}; got {error:.3g} off")
    found = {
        "query": (query.grad, case.query_grad),
        "items": (rows_of(items.grad, case.touched), case.items_grad),
    }
    for name, (grad, truth) in found.items():
        off = ((grad.double() - truth).abs().max() / truth.abs().max()).item()
        if not off <= most_grad:
            raise AssertionError(
                f"gradient of {name}: expected float64's within {most_grad} of its "
                f"largest entry; got {off:.3g} off"
            )
    return error


def rows_of(grad: Tensor, ids: Tensor) -> Tensor:
    """grad[ids] for a dense or a sparse gradient; ids sorted."""
    if not grad.is_sparse:
        return grad[ids]
    grad = grad.coalesce()
    rows = torch.zeros(len(ids), grad.shape[1], dtype=grad.dtype, device=grad.device)
    rows[torch.searchsorted(ids, grad.indices()[0])] = grad.values()
    return rows
