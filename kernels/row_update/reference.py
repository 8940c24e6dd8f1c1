"""Row-wise optimiser steps on the touched rows of a table: the specification.

Everything happens in place on rows `ids`, gradients of a repeated id summed first; no other row,
state included, is read or written. The arithmetic is fp32 (fp64 for fp64 tables), whatever the
table's dtype.

    sgd      table[ids] -= lr * rows
    adagrad  square[ids] += mean_D(rows²); table[ids] -= lr * rows / (sqrt(square[ids]) + eps)
    adam     Adam with a full first moment, one second moment per row, and a step count per row

A bfloat16 table may be rounded at random instead of to nearest (rounding_step >= 0): the 16 bits that it has
no place for are added 16 even ones and cut off, so that the mean of what is written is the number itself, and
steps below half of its last place are not lost. Number d of row i takes the low (d even) or high half of word
d % 8 // 2 of Philox with key rounding_seed and counter (d // 8, i, rounding_step lo, hi); this file is given
them.
Source: Gupta et al. 2015, arXiv 1502.02551.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """One step by one rule: the table, the gradients, the rule's state and its numbers."""

    rule: str  # "sgd", "adagrad" or "adam"
    table_VD: Tensor
    ids_n: Tensor
    rows_nD: Tensor
    lr: float
    mean_VD: Tensor | None = None
    square_V: Tensor | None = None
    step_V: Tensor | None = None
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    rounding_seed: int = 0
    rounding_step: int = -1
    summed: bool = False  # ids ascend, and rows of an id after its first are zeros
    found_inf: Tensor | None = None  # 0-d float32: no step where it is not 0
    noise: Callable[[Tensor, int], Tensor] | None = None  # the words, for this file: (ids [n], D) -> [n, D]


def unsupported(inputs: Inputs) -> str | None:
    return None


def forward(inputs: Inputs) -> None:
    """One step, in place. Ids are in range."""
    if inputs.found_inf is not None and inputs.found_inf.item():
        return
    table_VD, (ids_n, rows_nD) = inputs.table_VD, _distinct(inputs)
    if inputs.rule == "sgd":
        step_nD = inputs.lr * rows_nD
    elif inputs.rule == "adagrad":
        step_nD = _adagrad_step(inputs, ids_n, rows_nD)
    else:
        step_nD = _adam_step(inputs, ids_n, rows_nD)
    new_nD = _wide(table_VD[ids_n], table_VD) - step_nD
    if inputs.noise is not None:
        new_nD = _at_random(new_nD, inputs.noise(ids_n, new_nD.shape[1]))
    table_VD[ids_n] = new_nD.to(table_VD.dtype)


def _at_random(row_nD: Tensor, noise_nD: Tensor) -> Tensor:
    """float32 [n, D] that bfloat16 holds exactly. noise_nD: int32 in [0, 2^16)."""
    bits_nD = row_nD.contiguous().view(torch.int32)
    cut_nD = (bits_nD + noise_nD) & -0x10000
    is_finite = (bits_nD & 0x7F800000) != 0x7F800000
    return torch.where(is_finite, cut_nD, bits_nD).view(torch.float32)


def _adagrad_step(inputs: Inputs, ids_n: Tensor, rows_nD: Tensor) -> Tensor:
    square_V = inputs.square_V
    assert square_V is not None
    square_n = square_V[ids_n] + rows_nD.square().mean(1)
    square_V[ids_n] = square_n
    return inputs.lr * rows_nD / (square_n.sqrt() + inputs.eps)[:, None]


def _adam_step(inputs: Inputs, ids_n: Tensor, rows_nD: Tensor) -> Tensor:
    mean_VD, square_V, step_V = inputs.mean_VD, inputs.square_V, inputs.step_V
    assert mean_VD is not None
    assert square_V is not None
    assert step_V is not None
    step_n = step_V[ids_n] + 1
    step_V[ids_n] = step_n
    mean_nD = torch.lerp(mean_VD[ids_n], rows_nD, 1 - inputs.beta1)
    square_n = torch.lerp(square_V[ids_n], rows_nD.square().mean(1), 1 - inputs.beta2)
    mean_VD[ids_n], square_V[ids_n] = mean_nD, square_n
    # In float64: 1 - 0.999 in float32 is off by 3e-5 of itself.
    first_n, second_n = (
        (1 - beta ** step_n.to(torch.float64)).to(rows_nD.dtype) for beta in (inputs.beta1, inputs.beta2)
    )
    mean_hat_nD = mean_nD / first_n[:, None]
    root_n = (square_n / second_n).sqrt() + inputs.eps
    return inputs.lr * mean_hat_nD / root_n[:, None]


def _distinct(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The ids, each once, and the wide sums of their rows."""
    ids_n, rows_nD = inputs.ids_n, _wide(inputs.rows_nD, inputs.table_VD)
    ascending = ids_n.numel() < 2 or bool((ids_n[1:] > ids_n[:-1]).all())
    if ascending:
        return ids_n, rows_nD
    size = (int(ids_n.max()) + 1, rows_nD.shape[1])
    summed = torch.sparse_coo_tensor(ids_n[None], rows_nD, size, check_invariants=False).coalesce()
    return summed.indices()[0], summed.values()


def _wide(tensor: Tensor, table_VD: Tensor) -> Tensor:
    return tensor.to(torch.float64 if table_VD.dtype == torch.float64 else torch.float32)
