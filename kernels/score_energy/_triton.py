"""Sums over scores in Triton: no score is kept.

Tiles on tensor cores, three sums a context, merged in float64. Cost: 2 C V D FLOPs, the item table read
C / BLOCK_B times (from the L2 cache while it fits).
"""

import numpy as np
import torch
import triton

from fastpop.kernels import triton_tiles
from fastpop.kernels.score_energy import _triton_kernels as kernels
from fastpop.kernels.score_energy.reference import Inputs
from fastpop.kernels.triton_tiles import FORWARD


def unsupported(inputs: Inputs) -> str | None:
    if not isinstance(inputs.query_CD, torch.Tensor):
        return "the rows are not a torch tensor on a CUDA device"
    query = triton_tiles.singles(inputs.query_CD)
    return triton_tiles.unsupported(query, query)


def forward(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """(sum over items of (s - mean)², of s * direction), [C] each; equals `reference.forward` as far as
    float32 scores do."""
    query, device = triton_tiles.singles(inputs.query_CD), inputs.query_CD.device
    items = triton_tiles.singles(torch.as_tensor(inputs.item_VD, device=device))
    bias, direction = (
        None if one is None else torch.as_tensor(one, dtype=torch.float32, device=device)
        for one in (inputs.bias_V, inputs.direction_V)
    )
    scale, cap = inputs.scale, inputs.cap
    (num_rows, dim), num_items = query.shape, items.shape[0]
    tile = triton_tiles.choose(FORWARD, device, dim, triton_tiles.dot_dtype(query, items))
    programs = triton.cdiv(num_rows, tile.rows)
    shift_C = _near_the_mean(query, items, bias, scale, cap)
    splits, steps = triton_tiles.split(programs, triton.cdiv(num_items, tile.candidates), device)
    sums_S3C = torch.empty(splits, 3, num_rows, dtype=torch.float64, device=device)
    with triton_tiles.on_device(query):
        triton_tiles.launch(
            kernels.sums_kernel,
            (programs, splits),
            query_ptr=query,
            item_ptr=items,
            bias_ptr=bias,
            b_ptr=direction,
            shift_ptr=shift_C,
            sums_ptr=sums_S3C,
            num_rows=num_rows,
            num_items=num_items,
            dim=dim,
            split_size=steps * tile.candidates,
            scale=scale,
            cap=cap,
            **triton_tiles.strides(query, items),
            CAPPED=cap != 0,
            BLOCK_V=tile.candidates,
            **triton_tiles.constants(query, items, tile),
        )
    sum_C, square_C, along_C = sums_S3C.sum(0)
    return (square_C - sum_C.square() / num_items).cpu().numpy(), along_C.cpu().numpy()


def _near_the_mean(
    query_CD: torch.Tensor, item_VD: torch.Tensor, bias_V: torch.Tensor | None, scale: float, cap: float
) -> torch.Tensor:
    """[C] what sums are taken from, so that an offset common to a context's scores costs no digits: the
    score of the mean of some items."""
    mean_D, bias = item_VD[:64].float().mean(0), 0.0 if bias_V is None else bias_V[:64].mean()
    score_C = scale * (query_CD.float() @ mean_D) + bias
    return cap * torch.tanh(score_C / cap) if cap else score_C
