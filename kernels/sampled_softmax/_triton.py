"""Sampled softmax in Triton, on tensor cores: shared negatives and negatives of groups of rows.

Candidates are packed first (`_triton_pack.py`): ids drawn or checked, one bias each, and their rows side by
side where all rows share them. Then three passes over tiles of logits that never leave the chip:
`forward_kernel` (log-sum-exp), `query_kernel` (d_query, d_scale) and `item_kernel` (gradients of the
candidates' rows and biases, in workspaces of G K rows), then `sum_by_id` (sorted ids, duplicates summed).
Each output has one owner, so results repeat bit for bit on one kind of device; nothing waits for the device,
so it can be captured in a graph. Backward packs again, with the ids drawn again. An id out of range gives its
rows a loss that is NaN and no gradient: raising, as on the CPU, would wait for the device.

Operands are the inputs' own 16-bit numbers, sums are float32; with round_items rows of a float32 table are
rounded to the queries' where they are packed. Other float32 operands (and mixed ones, which meet in what
holds both) go as tf32x3, above 128 dimensions as ieee. Probabilities are rounded to the operands' type before
the products of backward, as flash attention does.

Cost: 2 B K D FLOPs forward and 8 B K D backward: each of its two passes makes the logits again, which
is what one owner an output costs (with atomics it would be 6). Bound on an H100 (800 TFLOP/s bf16,
4e12 exponentials/s; B = 65,536, K = 8,192): D = 64, forward 134 us by exponentials (86 by products);
D = 128, forward 172 us by products (134 by exponentials), backward 690 us by products. Items come
through the L2 cache: B / BLOCK_B times K D numbers, 128 FLOP a byte at BLOCK_B = 128. To device
memory: the inputs once, 12 G K D bytes of gradient rows; packed, 2 K D bytes of shared rows (4 of float32)
and 8 G K of ids and biases, twice. With merge_repeats K is the number of different draws wherever it is
multiplied, as on the CPU.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fastpop.kernels import triton_softmax, triton_tiles
from fastpop.kernels.sampled_softmax import _triton_kernels as kernels
from fastpop.kernels.sampled_softmax._triton_pack import Packed, operands, pack, pack_kernel
from fastpop.kernels.sampled_softmax._triton_rows import sum_by_id
from fastpop.kernels.sampled_softmax.reference import Gradients, Inputs, Needs, prior_gradients
from fastpop.kernels.triton_softmax import Groups, Rows
from fastpop.kernels.triton_tiles import SAMPLED_FORWARD, SAMPLED_ITEM, SAMPLED_QUERY, Tile, Tiles

# Fewest rows of a group for which a tile of the tensor cores is not mostly padding.
LEAST_GROUP = 16
# What the passes need not read: candidates are packed, and rows have their terms.
READ_BEFORE = {*pack_kernel.arg_names, *triton_softmax.row_gradients_kernel.arg_names}


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
    if num_rows == 0:
        nothing_B = inputs.query_BD.new_empty(0, dtype=torch.float32)
        return nothing_B, torch.empty_like(nothing_B)
    with triton_tiles.on_device(inputs.query_BD):
        tile = _tile(SAMPLED_FORWARD, inputs)
        return _forward(inputs, pack(inputs, tile.candidates, math.nan, _log_count(inputs)), tile)


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit); equals `reference.backward`.

    B + G K ids and rows come back; a repeated id carries zeros.
    """
    if inputs.query_BD.shape[0] == 0:
        return _no_gradients(inputs, needs)
    with triton_tiles.on_device(inputs.query_BD):
        tiles, entry_N = _Tiles.of(inputs), _entries(inputs)
        rows = _row_gradients(inputs, tiles, lse_B, pos_logit_B, d_lse_B, d_pos_B, entry_N)
        packed = pack(inputs, tiles.candidates, -math.inf, _log_count(inputs), entry_N)
        return _gradients(inputs, packed, tiles, rows, entry_N, needs)


def loss_and_gradients(inputs: Inputs, weight_B: Tensor, needs: Needs) -> tuple[Tensor, Gradients]:
    """(sum(weight * (lse - pos_logit)), its gradients), candidates packed once for both. A row of weight 0
    counts for nothing, whatever it holds. Gradients are float32: they are yet to be multiplied."""
    if inputs.query_BD.shape[0] == 0:
        return inputs.scale.new_zeros(()), _no_gradients(inputs, needs)
    with triton_tiles.on_device(inputs.query_BD):
        tile, tiles, entry_N = _tile(SAMPLED_FORWARD, inputs), _Tiles.of(inputs), _entries(inputs)
        candidates = max(tile.candidates, tiles.candidates)
        packed = pack(inputs, candidates, math.nan, _log_count(inputs), entry_N, both=True)
        lse_B, pos_logit_B = _forward(inputs, packed, tile)
        loss_B = torch.empty_like(lse_B)
        rows = _row_gradients(inputs, tiles, lse_B, pos_logit_B, weight_B, None, entry_N, loss_B)
        assert packed.known_GP is not None
        packed = packed._replace(bias_GP=packed.known_GP)
        if not any(needs):
            return loss_B.sum(), Gradients(*[None] * len(Gradients._fields))
        return loss_B.sum(), _gradients(inputs, packed, tiles, rows, entry_N, needs, wide=True)


