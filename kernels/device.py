"""What the Python sides of the CUDA kernels share: where they run, and why they may not.

Every kernel of csrc/<op>/cuda.cu has a host emulation: the same code on the CPU, its lanes in a loop.
Tests set `where` to "cpu" to run that emulation behind the same Python; nothing else may.
"""

from typing import Any

import torch
from torch import Tensor

from fastpop import _C
from fastpop.kernels import fields, native

where = "cuda"

MAX_DIM: int = _C.max_dim
MAX_INT32 = 2**31 - 1


def unsupported(**tensors: Tensor) -> str | None:
    """Why the CUDA kernels, which compute in float32, do not take these [rows, D] tensors."""
    if where == "cuda" and (reason := native.without_cuda()):
        return reason
    for name, tensor in tensors.items():
        if tensor.dtype not in native.DTYPE_CODES:
            return f"{name} is {str(tensor.dtype)[6:]}, these kernels compute in float32"
        if tensor.device.type != where:
            return f"{name} is on {tensor.device}, not on a CUDA device"
        if where == "cuda" and (reason := native.without_code_for(tensor.device)):
            return reason
        if tensor.shape[1] > MAX_DIM:
            return f"{name} has {tensor.shape[1]} dimensions, these kernels take up to {MAX_DIM}"
        if tensor.shape[0] > MAX_INT32:
            return f"{name} has {tensor.shape[0]} rows, these kernels take up to 2^31 - 1"
    return native.negated(**tensors)


def run(kernel: str, device: torch.device, *options: bool, **arguments: Any) -> None:
    """Asynchronously on the device's current stream; an error of the launch is raised."""
    if where == "cpu":
        getattr(_C, f"{kernel}_host")(*options, **arguments)
        return
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        getattr(_C, f"{kernel}_cuda")(*options, stream=stream, **arguments)


def named(inputs: Any) -> tuple[dict[str, Any], list[Tensor]]:
    """An op's inputs by name, as the bindings of CUDA kernels read them: numbers stay on the device. And
    what to hold until the kernel is launched."""
    return fields.named(inputs, native.matrix, native.pointer, native.pointer)
