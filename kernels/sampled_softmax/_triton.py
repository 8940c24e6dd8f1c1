"""Sampled softmax in Triton, on tensor cores: shared negatives and negatives of groups of rows.

Three passes over tiles of logits that never leave the chip: `forward_kernel` (log-sum-exp),
`query_kernel` (d_query, d_scale) and `item_kernel` (gradients of the candidates' rows and biases, in
workspaces of G K rows), then `sum_by_id` (sorted ids, duplicates summed). Each output has one owner,
so results repeat bit for bit on one kind of device; nothing waits for the device, so it can be
captured in a graph. Ids drawn inside are drawn again in backward, where they become ids of gradient
rows; shared ones are drawn once a pass into [K], for every program to read. An id out of range gives its
rows a loss that is NaN and no gradient: raising, as on the CPU, would wait for the device.

Operands are the inputs' own 16-bit numbers, sums are float32. Float32 operands (and mixed ones, which
meet in what holds both) go as tf32x3, above 128 dimensions as ieee. Probabilities are rounded to the
operands' type before the products of backward, as flash attention does.

Cost: 2 B K D FLOPs forward and 8 B K D backward: each of its two passes makes the logits again, which
is what one owner an output costs (with atomics it would be 6). Bound on an H100 (800 TFLOP/s bf16,
4e12 exponentials/s; B = 65,536, K = 8,192): D = 64, forward 134 us by exponentials (86 by products);
D = 128, forward 172 us by products (134 by exponentials), backward 690 us by products. Items come
through the L2 cache: B / BLOCK_B times K D numbers, 128 FLOP a byte at BLOCK_B = 128. To device
memory: the inputs once, 12 G K D bytes of gradient rows.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from fastpop.kernels import triton_softmax, triton_tiles
from fastpop.kernels.alias_draw import _triton as alias_draw
from fastpop.kernels.sampled_softmax import _triton_kernels as kernels
from fastpop.kernels.sampled_softmax._triton_rows import sum_by_id
from fastpop.kernels.sampled_softmax.reference import Gradients, Inputs, Needs, prior_gradients
from fastpop.kernels.triton_tiles import FORWARD, ITEM, QUERY, Tile, Tiles

# Fewest rows of a group for which a tile of the tensor cores is not mostly padding.
LEAST_GROUP = 16


def unsupported(inputs: Inputs) -> str | None:
    if inputs.key_V is not None:
        return "accidental hits are found by keys, which these kernels do not read"
    if inputs.num_groups > 1 and inputs.group_size < LEAST_GROUP:
        return (
            f"groups of {inputs.group_size} rows, tensor cores want {LEAST_GROUP} "
            "(impl='cuda' is for a set for each row)"
        )
    if inputs.num_groups * inputs.num_negatives > triton_tiles.MAX_ROWS:
        return f"more than {triton_tiles.MAX_ROWS} negatives"
    return triton_tiles.unsupported(inputs.query_BD, inputs.item_VD)


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(lse [B], pos_logit [B]) in float32; equals `reference.forward` within rounding."""
    num_rows = inputs.query_BD.shape[0]
    pos_logit_B = inputs.query_BD.new_empty(num_rows, dtype=torch.float32)
    if num_rows == 0:
        return torch.empty_like(pos_logit_B), pos_logit_B
    with triton_tiles.on_device(inputs.query_BD):
        if inputs.num_groups == 1:
            inputs = _with_ids(inputs)
        tile = _tile(FORWARD, inputs)
        num_groups, num_negatives, group_size = _groups(inputs)
        row_blocks = triton.cdiv(group_size, tile.rows)
        programs = num_groups * row_blocks
        splits, steps = triton_tiles.split(
            programs, triton.cdiv(num_negatives, tile.candidates), inputs.query_BD.device
        )
        lse_SB = inputs.query_BD.new_empty(splits, num_rows, dtype=torch.float32)
        _launch(
            kernels.forward_kernel,
            (programs, splits),
            inputs,
            tile,
            blocks_per_group=row_blocks,
            split_size=steps * tile.candidates,
            lse_ptr=lse_SB,
            pos_logit_ptr=pos_logit_B,
        )
    return (lse_SB[0] if splits == 1 else torch.logsumexp(lse_SB, 0)), pos_logit_B


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit); equals `reference.backward`.

    B + G K ids and rows come back; a repeated id carries zeros.
    """
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    if inputs.query_BD.shape[0] == 0:
        return _no_gradients(inputs, needs, needs_prior)
    with triton_tiles.on_device(inputs.query_BD):
        rows = triton_softmax.row_gradients(
            lse_B.contiguous(), pos_logit_B.contiguous(), d_lse_B, d_pos_B, positive_apart=True
        )
        inputs = _with_ids(inputs)
        d_query_BD = d_scale = id_n = d_item_nD = d_bias_n = None
        if needs.query or needs.scale:
            d_query_BD, d_scale = _query_gradients(inputs, rows, needs)
        if needs.item or needs_prior:
            id_n, d_item_nD, d_bias_n = _item_gradients(inputs, rows, needs.item, needs_prior)
    log_prior_n = d_prior_weight = None
    if id_n is not None and d_bias_n is not None:
        log_prior_n, d_prior_weight = prior_gradients(inputs, id_n, d_bias_n)
    return Gradients(
        query_BD=d_query_BD,
        id_n=id_n,
        item_nD=d_item_nD,
        log_prior_n=log_prior_n if needs.log_prior else None,
        prior_weight=d_prior_weight if needs.prior_weight else None,
        scale=d_scale,
    )


def _query_gradients(
    inputs: Inputs, rows: tuple[Tensor, ...], needs: Needs
) -> tuple[Tensor | None, Tensor | None]:
    num_groups, num_negatives, group_size = _groups(inputs)
    tile = _tile(QUERY, inputs)
    row_blocks = triton.cdiv(group_size, tile.rows)
    programs = num_groups * row_blocks
    splits, steps = triton_tiles.split(
        programs, triton.cdiv(num_negatives, tile.candidates), inputs.query_BD.device
    )
    d_query_SBD, d_scale_SB = triton_softmax.query_outputs(inputs.query_BD, splits, needs)
    base_B, weight_B, own_B = rows
    _launch(
        kernels.query_kernel,
        (programs, splits),
        inputs,
        tile,
        blocks_per_group=row_blocks,
        split_size=steps * tile.candidates,
        base_ptr=base_B,
        weight_ptr=weight_B,
        own_ptr=own_B,
        d_query_ptr=d_query_SBD,
        d_scale_ptr=d_scale_SB,
    )
    return triton_softmax.summed_query(d_query_SBD, d_scale_SB)


def _item_gradients(
    inputs: Inputs, rows: tuple[Tensor, ...], needs_item: bool, needs_prior: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    num_groups, num_negatives, group_size = _groups(inputs)
    dim, new = inputs.query_BD.shape[1], inputs.query_BD.new_empty
    base_B, weight_B, own_B = rows
    tile = _tile(ITEM, inputs)
    programs = num_groups * triton.cdiv(num_negatives, tile.candidates)
    splits, steps = triton_tiles.split(programs, triton.cdiv(group_size, tile.rows), inputs.query_BD.device)
    num_candidates = num_groups * num_negatives
    d_row = new(splits, num_candidates, dim, dtype=torch.float32) if needs_item else None
    d_bias = new(splits, num_candidates, dtype=torch.float32) if needs_prior else None
    peak = triton_softmax.peak_of(triton_tiles.dot_dtype(inputs.query_BD, inputs.item_VD), weight_B)
    _launch(
        kernels.item_kernel,
        (programs, splits),
        inputs,
        tile,
        split_size=steps * tile.rows,
        base_ptr=base_B,
        weight_ptr=weight_B,
        peak_ptr=peak,
        d_row_ptr=d_row,
        d_bias_ptr=d_bias,
    )
    return sum_by_id(inputs, own_B, triton_softmax.over_splits(d_row), triton_softmax.over_splits(d_bias))


def _no_gradients(inputs: Inputs, needs: Needs, needs_prior: bool) -> Gradients:
    """Of no rows: every candidate's id with zeros."""
    id_n = d_item_nD = zero_n = None
    if needs.item or needs_prior:
        id_n = _with_ids(inputs).neg_id_GK.reshape(-1).sort().values  # type: ignore[union-attr]
        id_n = id_n.clamp(0, inputs.item_VD.shape[0] - 1)
        zero_n = inputs.scale.new_zeros(id_n.shape[0])
        d_item_nD = inputs.item_VD.new_zeros(id_n.shape[0], inputs.item_VD.shape[1])
    return Gradients(
        query_BD=torch.empty_like(inputs.query_BD) if needs.query else None,
        id_n=id_n,
        item_nD=d_item_nD if needs.item else None,
        log_prior_n=zero_n if needs.log_prior and needs_prior else None,
        prior_weight=torch.zeros_like(inputs.scale) if needs.prior_weight and needs_prior else None,
        scale=torch.zeros_like(inputs.scale) if needs.scale else None,
    )


