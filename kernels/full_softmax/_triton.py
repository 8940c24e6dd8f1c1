"""Full softmax in Triton, on tensor cores: the catalogue in tiles of logits that never leave the chip.

`forward_kernel` (log-sum-exp), `query_kernel` (d_query, d_scale) and `item_kernel` (d_items, the
prior's gradient: dense, one owner a tile of items). The long loop is cut into splits where a batch or
a catalogue is too small to fill the device; results repeat bit for bit on one kind of device, and
nothing waits for it, so it can be captured in a graph. Precision as in sampled softmax.

Cost: 2 B V D FLOPs forward and 8 B V D backward, each of whose passes makes the logits again. Bound
by products above D = 96, by exponentials below: at B = 2,048, V = 1e6, D = 128 on an H100, forward
0.66 ms and backward 2.6 ms, predicted. To device memory: queries and table B / BLOCK_B times at most
(in the L2 cache while it fits), gradients once.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from fastpop.kernels import triton_softmax, triton_tiles
from fastpop.kernels.full_softmax import _triton_kernels as kernels
from fastpop.kernels.full_softmax.reference import Gradients, Inputs, Needs, prior_gradients
from fastpop.kernels.triton_softmax import Rows
from fastpop.kernels.triton_tiles import FORWARD, ITEM, QUERY, Tile, Tiles


def unsupported(inputs: Inputs) -> str | None:
    return triton_tiles.unsupported(inputs.query_BD, inputs.item_VD)


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(lse [B], pos_logit [B]) in float32; equals `reference.forward` within rounding."""
    num_rows, num_items = inputs.query_BD.shape[0], inputs.item_VD.shape[0]
    pos_logit_B = inputs.query_BD.new_empty(num_rows, dtype=torch.float32)
    if num_rows == 0:
        return torch.empty_like(pos_logit_B), pos_logit_B
    with triton_tiles.on_device(inputs.query_BD):
        tile = _tile(FORWARD, inputs)
        programs = triton.cdiv(num_rows, tile.rows)
        splits, steps = triton_tiles.split(
            programs, triton.cdiv(num_items, tile.candidates), inputs.query_BD.device
        )
        lse_SB = pos_logit_B.new_empty(splits, num_rows)
        _launch(
            kernels.forward_kernel,
            (programs, splits),
            inputs,
            tile,
            split_size=steps * tile.candidates,
            lse_ptr=lse_SB,
            pos_logit_ptr=pos_logit_B,
        )
    return (lse_SB[0] if splits == 1 else torch.logsumexp(lse_SB, 0)), pos_logit_B


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit); equals `reference.backward`."""
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    if inputs.query_BD.shape[0] == 0:
        return _no_gradients(inputs, needs, needs_prior)
    d_query_BD = d_scale = d_item_VD = d_log_prior_V = d_prior_weight = None
    with triton_tiles.on_device(inputs.query_BD):
        num_rows = inputs.query_BD.shape[0]
        rows = triton_softmax.row_gradients(
            lse_B,
            pos_logit_B,
            d_lse_B,
            d_pos_B,
            inputs.pos_id_B,
            inputs.item_VD.shape[0],
            triton_softmax.Groups(1, num_rows, num_rows),
            positive_apart=False,
        )
        if needs.query or needs.scale:
            d_query_BD, d_scale = _query_gradients(inputs, rows, needs)
        if needs.item or needs_prior:
            d_item_VD, d_bias_V = _item_gradients(inputs, rows, needs.item, needs_prior)
            if d_bias_V is not None:
                d_log_prior_V, d_prior_weight = prior_gradients(inputs, d_bias_V)
    return Gradients(
        query_BD=d_query_BD,
        item_VD=d_item_VD,
        log_prior_V=d_log_prior_V if needs.log_prior else None,
        prior_weight=d_prior_weight if needs.prior_weight else None,
        scale=d_scale,
    )


def _query_gradients(inputs: Inputs, rows: Rows, needs: Needs) -> tuple[Tensor | None, Tensor | None]:
    num_rows, num_items = inputs.query_BD.shape[0], inputs.item_VD.shape[0]
    tile = _tile(QUERY, inputs)
    programs = triton.cdiv(num_rows, tile.rows)
    splits, steps = triton_tiles.split(
        programs, triton.cdiv(num_items, tile.candidates), inputs.query_BD.device
    )
    d_query_SBD, d_scale_SB = triton_softmax.query_outputs(inputs.query_BD, splits, needs)
    _launch(
        kernels.query_kernel,
        (programs, splits),
        inputs,
        tile,
        split_size=steps * tile.candidates,
        terms_ptr=rows.terms_GP,
        own_ptr=rows.own_B,
        d_query_ptr=d_query_SBD,
        d_scale_ptr=d_scale_SB,
    )
    return triton_softmax.summed_query(d_query_SBD, d_scale_SB)


def _item_gradients(
    inputs: Inputs, rows: Rows, needs_item: bool, needs_prior: bool
) -> tuple[Tensor | None, Tensor | None]:
    num_rows, (num_items, dim) = inputs.query_BD.shape[0], inputs.item_VD.shape
    tile = _tile(ITEM, inputs)
    programs = triton.cdiv(num_items, tile.candidates)
    splits, steps = triton_tiles.split(programs, triton.cdiv(num_rows, tile.rows), inputs.query_BD.device)
    d_item_SVD = d_bias_SV = None
    if needs_item:
        dtype = inputs.item_VD.dtype if splits == 1 else torch.float32
        d_item_SVD = inputs.item_VD.new_empty(splits, num_items, dim, dtype=dtype)
    if needs_prior:
        d_bias_SV = inputs.item_VD.new_empty(splits, num_items, dtype=torch.float32)
    peak = triton_softmax.peak_of(
        triton_tiles.dot_dtype(inputs.query_BD, inputs.item_VD), rows.weights, rows.own_B
    )
    _launch(
        kernels.item_kernel,
        (programs, splits),
        inputs,
        tile,
        split_size=steps * tile.rows,
        terms_ptr=rows.terms_GP,
        own_ptr=rows.own_B,
        peak_ptr=peak,
        d_item_ptr=d_item_SVD,
        d_bias_ptr=d_bias_SV,
    )
    d_bias_V = None if d_bias_SV is None else d_bias_SV.sum(0, dtype=torch.float64)
    return triton_softmax.over_splits(d_item_SVD), d_bias_V


def _no_gradients(inputs: Inputs, needs: Needs, needs_prior: bool) -> Gradients:
    def zeros(like: Tensor | None, needed: bool) -> Tensor | None:
        return torch.zeros_like(like) if needed and like is not None else None

    return Gradients(
        query_BD=zeros(inputs.query_BD, needs.query),
        item_VD=zeros(inputs.item_VD, needs.item),
        log_prior_V=zeros(inputs.log_prior_V, needs.log_prior),
        prior_weight=zeros(inputs.prior_weight, needs.prior_weight and needs_prior),
        scale=zeros(inputs.scale, needs.scale),
    )


def _tile(table: Tiles, inputs: Inputs) -> Tile:
    dtype = triton_tiles.dot_dtype(inputs.query_BD, inputs.item_VD)
    return triton_tiles.choose(table, inputs.query_BD.device, inputs.query_BD.shape[1], dtype)


def _launch(jitted: Any, grid: tuple[int, int], inputs: Inputs, tile: Tile, **own: Any) -> None:
    """With what the three kernels share: the op's inputs, sizes and constants."""
    num_items, dim = inputs.item_VD.shape
    triton_tiles.launch(
        jitted,
        grid,
        **triton_tiles.tensors(inputs),
        **triton_tiles.strides(inputs.query_BD, inputs.item_VD),
        num_rows=inputs.query_BD.shape[0],
        num_items=num_items,
        dim=dim,
        **own,
        BLOCK_V=tile.candidates,
        **triton_tiles.constants(inputs.query_BD, inputs.item_VD, tile),
    )
