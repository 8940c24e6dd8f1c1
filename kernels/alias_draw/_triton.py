"""Alias draws in Triton: the ids of the CPU, bit for bit, with the counter read on the device.

`alias_ids` is what kernels that draw inside call; `forward` writes ids [G, K] with it, without a
synchronisation. About 100 integer instructions and one random 8-byte read a draw.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastpop.kernels import triton_tiles
from fastpop.kernels.alias_draw.reference import Inputs


@triton.jit
def alias_ids(table_ptr, counter_ptr, num_items, group, offs_k):
    """int64 ids of draws offs_k of a group; kernels/alias_draw/reference.py says what they are.

    table_ptr: int32 [V, 2], the bits of (threshold, alias). counter_ptr: int64 [2], of (seed, step).
    Each draw makes the four words of its pair and keeps two: draws need not come in pairs.
    """
    seed = tl.load(counter_ptr)
    step = tl.load(counter_ptr + 1).to(tl.uint64, bitcast=True)
    pair_k = (offs_k // 2).to(tl.uint32)
    zero_k = pair_k * 0
    step_low_k = zero_k + (step & 0xFFFFFFFF).to(tl.uint32)
    step_high_k = zero_k + (step >> 32).to(tl.uint32)
    word0_k, word1_k, word2_k, word3_k = tl.philox(
        seed, pair_k, zero_k + group.to(tl.uint32), step_low_k, step_high_k
    )
    odd_k = offs_k % 2 == 1
    word_bucket_k = tl.where(odd_k, word2_k, word0_k)
    word_threshold_k = tl.where(odd_k, word3_k, word1_k)
    bucket_k = tl.umulhi(word_bucket_k, zero_k + num_items).to(tl.int64)
    threshold_k = tl.load(table_ptr + 2 * bucket_k).to(tl.uint32, bitcast=True)
    # Unsigned like the bucket, so that the compiler knows of no id below 0.
    alias_k = tl.load(table_ptr + 2 * bucket_k + 1).to(tl.uint32, bitcast=True).to(tl.int64)
    return tl.where(word_threshold_k < threshold_k, bucket_k, alias_k)


@triton_tiles.kernel
def draw_kernel(
    table_ptr, counter_ptr, id_ptr, num_items, first_group, num_groups, num_draws, BLOCK_K: tl.constexpr
):
    """One program owns BLOCK_K draws of one group; each id is written once."""
    blocks = tl.cdiv(num_draws, BLOCK_K)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    offs_k = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    id_k = alias_ids(table_ptr, counter_ptr, num_items, first_group + group, offs_k)
    tl.store(id_ptr + group * num_draws + offs_k, id_k, mask=offs_k < num_draws)


def unsupported(inputs: Inputs) -> str | None:
    if not isinstance(inputs.table_V2, Tensor):
        return "the table is not a torch tensor on a CUDA device"
    return triton_tiles.cannot_run_on(inputs.table_V2.device)


def forward(inputs: Inputs) -> Tensor:
    """ids int64 [num_groups, num_draws] on the table's device; equals `reference.forward`."""
    table_V2, counter_2 = inputs.table_V2.contiguous(), inputs.counter_2
    num_groups, num_draws = inputs.num_groups, inputs.num_draws
    if not isinstance(counter_2, Tensor):
        words = [int(word) - 2**64 * (int(word) >> 63) for word in counter_2]
        # Fills, not a copy from the host, which would wait.
        given = {"dtype": torch.int64, "device": table_V2.device}
        counter_2 = torch.stack([torch.full((), word, **given) for word in words])
    id_GK = torch.empty((num_groups, num_draws), dtype=torch.int64, device=table_V2.device)
    block = 256
    grid = (num_groups * triton.cdiv(num_draws, block),)
    if id_GK.numel():
        with triton_tiles.on_device(table_V2):
            triton_tiles.launch(
                draw_kernel,
                grid,
                table_ptr=table_V2,
                counter_ptr=counter_2.contiguous(),
                id_ptr=id_GK,
                num_items=table_V2.shape[0],
                first_group=inputs.group,
                num_groups=num_groups,
                num_draws=num_draws,
                BLOCK_K=block,
            )
    return id_GK