class _Tiles(NamedTuple):
    """Of the two passes of backward."""

    query: Tile
    item: Tile

    @classmethod
    def of(cls, inputs: Inputs) -> "_Tiles":
        return cls(_tile(SAMPLED_QUERY, inputs), _tile(SAMPLED_ITEM, inputs))

    @property
    def rows(self) -> int:
        return max(self.query.rows, self.item.rows)

    @property
    def candidates(self) -> int:
        return max(self.query.candidates, self.item.candidates)


def _entries(inputs: Inputs) -> Tensor:
    """Fresh int32 [B + G K], for the ids of positives and candidates."""
    num_candidates = inputs.num_groups * inputs.num_negatives
    return inputs.query_BD.new_empty(inputs.query_BD.shape[0] + num_candidates, dtype=torch.int32)


def _forward(inputs: Inputs, packed: Packed, tile: Tile) -> tuple[Tensor, Tensor]:
    num_rows = inputs.query_BD.shape[0]
    pos_logit_B = inputs.query_BD.new_empty(num_rows, dtype=torch.float32)
    row_blocks = triton.cdiv(_group_size(inputs), tile.rows)
    programs = inputs.num_groups * row_blocks
    num_tiles = packed.bias_GP.shape[1] // tile.candidates
    splits, steps = triton_tiles.split(programs, num_tiles, inputs.query_BD.device)
    lse_SB = inputs.query_BD.new_empty(splits, num_rows, dtype=torch.float32)
    _launch(
        kernels.forward_kernel,
        (programs, splits),
        inputs,
        packed,
        tile,
        blocks_per_group=row_blocks,
        num_tiles=num_tiles,
        split_tiles=steps,
        lse_ptr=lse_SB,
        pos_logit_ptr=pos_logit_B,
        CORRECT_POSITIVE=inputs.logq == "standard",
    )
    return (lse_SB[0] if splits == 1 else torch.logsumexp(lse_SB, 0)), pos_logit_B


def _row_gradients(
    inputs: Inputs,
    tiles: _Tiles,
    lse_B: Tensor,
    pos_logit_B: Tensor,
    d_lse_B: Tensor,
    d_pos_B: Tensor | None,
    entry_N: Tensor,
    loss_B: Tensor | None = None,
) -> Rows:
    group_size = _group_size(inputs)
    return triton_softmax.row_gradients(
        lse_B,
        pos_logit_B,
        d_lse_B,
        d_pos_B,
        inputs.pos_id_B,
        inputs.item_VD.shape[0],
        Groups(inputs.num_groups, group_size, triton.cdiv(group_size, tiles.rows) * tiles.rows),
        positive_apart=True,
        id_B=entry_N[: inputs.query_BD.shape[0]],
        loss_B=loss_B,
    )


def _gradients(
    inputs: Inputs,
    packed: Packed,
    tiles: _Tiles,
    rows: Rows,
    entry_N: Tensor,
    needs: Needs,
    *,
    wide: bool = False,
) -> Gradients:
    needs_prior = _needs_prior(inputs, needs)
    d_query_BD = d_scale = id_n = d_item_nD = d_bias_n = log_prior_n = d_prior_weight = None
    if needs.query or needs.scale:
        d_query_BD, d_scale = _query_gradients(inputs, packed, tiles.query, rows, needs, wide)
    if needs.item or needs_prior:
        id_n, d_item_nD, d_bias_n = _item_gradients(
            inputs, packed, tiles.item, rows, entry_N, needs.item, needs_prior, wide
        )
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


