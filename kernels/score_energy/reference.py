"""Sums over the scores of a context that are never kept, in plain numpy: the specification.

    s(c, i) = f(scale * <query[c], items[i]> + bias[i]),  f(z) = z, or cap * tanh(z / cap)

What an energy is made of where scores do not factorise; fastpop/ops/energies.py has the rest of it.
"""

from typing import Any, NamedTuple

import numpy as np


class Inputs(NamedTuple):
    """Queries and items, numpy or torch; the unit vector [V] that scores are measured along, float64."""

    query_CD: Any
    item_VD: Any
    direction_V: np.ndarray
    scale: float
    cap: float = 0.0  # 0: scores as they are
    bias_V: np.ndarray | None = None


def unsupported(inputs: Inputs) -> str | None:
    return None


def forward(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """(sum over items of (s - mean)², of s * direction), [C] each, for s = f(scale * q.e + bias), f(z) = z
    or, where cap is not 0, cap * tanh(z / cap). Tiles of float64 scores, on the host."""
    query_CD, item_VD = _float64(inputs.query_CD), _float64(inputs.item_VD)
    bias_V, scale, cap = inputs.bias_V, inputs.scale, inputs.cap
    square_C, along_C = np.empty(len(query_CD)), np.empty(len(query_CD))
    step = max(1, (1 << 21) // len(item_VD))
    for low in range(0, len(query_CD), step):
        rows = slice(low, low + step)
        score_CV = scale * (query_CD[rows] @ item_VD.T)
        if bias_V is not None:
            score_CV += bias_V
        if cap:
            score_CV = cap * np.tanh(score_CV / cap)
        score_CV -= score_CV.mean(1, keepdims=True)
        square_C[rows] = np.square(score_CV).sum(1)
        along_C[rows] = score_CV @ inputs.direction_V
    return square_C, along_C


def _float64(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        return value.detach().cpu().double().numpy()
    return np.asarray(value, np.float64)
