"""Row-wise optimiser steps on the touched rows of a table: the specification.

Everything happens in place on rows `ids` (unique); no other row, state included, is read or
written. The arithmetic is fp32 (fp64 for fp64 tables), whatever the table's dtype.
"""

import torch
from torch import Tensor


def unsupported(inputs: Tensor) -> str | None:
    return None


def sgd_(table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, lr: float) -> None:
    """table[ids] -= lr * rows."""
    table_VD[ids_n] -= (lr * _wide(rows_nD, table_VD)).to(table_VD.dtype)


def adagrad_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, square_V: Tensor, lr: float, eps: float
) -> None:
    """square[ids] += mean_D(rows²); table[ids] -= lr * rows / (sqrt(square[ids]) + eps)."""
    rows_nD = _wide(rows_nD, table_VD)
    square_n = square_V[ids_n] + rows_nD.square().mean(1)
    square_V[ids_n] = square_n
    step_nD = lr * rows_nD / (square_n.sqrt() + eps)[:, None]
    table_VD[ids_n] = (_wide(table_VD[ids_n], table_VD) - step_nD).to(table_VD.dtype)


def adam_(
    table_VD: Tensor, ids_n: Tensor, rows_nD: Tensor, mean_VD: Tensor, square_V: Tensor,
    step_V: Tensor, lr: float, betas: tuple[float, float], eps: float,
) -> None:
    """Adam with a full first moment, one second moment a row, and a step count a row."""
    rows_nD = _wide(rows_nD, table_VD)
    step_n = step_V[ids_n] + 1
    step_V[ids_n] = step_n
    mean_nD = torch.lerp(mean_VD[ids_n], rows_nD, 1 - betas[0])
    square_n = torch.lerp(square_V[ids_n], rows_nD.square().mean(1), 1 - betas[1])
    mean_VD[ids_n], square_V[ids_n] = mean_nD, square_n
    time_n = step_n.to(rows_nD.dtype)
    mean_hat_nD = mean_nD / (1 - betas[0] ** time_n)[:, None]
    root_n = (square_n / (1 - betas[1] ** time_n)).sqrt() + eps
    step_nD = lr * mean_hat_nD / root_n[:, None]
    table_VD[ids_n] = (_wide(table_VD[ids_n], table_VD) - step_nD).to(table_VD.dtype)


def _wide(tensor: Tensor, table_VD: Tensor) -> Tensor:
    return tensor.to(torch.float64 if table_VD.dtype == torch.float64 else torch.float32)
