"""Row-wise optimiser steps on the touched rows of a table: the specification.

Everything happens in place on rows `ids`, gradients of a repeated id summed first; no other row,
state included, is read or written. The arithmetic is fp32 (fp64 for fp64 tables), whatever the
table's dtype.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels.sampled_softmax.reference import sum_duplicates


class Inputs(NamedTuple):
    """What decides whether an implementation runs: the table, the gradients, the rule's state."""

    table_VD: Tensor
    rows_nD: Tensor
    mean_VD: Tensor | None = None
    square_V: Tensor | None = None
    step_V: Tensor | None = None


def unsupported(inputs: Inputs) -> str | None:
    return None


def sgd_(table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, lr: float) -> None:
    """table[ids] -= lr * rows."""
    ids_n, rows_nD = _distinct(table_VD, ids_n, rows_nD)
    table_VD[ids_n] = (_wide(table_VD[ids_n], table_VD) - lr * rows_nD).to(table_VD.dtype)


def adagrad_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, square_V: Tensor, lr: float, eps: float
) -> None:
    """square[ids] += mean_D(rows²); table[ids] -= lr * rows / (sqrt(square[ids]) + eps)."""
    ids_n, rows_nD = _distinct(table_VD, ids_n, rows_nD)
    square_n = square_V[ids_n] + rows_nD.square().mean(1)
    square_V[ids_n] = square_n
    step_nD = lr * rows_nD / (square_n.sqrt() + eps)[:, None]
    table_VD[ids_n] = (_wide(table_VD[ids_n], table_VD) - step_nD).to(table_VD.dtype)


def adam_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, mean_VD: Tensor, square_V: Tensor,
    step_V: Tensor, lr: float, betas: tuple[float, float], eps: float,
) -> None:
    """Adam with a full first moment, one second moment a row, and a step count a row."""
    ids_n, rows_nD = _distinct(table_VD, ids_n, rows_nD)
    step_n = step_V[ids_n] + 1
    step_V[ids_n] = step_n
    mean_nD = torch.lerp(mean_VD[ids_n], rows_nD, 1 - betas[0])
    square_n = torch.lerp(square_V[ids_n], rows_nD.square().mean(1), 1 - betas[1])
    mean_VD[ids_n], square_V[ids_n] = mean_nD, square_n
    # In float64: 1 - 0.999 in float32 is off by 3e-5 of itself.
    first_n, second_n = (
        (1 - beta ** step_n.to(torch.float64)).to(rows_nD.dtype) for beta in betas)
    mean_hat_nD = mean_nD / first_n[:, None]
    root_n = (square_n / second_n).sqrt() + eps
    step_nD = lr * mean_hat_nD / root_n[:, None]
    table_VD[ids_n] = (_wide(table_VD[ids_n], table_VD) - step_nD).to(table_VD.dtype)


def _distinct(table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor) -> tuple[Tensor, Tensor]:
    """The ids, each once, and the wide sums of their rows. Ids are range-checked on the CPU."""
    if ids_n.device.type == "cpu":
        checks.ids_in_range("ids", ids_n, table_VD.shape[0])
    rows_nD = _wide(rows_nD, table_VD)
    ascending = ids_n.numel() < 2 or bool((ids_n[1:] > ids_n[:-1]).all())
    return (ids_n, rows_nD) if ascending else sum_duplicates(ids_n, rows_nD)


def _wide(tensor: Tensor, table_VD: Tensor) -> Tensor:
    return tensor.to(torch.float64 if table_VD.dtype == torch.float64 else torch.float32)
