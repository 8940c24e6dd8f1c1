"""What the Python sides of the C++ kernels share: addresses of tensors, and the processor's path.

FASTPOP_CPU=<one of PATHS> in the environment forces a path (the default, auto, takes the best that the
processor has); one that it lacks is an error at import. The last of PATHS is for tests: AMX's tile
registers, emulated bit for bit.
"""

import functools
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import _C
from fastpop.kernels import fields, forks
from fastpop.kernels.views import view_of

PATHS = ("baseline", "avx2", "avx512", "avx512_bf16", "avx512_amx", "avx512_amx_emulation")
path = os.environ.get("FASTPOP_CPU") or "auto"
if path != "auto" and not _C.has_path(path):
    here = [name for name in PATHS if _C.has_path(name)]
    raise ValueError(f"FASTPOP_CPU: expected auto or one of {here}, which this processor has; got {path!r}")

has_path, exp, bf16_products = _C.has_path, _C.exp, _C.bf16_products
compiler: str = _C.compiler
DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def without_cuda() -> str | None:
    """Why nothing of this build runs on a CUDA device."""
    return None if _C.has_cuda else "fastpop._C was built without CUDA (build with nvcc, FASTPOP_CUDA=1)"


def without_code_for(device: torch.device) -> str | None:
    """Why a CUDA device cannot run what this build was compiled to."""
    major, minor = torch.cuda.get_device_capability(device)
    return without_code(10 * major + minor, _C.cuda_arches)


@functools.cache
def without_code(capability: int, arches: str) -> str | None:
    """The same for a list such as 80,90,100+PTX.

    Machine code runs on its own architecture and later ones of its generation, that of 90a on sm_90
    alone; PTX is compiled for any later one by the driver.
    """
    for arch in arches.split(","):
        name, _, ptx = arch.strip().partition("+")
        number, generation = int(name.rstrip("af")), int(name.rstrip("af")) // 10
        if number == capability:
            return None
        if number < capability and not name.endswith("a") and (ptx or generation == capability // 10):
            return None
    return (
        f"the device is sm_{capability}, this build of fastpop._C has code for {arches} "
        f"(build it with FASTPOP_CUDA_ARCHES={capability})"
    )


def path_taken() -> str:
    """What `auto` stands for here, or the forced path."""
    return _C.best_path() if path == "auto" else path


def threads_of() -> str:
    """Whose the threads of the C++ kernels are."""
    return _C.threads_of()


def unsupported(**tensors: Tensor) -> str | None:
    """Why the C++ kernels, which compute in float32 on the CPU, do not take these."""
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}"
        if tensor.dtype not in DTYPE_CODES:
            return f"{name} is {str(tensor.dtype)[6:]}, these kernels compute in float32"
    return negated(**tensors)


def negated(**tensors: Tensor | None) -> str | None:
    """Why what lies in memory is not what these hold."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.is_neg():
            return f"{name} is a view whose numbers are to be negated (resolve_neg() makes them)"
    return None


# Operations worth waking another thread for: below them it costs more than it does.
WORK_A_THREAD = 2_000_000


def threads_for(work: int) -> int:
    """How many of torch's threads a kernel of so many operations should use."""
    return max(1, min(all_threads(), work // WORK_A_THREAD))


def all_threads() -> int:
    """torch's number."""
    forks.settle_after_fork()
    return torch.get_num_threads()


def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """For a kernel to fill, whatever torch's default dtype and device are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def matrix(tensor: Tensor) -> tuple[int, int, int, int]:
    """(address, row stride, column stride, dtype code)."""
    return pointer(tensor), tensor.stride(0), tensor.stride(1), DTYPE_CODES[tensor.dtype]


def pointer(tensor: Tensor) -> int:
    """Where the numbers lie. The last guard before C++: a subclass that keeps them elsewhere has 0."""
    place = tensor.data_ptr()
    if place == 0 and tensor.numel():
        raise TypeError(f"expected a tensor whose numbers are in memory; got {type(tensor).__name__}")
    return place


def address(tensor: Tensor | None) -> int:
    """Of contiguous numbers; 0 for None."""
    if tensor is None:
        return 0
    assert tensor.is_contiguous(), "a bug of the caller: these numbers must be contiguous"
    return pointer(tensor)


def named(inputs: Any) -> tuple[dict[str, Any], list[Tensor]]:
    """An op's inputs by name, as the bindings of C++ read them, and what to hold until they have."""
    return fields.named(inputs, matrix, pointer, Tensor.item)


def place(array: np.ndarray | None) -> int:
    """The address of a contiguous array; 0 for None."""
    if array is None:
        return 0
    assert array.flags.c_contiguous, "a bug of the caller: these numbers must be contiguous"
    return array.ctypes.data


def rows(value: Any) -> tuple[Tensor | None, np.ndarray | None]:
    """Rows, numpy or torch: a float tensor that kernels read as it is, or a contiguous float64 array."""
    if isinstance(value, Tensor):
        value = value.detach()
        if value.dtype in DTYPE_CODES:
            return value, None
        return None, np.ascontiguousarray(value.numpy(), np.float64)
    if value.dtype in (np.float32, np.float16):
        return view_of(value), None
    return None, np.ascontiguousarray(value, np.float64)
