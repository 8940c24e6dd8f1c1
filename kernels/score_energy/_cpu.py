"""Moments of rows, and sums over scores that are never kept, in C++ (csrc/score_energy/cpu.cpp).

Moments are float64 throughout, bitwise the same for any number of threads. Scores are float32, their
sums merged in float64.
"""

from typing import Any

import numpy as np
import torch

from fastpop import _C
from fastpop.kernels import native


def unsupported(rows: Any) -> str | None:
    if hasattr(rows, "detach") and rows.device.type != "cpu":
        return f"the rows are on {rows.device}"
    return None


def row_moments(
    rows_ND: Any, weight_N: Any = None, extra_NM: np.ndarray | None = None
) -> tuple[float, np.ndarray, np.ndarray]:
    """(W, mean [R], scatter [R, R]); equals `reference.row_moments` within rounding."""
    rows, wide = _rows(rows_ND)
    num_rows, dim = rows_ND.shape
    weight_N = None if weight_N is None else _float64(weight_N)
    extra_NM = None if extra_NM is None else np.ascontiguousarray(extra_NM, np.float64)
    return _C.row_moments(
        rows=None if rows is None else native.matrix(rows),
        wide=0 if wide is None else wide.ctypes.data,
        extra=0 if extra_NM is None else extra_NM.ctypes.data,
        weight=0 if weight_N is None else weight_N.ctypes.data,
        N=num_rows, D=dim, M=0 if extra_NM is None else extra_NM.shape[1],
        threads=native.threads_for(num_rows * dim * dim), path=native.path)


def score_sums(
    query_CD: Any, item_VD: Any, bias_V: np.ndarray | None, b_V: np.ndarray, scale: float,
    cap: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(sum over items of (s - mean)², of s * b), [C] each; equals `reference.score_sums` as far as
    float32 scores do. Cost: 2 C V D FLOPs; memory for C D numbers and one chunk of items a thread."""
    query, items = _single(query_CD), _single(item_VD)
    return _C.score_sums(
        query=native.matrix(query), item=native.matrix(items),
        bias=None if bias_V is None else np.ascontiguousarray(bias_V, np.float32),
        b_V=np.ascontiguousarray(b_V, np.float32), C=query.shape[0], V=items.shape[0],
        D=query.shape[1], scale=scale, cap=cap, path=native.path,
        threads=native.threads_for(2 * query.shape[0] * items.shape[0] * query.shape[1]))


def _rows(value: Any) -> tuple[torch.Tensor | None, np.ndarray | None]:
    """A float tensor that the kernel reads as it is, or a contiguous float64 array."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype in native.DTYPE_CODES:
            return value, None
        return None, np.ascontiguousarray(value.numpy(), np.float64)
    if value.dtype in (np.float32, np.float16) and value.flags.writeable:
        return torch.from_numpy(value), None
    return None, np.ascontiguousarray(value, np.float64)


def _float64(value: Any) -> np.ndarray:
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    return np.ascontiguousarray(value, np.float64)


def _single(value: Any) -> torch.Tensor:
    rows, wide = _rows(value)
    return torch.from_numpy(wide).to(torch.float32) if rows is None else rows
