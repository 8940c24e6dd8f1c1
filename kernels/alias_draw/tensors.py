"""Draws for torch callers: table and counter are tensors, so the step may change on the device."""

from typing import TYPE_CHECKING

from fastpop.kernels.alias_draw import _cpu, _cuda

if TYPE_CHECKING:
    from torch import Tensor

_WORD64 = 2**64


def draw_ids(
    table_V2: "Tensor", counter_2: "Tensor", group: int, num_groups: int, num_negatives: int
) -> "Tensor":
    """ids int64 [num_groups, num_negatives] of groups group, group + 1, ... on the table's device.

    table_V2: int32 [V, 2], the bits of the reference's table. counter_2: int64 [2], the bits of
    (seed, step); reading it waits for the device, which kernels that draw inside do not.
    """
    import torch

    seed, step = (word % _WORD64 for word in counter_2.tolist())
    if _cuda.unsupported(table_V2) is None:
        return _cuda.draw(table_V2, seed, step, group, num_groups, num_negatives)
    table = table_V2.cpu().numpy().view("uint32")
    ids_GK = _cpu.draw(table, seed, step, group, num_groups, num_negatives)
    return torch.from_numpy(ids_GK).to(table_V2.device)