def _with_ids(inputs: Inputs) -> Inputs:
    """Ids that every program reads, drawn where they are not given."""
    if inputs.neg_id_GK is not None:
        return inputs
    assert inputs.table_V2 is not None
    assert inputs.counter_2 is not None
    draw = alias_draw.Inputs(inputs.table_V2, inputs.counter_2, 0, inputs.num_groups, inputs.num_negatives)
    return inputs._replace(neg_id_GK=alias_draw.forward(draw), table_V2=None, counter_2=None)


def _groups(inputs: Inputs) -> tuple[int, int, int]:
    """(G, K, rows of a group): a single group may claim more rows than there are."""
    return inputs.num_groups, inputs.num_negatives, min(inputs.group_size, inputs.query_BD.shape[0])


def _tile(table: Tiles, inputs: Inputs) -> Tile:
    """The written tile, with fewer rows where groups are smaller; not where one group is, which the last
    batch may be and kernels would be compiled anew for."""
    dtype = triton_tiles.dot_dtype(inputs.query_BD, inputs.item_VD)
    tile = triton_tiles.choose(table, inputs.query_BD.device, inputs.query_BD.shape[1], dtype)
    num_groups, _, group_size = _groups(inputs)
    if num_groups == 1:
        return tile
    return tile._replace(rows=min(tile.rows, triton.next_power_of_2(group_size)))


