"""Ranks of targets in C++ (csrc/target_ranks/cpu.cpp), on all of torch's threads.

One pass over the catalogue gives the counts and the log-sum-exp; a strip of scores lives in L1. Scores
are float32 whatever the half inputs, and have the bits of top_items: an item whose row and bias are a
target's is level with it exactly.

Cost: 2 B V D FLOPs and B V exponentials; 8 MiB of queries and two counts a target and thread.
"""

import torch
from torch import Tensor

from fastpop import _C
from fastpop.kernels import native
from fastpop.kernels.target_ranks.reference import Inputs


def unsupported(inputs: Inputs) -> str | None:
    reason = native.unsupported(query=inputs.query_BD, items=inputs.item_VD)
    if reason is None and inputs.item_VD.shape[0] >= 2**31:
        return f"{inputs.item_VD.shape[0]} items: these kernels count in 31 bits"
    return reason


def forward(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Equals `reference.forward` within rounding of the scores."""
    if inputs.bias_V is not None and inputs.bias_V.dtype != torch.float32:
        inputs = inputs._replace(bias_V=inputs.bias_V.to(torch.float32))
    if inputs.own_M is not None:
        inputs = inputs._replace(own_M=inputs.own_M.to(torch.float32))
    given, _held = native.named(inputs)
    (num_rows, dim), num_items = inputs.query_BD.shape, inputs.item_VD.shape[0]
    num_targets = len(inputs.target_item)
    greater_M, equal_M = (native.new(num_targets, dtype=torch.int64) for _ in range(2))
    score_M, lse_B = native.new(num_targets), native.new(num_rows)
    _C.target_ranks(
        **given,
        B=num_rows,
        V=num_items,
        D=dim,
        greater=native.address(greater_M),
        equal=native.address(equal_M),
        score=native.address(score_M),
        lse=native.address(lse_B),
        path=native.path,
        threads=native.threads_for(2 * num_rows * num_items * dim),
    )
    return greater_M, equal_M, score_M, lse_B
