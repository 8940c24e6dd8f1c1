"""Alias draws on a CUDA device (csrc/alias_draw/cuda.cu): the ids of the CPU, bit for bit.

The counter goes in by value: where it is a tensor the host waits for it.
"""

import torch

from fastpop import _C
from fastpop.kernels import native
from fastpop.kernels.alias_draw.reference import Inputs


def unsupported(inputs: Inputs) -> str | None:
    if (reason := native.without_cuda()) is not None:
        return reason
    table_V2 = inputs.table_V2
    if not isinstance(table_V2, torch.Tensor) or not table_V2.is_cuda:
        return "the table is not on a CUDA device"
    return native.without_code_for(table_V2.device)


def forward(inputs: Inputs) -> torch.Tensor:
    """ids [num_groups, num_draws] int64 on the table's device, on its current stream; equals
    `reference.forward`."""
    table_V2, counter_2 = inputs.table_V2.contiguous(), inputs.counter_2
    words = counter_2.tolist() if isinstance(counter_2, torch.Tensor) else counter_2
    seed, step = (int(word) % 2**64 for word in words)
    device = table_V2.device
    ids_GK = torch.empty((inputs.num_groups, inputs.num_draws), dtype=torch.int64, device=device)
    with torch.cuda.device(device):
        _C.alias_draw_cuda(
            table=native.pointer(table_V2),
            num_items=table_V2.shape[0],
            seed=seed,
            step=step,
            group=inputs.group,
            num_groups=inputs.num_groups,
            num_draws=inputs.num_draws,
            ids=native.pointer(ids_GK),
            stream=torch.cuda.current_stream(device).cuda_stream,
        )
    return ids_GK