def _launch(jitted: Any, grid: tuple[int, int], inputs: Inputs, tile: Tile, **own: Any) -> None:
    """With what the three kernels share: inputs, sizes and constants, of which each takes its own."""
    num_groups, num_negatives, group_size = _groups(inputs)
    num_drawn = num_negatives - int(inputs.exclude_diagonal)
    (num_rows, dim), num_items = inputs.query_BD.shape, inputs.item_VD.shape[0]
    shared = {
        **triton_tiles.tensors(inputs),
        **triton_tiles.strides(inputs.query_BD, inputs.item_VD),
        "num_rows": num_rows,
        "num_items": num_items,
        "num_negatives": num_negatives,
        "dim": dim,
        "group_size": group_size,
        "num_groups": num_groups,
        "log_count": math.log(max(num_drawn, 1)) if inputs.logq == "corrected" else 0.0,
    }
    triton_tiles.launch(
        jitted,
        grid,
        **triton_tiles.taken(jitted, shared),
        **own,
        CORRECT_POSITIVE=inputs.logq == "standard",
        DROP_ACCIDENTAL_HITS=inputs.drop_accidental_hits,
        EXCLUDE_DIAGONAL=inputs.exclude_diagonal,
        BLOCK_K=tile.candidates,
        **triton_tiles.constants(inputs.query_BD, inputs.item_VD, tile),
    )
