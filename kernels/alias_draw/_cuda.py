"""Alias draws on a CUDA device (csrc/alias_draw/cuda.cu): the ids of the CPU, bit for bit."""

from typing import TYPE_CHECKING

from fastpop import _C

if TYPE_CHECKING:
    import torch


def unsupported(table_V2: "torch.Tensor") -> str | None:
    if not _C.has_cuda:
        return "fastpop._C was built without CUDA (build with nvcc, FASTPOP_CUDA=1)"
    if not hasattr(table_V2, "is_cuda") or not table_V2.is_cuda:
        return "the table is not on a CUDA device"
    from fastpop.kernels import native  # which imports torch: drawing on the host needs none

    return native.without_code_for(table_V2.device)


def draw(
    table_V2: "torch.Tensor", seed: int, step: int, group: int, num_groups: int, num_draws: int
) -> "torch.Tensor":
    """ids [num_groups, num_draws] int64 on the table's device, on its current stream.

    table_V2: the reference's table as contiguous int32 (the same bits) [V, 2].
    """
    import torch

    device = table_V2.device
    ids_GK = torch.empty((num_groups, num_draws), dtype=torch.int64, device=device)
    with torch.cuda.device(device):
        _C.alias_draw_cuda(
            table=table_V2.data_ptr(), num_items=table_V2.shape[0], seed=seed, step=step,
            group=group, num_groups=num_groups, num_draws=num_draws, ids=ids_GK.data_ptr(),
            stream=torch.cuda.current_stream(device).cuda_stream,
        )
    return ids_GK