def _needs_prior(inputs: Inputs, needs: Needs) -> bool:
    return (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None


def _query_gradients(
    inputs: Inputs, packed: Packed, tile: Tile, rows: Rows, needs: Needs, wide: bool
) -> tuple[Tensor | None, Tensor | None]:
    row_blocks = triton.cdiv(_group_size(inputs), tile.rows)
    programs = inputs.num_groups * row_blocks
    num_tiles = packed.bias_GP.shape[1] // tile.candidates
    splits, steps = triton_tiles.split(programs, num_tiles, inputs.query_BD.device)
    d_query_SBD, d_scale_SB = triton_softmax.query_outputs(inputs.query_BD, splits, needs, wide=wide)
    _launch(
        kernels.query_kernel,
        (programs, splits),
        inputs,
        packed,
        tile,
        blocks_per_group=row_blocks,
        num_tiles=num_tiles,
        split_tiles=steps,
        own_ptr=rows.own_B,
        d_query_ptr=d_query_SBD,
        d_scale_ptr=d_scale_SB,
        **_of_rows(rows, inputs),
    )
    return triton_softmax.summed_query(d_query_SBD, d_scale_SB)


def _item_gradients(
    inputs: Inputs,
    packed: Packed,
    tile: Tile,
    rows: Rows,
    entry_N: Tensor,
    needs_item: bool,
    needs_prior: bool,
    wide: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    num_groups, num_negatives = inputs.num_groups, inputs.num_negatives
    dim, new = inputs.query_BD.shape[1], inputs.query_BD.new_empty
    programs = num_groups * triton.cdiv(num_negatives, tile.candidates)
    splits, steps = triton_tiles.split(
        programs, triton.cdiv(_group_size(inputs), tile.rows), inputs.query_BD.device
    )
    num_tiles = packed.bias_GP.shape[1] // tile.candidates
    num_candidates = num_groups * num_negatives
    d_row = new(splits, num_candidates, dim, dtype=torch.float32) if needs_item else None
    d_bias = new(splits, num_candidates, dtype=torch.float32) if needs_prior else None
    _launch(
        kernels.item_kernel,
        (num_groups * num_tiles, splits),
        inputs,
        packed,
        tile,
        num_tiles=num_tiles,
        split_size=steps * tile.rows,
        peak_ptr=triton_softmax.peak_of(operands(inputs), rows.weights),
        d_row_ptr=d_row,
        d_bias_ptr=d_bias,
        **_of_rows(rows, inputs),
    )
    return sum_by_id(
        inputs,
        entry_N,
        rows.own_B,
        triton_softmax.over_splits(d_row),
        triton_softmax.over_splits(d_bias),
        torch.float32 if wide else inputs.item_VD.dtype,
    )


def _no_gradients(inputs: Inputs, needs: Needs) -> Gradients:
    """Of no rows: every candidate's id with zeros."""
    needs_prior = _needs_prior(inputs, needs)
    id_n = d_item_nD = zero_n = None
    if needs.item or needs_prior:
        packed = pack(inputs._replace(merge_repeats=False), 1, -math.inf, 0.0)
        id_n = packed.id_GP[:, : inputs.num_negatives].reshape(-1).sort().values.clamp(min=0).long()
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


def _group_size(inputs: Inputs) -> int:
    """Rows of a group: a single group may claim more than there are."""
    return min(inputs.group_size, inputs.query_BD.shape[0])


def _log_count(inputs: Inputs) -> float:
    num_drawn = inputs.num_negatives - int(inputs.exclude_diagonal)
    return math.log(max(num_drawn, 1)) if inputs.logq == "corrected" else 0.0


def _of_rows(rows: Rows, inputs: Inputs) -> dict[str, Any]:
    return {
        "terms_ptr": rows.terms_GP,
        "hit_ptr": rows.hit_GP,
        "padded_rows": rows.terms_GP.shape[0] // inputs.num_groups,
    }


def _tile(table: Tiles, inputs: Inputs) -> Tile:
    """The written tile, with fewer rows where groups are smaller; not where one group is, which the last
    batch may be and kernels would be compiled anew for."""
    dtype = operands(inputs)
    tile = triton_tiles.choose(table, inputs.query_BD.device, inputs.query_BD.shape[1], dtype)
    if inputs.num_groups == 1:
        return tile
    return tile._replace(rows=min(tile.rows, triton.next_power_of_2(_group_size(inputs))))


def _launch(
    jitted: Any, grid: tuple[int, int], inputs: Inputs, packed: Packed, tile: Tile, **own: Any
) -> None:
    """With what the three kernels share: inputs, sizes and constants, of which each takes its own."""
    (num_rows, dim), num_items = inputs.query_BD.shape, inputs.item_VD.shape[0]
    tensors = triton_tiles.tensors(inputs).items()
    shared = {
        **{name: one for name, one in tensors if name in jitted.arg_names or name not in READ_BEFORE},
        **triton_tiles.strides(inputs.query_BD, inputs.item_VD),
        "row_ptr": packed.row_GPD,
        "bias_ptr": packed.bias_GP,
        "id_ptr": packed.id_GP,
        "count_ptr": packed.num_different,
        "num_rows": num_rows,
        "num_items": num_items,
        "num_negatives": inputs.num_negatives,
        "dim": dim,
        "group_size": _group_size(inputs),
        "num_groups": inputs.num_groups,
    }
    triton_tiles.launch(
        jitted,
        grid,
        **triton_tiles.taken(jitted, shared),
        **own,
        HITS=inputs.drop_accidental_hits,
        DIAGONAL=inputs.exclude_diagonal,
        BLOCK_K=tile.candidates,
        **triton_tiles.constants(inputs.query_BD, inputs.item_VD, tile, operands(inputs)),
    )
