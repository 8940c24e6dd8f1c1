"""Triton without a card: kernels compile for a named architecture, and nothing is launched.

Ops are called on CPU tensors whose launches would be those of the card: same sizes, strides, dtypes and
alignment, hence the same compiled kernels under the same names in Triton's cache. Results mean nothing:
small arrays that a kernel takes become ones, so that what follows meets no NaN.
"""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from fastpop.kernels import triton_tiles
from fastpop.ops import _dispatch

SET = 2**23  # numbers of the largest array that is set: those that the top items choose from


class Driver:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def card(capability: int = 90, processors: int = 132) -> Iterator[list[tuple[str, Any]]]:
    """Inside, Triton ops take CPU tensors, compile, and launch nothing. Gives ("op kernel", compiled
    kernel) of every call."""
    launched: list[tuple[str, Any]] = []
    order = {"cpu": ("triton", "cpu", "reference")}
    run, split = JITFunction.run, triton_tiles.split

    def compile_only(self, *args, grid, warmup, **options):
        compiled = run(self, *args, grid=grid, warmup=True, **options)
        launched.append((f"{self.fn.__module__.split('.')[-2]} {self.fn.__name__}", compiled))
        for one in (*args, *options.values()):
            if isinstance(one, torch.Tensor) and one.numel() <= SET:
                one.detach().fill_(1)
        return compiled

    def split_as_there(num_programs, num_steps, device):
        return split(num_programs, num_steps, SimpleNamespace(type="cuda"))

    before = driver._active
    driver.set_active(Driver(capability))
    try:
        with (
            mock.patch.object(JITFunction, "run", compile_only),
            mock.patch.object(triton_tiles, "unsupported", return_value=None),
            mock.patch.object(triton_tiles, "capability", return_value=capability),
            mock.patch.object(triton_tiles, "split", split_as_there),
            mock.patch.dict(_dispatch.AUTO_ORDER, order),
            mock.patch.object(
                torch.cuda,
                "get_device_properties",
                return_value=SimpleNamespace(multi_processor_count=processors),
            ),
        ):
            yield launched
    finally:
        driver._active = before


def cache_key() -> dict[str, str]:
    """What the names in Triton's cache depend on beside the kernels themselves, as short digests."""
    import hashlib

    from triton._C.libtriton import get_cache_invalidating_env_vars
    from triton.backends.nvidia.compiler import CUDABackend
    from triton.compiler import compiler

    def short(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    key = getattr(compiler, "triton_key", None)
    if key is None:
        from triton.runtime.cache import triton_key as key
    backend = CUDABackend(GPUTarget("cuda", 90, 32))
    words = str(sorted(get_cache_invalidating_env_vars().items()))
    return {
        "triton": triton.__version__,
        "files": short(key()),
        "ptxas": str(backend.hash()),
        "options": short(str(backend.parse_options({}).hash())),
        "environment": words,
    }
