"""Sums over scores that are never kept, in C++ (csrc/score_energy/cpu.cpp): float32 scores, whose sums are
merged in float64."""

from typing import Any

import numpy as np
import torch

from fastpop import _C
from fastpop.kernels import native
from fastpop.kernels.score_energy.reference import Inputs


def unsupported(inputs: Inputs) -> str | None:
    query = inputs.query_CD
    if hasattr(query, "detach") and query.device.type != "cpu":
        return f"the rows are on {query.device}"
    return None


def forward(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """(sum over items of (s - mean)², of s * direction), [C] each; equals `reference.forward` as far as
    float32 scores do. Cost: 2 C V D FLOPs; memory for C D numbers and one chunk of items a thread."""
    query, items = _single(inputs.query_CD), _single(inputs.item_VD)
    bias_V = None if inputs.bias_V is None else np.ascontiguousarray(inputs.bias_V, np.float32)
    direction_V = np.ascontiguousarray(inputs.direction_V, np.float32)
    (num_rows, dim), num_items = query.shape, items.shape[0]
    return _C.score_energy(
        query=native.matrix(query),
        item=native.matrix(items),
        bias=native.place(bias_V),
        direction=native.place(direction_V),
        C=num_rows,
        V=num_items,
        D=dim,
        scale=inputs.scale,
        cap=inputs.cap,
        path=native.path,
        threads=native.threads_for(2 * num_rows * num_items * dim),
    )


def _single(value: Any) -> torch.Tensor:
    rows, wide = native.rows(value)
    return torch.from_numpy(wide).to(torch.float32) if rows is None else rows
