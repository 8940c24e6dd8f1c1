"""Score energies on a CUDA device: sums over scores in Triton, moments of rows in torch.

The streamed form keeps no score: tiles on tensor cores, three sums a context, merged in float64. Cost:
2 C V D FLOPs, the item table read C / BLOCK_B times (from the L2 cache while it fits). The Gram form
is a product of D columns in float64, which torch's own does at the device's speed.
"""

from typing import Any

import numpy as np
import torch
import triton

from fastpop.kernels import triton_tiles
from fastpop.kernels.score_energy import _triton_kernels as kernels
from fastpop.kernels.score_energy.reference import row_moments as row_moments
from fastpop.kernels.triton_tiles import FORWARD


def unsupported(rows: Any) -> str | None:
    if not isinstance(rows, torch.Tensor):
        return "the rows are not a torch tensor on a CUDA device"
    return triton_tiles.unsupported(_taken(rows), _taken(rows))


def score_sums(
    query_CD: torch.Tensor, item_VD: Any, bias_V: np.ndarray | None, b_V: np.ndarray, scale: float,
    cap: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(sum over items of (s - mean)², of s * b), [C] each; equals `reference.score_sums` as far as
    float32 scores do."""
    query, device = _taken(query_CD), query_CD.device
    items = _taken(torch.as_tensor(item_VD, device=device))
    bias, b = (None if one is None else torch.as_tensor(one, dtype=torch.float32, device=device)
               for one in (bias_V, b_V))
    (num_rows, dim), num_items = query.shape, items.shape[0]
    tile = triton_tiles.choose(FORWARD, device, dim, triton_tiles.dot_dtype(query, items))
    programs = triton.cdiv(num_rows, tile.rows)
    shift_C = _near_the_mean(query, items, bias, scale, cap)
    splits, steps = triton_tiles.split(programs, triton.cdiv(num_items, tile.candidates), device)
    sums_S3C = torch.empty(splits, 3, num_rows, dtype=torch.float64, device=device)
    with triton_tiles.on_device(query):
        triton_tiles.launch(
            kernels.sums_kernel, (programs, splits), query, items, bias, b, shift_C, sums_S3C, num_rows,
            num_items, dim, steps * tile.candidates,
            scale, cap, query.stride(0), query.stride(1), items.stride(0), items.stride(1),
            CAPPED=cap != 0, BLOCK_V=tile.candidates, **triton_tiles.constants(query, items, tile))
    sum_C, square_C, along_C = sums_S3C.sum(0)
    return (square_C - sum_C.square() / num_items).cpu().numpy(), along_C.cpu().numpy()


def _near_the_mean(query_CD: torch.Tensor, item_VD: torch.Tensor, bias_V: torch.Tensor | None,
                   scale: float, cap: float) -> torch.Tensor:
    """[C] what sums are taken from, so that an offset common to a context's scores costs no digits: the
    score of the mean of some items."""
    mean_D, bias = item_VD[:64].float().mean(0), 0.0 if bias_V is None else bias_V[:64].mean()
    score_C = scale * (query_CD.float() @ mean_D) + bias
    return cap * torch.tanh(score_C / cap) if cap else score_C


def _taken(rows: torch.Tensor) -> torch.Tensor:
    """float64 and integers as float32, which is what scores are made in."""
    rows = rows.detach()
    return rows if rows.dtype in triton_tiles.TL_DTYPES else rows.float()
