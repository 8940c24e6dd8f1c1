"""Moments of rows in C++ (csrc/score_energy/cpu.cpp): float64 throughout, bitwise the same for any number
of threads."""

from typing import Any

import numpy as np
import torch

from fastpop import _C
from fastpop.kernels import native
from fastpop.kernels.row_moments.reference import Inputs


def unsupported(inputs: Inputs) -> str | None:
    rows = inputs.rows_ND
    if hasattr(rows, "detach") and rows.device.type != "cpu":
        return f"the rows are on {rows.device}"
    return None


def forward(inputs: Inputs) -> tuple[float, np.ndarray, np.ndarray]:
    """(W, mean [R], scatter [R, R]); equals `reference.forward` within rounding."""
    rows, wide = native.rows(inputs.rows_ND)
    num_rows, dim = inputs.rows_ND.shape
    weight_N = None if inputs.weight_N is None else _float64(inputs.weight_N)
    extra_NM = None if inputs.extra_NM is None else np.ascontiguousarray(inputs.extra_NM, np.float64)
    given = {} if rows is None else {"rows": native.matrix(rows)}
    return _C.row_moments(
        **given,
        wide=native.place(wide),
        extra=native.place(extra_NM),
        weight=native.place(weight_N),
        N=num_rows,
        D=dim,
        M=0 if extra_NM is None else extra_NM.shape[1],
        threads=native.threads_for(num_rows * dim * dim),
        path=native.path,
    )


def _float64(value: Any) -> np.ndarray:
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    return np.ascontiguousarray(value, np.float64)
