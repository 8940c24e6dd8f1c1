"""Moments of rows on a CUDA device: a product of D columns in float64, which torch's own does at the device's
speed. So it is the reference's, where Triton's kernels run."""

import torch

from fastpop.kernels import triton_tiles
from fastpop.kernels.row_moments.reference import Inputs
from fastpop.kernels.row_moments.reference import forward as forward


def unsupported(inputs: Inputs) -> str | None:
    if not isinstance(inputs.rows_ND, torch.Tensor):
        return "the rows are not a torch tensor on a CUDA device"
    rows = triton_tiles.singles(inputs.rows_ND)
    return triton_tiles.unsupported(rows, rows)
