"""Full softmax in C++ (csrc/full_softmax/cpu.cpp), on all of torch's threads; logits live in L1.

Cost: 2 B V D FLOPs forward, 6 B V D backward; about 2 B D + P B D numbers of memory beyond inputs and
results (P parts of the catalogue: V / 4,608, from 8 to 64), rows in blocks where that passes 16 MiB and an
eighth of the table. Float32 inside, whatever the inputs; the same bits on any number of threads.
"""

from typing import Any

import torch
from torch import Tensor

from fastpop import _C, checks
from fastpop.kernels import native
from fastpop.kernels.full_softmax.reference import Gradients, Inputs, Needs, prior_gradients


def unsupported(inputs: Inputs) -> str | None:
    return native.unsupported(query=inputs.query_BD, items=inputs.item_VD)


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(lse [B], pos_logit [B]); equals `reference.forward` within rounding."""
    lse_B, pos_logit_B = (native.new(inputs.query_BD.shape[0]) for _ in range(2))
    _run(inputs, False, lse_B, pos_logit_B)
    return lse_B, pos_logit_B


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit); equals `reference.backward`."""
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    d_query_BD = native.new(*inputs.query_BD.shape) if needs.query else None
    d_item_VD = native.new(*inputs.item_VD.shape) if needs.item else None
    d_bias_V = native.new(len(inputs.item_VD), dtype=torch.float64) if needs_prior else None
    d_lse_B, d_pos_B = (one.to(torch.float32).contiguous() for one in (d_lse_B, d_pos_B))
    d_scale = _run(
        inputs,
        True,
        lse_B,
        pos_logit_B,
        d_lse=native.address(d_lse_B),
        d_pos=native.address(d_pos_B),
        d_query=native.address(d_query_BD),
        d_item=native.address(d_item_VD),
        d_bias=native.address(d_bias_V),
        wants_scale=needs.scale,
    )
    d_log_prior_V = d_prior_weight = None
    if d_bias_V is not None:
        d_log_prior_V, d_prior_weight = prior_gradients(inputs, d_bias_V)
    return Gradients(
        query_BD=d_query_BD,
        item_VD=d_item_VD,
        log_prior_V=d_log_prior_V if needs.log_prior else None,
        prior_weight=d_prior_weight if needs.prior_weight else None,
        scale=torch.tensor(d_scale, dtype=torch.float32, device="cpu") if needs.scale else None,
    )


def _run(inputs: Inputs, backward: bool, lse_B: Tensor, pos_logit_B: Tensor, **wanted: Any) -> float:
    given, _held = native.named(inputs)
    lse_B, pos_logit_B = lse_B.contiguous(), pos_logit_B.contiguous()
    (num_rows, dim), num_items = inputs.query_BD.shape, inputs.item_VD.shape[0]
    d_scale, bad_prior_id = _C.full_softmax(
        backward=backward,
        **given,
        B=num_rows,
        V=num_items,
        D=dim,
        lse=native.address(lse_B),
        pos_logit=native.address(pos_logit_B),
        threads=native.threads_for(2 * num_rows * num_items * dim),
        path=native.path,
        **wanted,
    )
    if bad_prior_id >= 0 and inputs.log_prior_V is not None:
        raise checks.no_prior(bad_prior_id, float(inputs.log_prior_V[bad_prior_id]))
    return d_scale
