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


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Equals `reference.forward` within rounding of the scores."""
    if inputs.bias_V is not None and inputs.bias_V.dtype != torch.float32:
        inputs = inputs._replace(bias_V=inputs.bias_V.to(torch.float32))
    given, _held = native.named(inputs)
    (num_rows, dim), num_items = inputs.query_BD.shape, inputs.item_VD.shape[0]
    id_BK, score_BK = native.new(num_rows, inputs.k, dtype=torch.int64), native.new(num_rows, inputs.k)
    _C.top_items(
        **given,
        B=num_rows,
        V=num_items,
        D=dim,
        id=native.address(id_BK),
        score=native.address(score_BK),
        path=native.path,
        threads=native.threads_for(2 * num_rows * num_items * dim),
    )
    return id_BK, score_BK
