"""Exact top-k items in C++ (csrc/top_items/cpu.cpp), on all of torch's threads.

Scores live in registers: each is compared with its query's k-th best so far, and only what is not
worse reaches memory. Neither [B, V] nor a tile of it exists. Float32 inside, whatever the half
inputs.

Cost: 2 B V D FLOPs; 2 MiB of candidates a thread.
"""

import torch
from torch import Tensor

from fastpop import _C
from fastpop.kernels import native
from fastpop.kernels.top_items.reference import Inputs


def unsupported(inputs: Inputs) -> str | None:
    reason = native.unsupported(query=inputs.query_BD, items=inputs.item_VD)
    if reason is None and max(inputs.item_VD.shape[0], inputs.k) >= 2**31:
        return f"{inputs.item_VD.shape[0]} items, k={inputs.k}: these kernels count in 31 bits"
    return reason


def forward(
    query_BD: Tensor, item_VD: Tensor, k: int, bias_V: Tensor | None, scale: float,
    exclude_offsets: Tensor | None, exclude_item: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Equals `reference.forward` within rounding of the scores."""
    num_rows, dim = query_BD.shape
    id_BK, score_BK = native.new(num_rows, k, dtype=torch.int64), native.new(num_rows, k)
    bias_V = None if bias_V is None else bias_V.to(torch.float32).contiguous()
    if exclude_offsets is not None and exclude_item is not None:
        exclude_offsets, exclude_item = exclude_offsets.contiguous(), exclude_item.contiguous()
    _C.top_items(
        query=native.matrix(query_BD), item=native.matrix(item_VD), B=num_rows,
        V=item_VD.shape[0], D=dim, k=k, bias=native.address(bias_V), scale=scale,
        exclude_offsets=native.address(exclude_offsets), exclude_item=native.address(exclude_item),
        id=native.address(id_BK), score=native.address(score_BK), path=native.path,
        threads=native.threads_for(2 * num_rows * item_VD.shape[0] * dim))
    return id_BK, score_BK
