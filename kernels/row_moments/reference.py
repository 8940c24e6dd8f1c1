"""Moments of rows in float64, a block of them at a time: the specification.

    W = sum w, mean = sum w x / W, scatter = sum w (x - mean)(x - mean)ᵀ

Source of the merging of blocks: Chan, Golub & LeVeque 1979.
"""

from typing import Any, NamedTuple

import numpy as np

ROWS = 16384  # converted to float64 at once


class Inputs(NamedTuple):
    """Rows [N, D] (numpy or torch), weights [N] >= 0 (1 each) and further columns [N, M] of them."""

    rows_ND: Any
    weight_N: Any = None
    extra_NM: np.ndarray | None = None


def unsupported(inputs: Inputs) -> str | None:
    return None


def forward(inputs: Inputs) -> tuple[float, np.ndarray, np.ndarray]:
    """(W, mean [R], scatter [R, R]) of the rows [rows, extra], R = D + M, weighted by w (1 each):
    W = sum w, mean = sum w x / W, scatter = sum w (x - mean)(x - mean)ᵀ; float64.

    Torch rows are reduced on their own device (on the host where it has no float64). NaN and inf
    run through to the sums, where callers check for them.
    """
    rows_ND, weight_N, extra_NM = inputs
    found = (0.0, np.zeros(rows_ND.shape[1] + (0 if extra_NM is None else extra_NM.shape[1])))
    total = (*found, np.zeros((len(found[1]), len(found[1]))))
    for low in range(0, len(rows_ND), ROWS):
        x_CR = as_float64(rows_ND[low : low + ROWS])
        if extra_NM is not None:
            x_CR = np.column_stack([on_host(x_CR), extra_NM[low : low + ROWS]])
        given = np.ones(len(x_CR)) if weight_N is None else weight_N[low : low + ROWS]
        w_C = as_float64(given, like=x_CR)
        weight = float(w_C.sum())
        if weight == 0.0:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            mean_R = w_C @ x_CR / weight
            # Rounding of the mean enters the scatter squared: centring once is enough.
            x_CR = x_CR - mean_R
            scatter_RR = x_CR.T @ (x_CR * w_C[:, None])
            total = joined(total, (weight, on_host(mean_R), on_host(scatter_RR)))
    return total


def joined(one: tuple, other: tuple) -> tuple[float, np.ndarray, np.ndarray]:
    """The moments of two sets of rows together."""
    (weight_1, mean_1, scatter_1), (weight_2, mean_2, scatter_2) = one, other
    weight = weight_1 + weight_2
    if weight == 0.0:
        return one
    step_R = mean_2 - mean_1
    between_RR = np.outer(step_R, step_R) * (weight_1 * weight_2 / weight)
    return (
        weight,
        mean_1 + step_R * (weight_2 / weight),
        scatter_1 + (scatter_2 + scatter_2.T) / 2 + between_RR,
    )


def as_float64(value: Any, like: Any = None) -> Any:
    """Numpy or torch as float64 of the kind (and device) of `like`."""
    if like is not None and hasattr(like, "detach") and not hasattr(value, "detach"):
        import torch

        return torch.as_tensor(np.asarray(value, np.float64), device=like.device)
    if hasattr(value, "detach"):
        if like is not None and not hasattr(like, "detach"):
            return value.detach().cpu().double().numpy()
        value = value.detach()
        if value.device.type == "mps":
            value = value.cpu()
        return value.to(device=like.device if like is not None else value.device).double()
    return np.asarray(value, np.float64)


def on_host(value: Any) -> np.ndarray:
    return value.cpu().numpy() if hasattr(value, "cpu") else value
