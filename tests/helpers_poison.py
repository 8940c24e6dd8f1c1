"""Fresh memory that nobody wrote: NaN, or the largest integer, instead of what happens to lie there.

Under tests `torch.empty`, `torch.empty_like` and `Tensor.new_empty` make such memory, and so do `np.empty`
and `np.empty_like` as the modules of fastpop see them (numpy itself stays, since numba knows its functions
by their identity). What an op reads before it writes then changes a result that a test compares, every time.
The scratch memory of C++ kernels starts as NaN under the sanitizers (csrc/workspace.h).
"""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch

_OF_NUMBA = ("fastpop.kernels.permutation._numba", "fastpop.kernels.permutation._vector")
_torch_empty, _torch_empty_like, _new_empty = torch.empty, torch.empty_like, torch.Tensor.new_empty


def poisoned(fresh: Any) -> Any:
    """The same array or tensor, filled."""
    if isinstance(fresh, np.ndarray):
        if fresh.dtype.kind in "fc":
            fresh.fill(np.nan)
        elif fresh.dtype.kind in "iu":
            fresh.fill(np.iinfo(fresh.dtype).max)
        return fresh
    if type(fresh) is not torch.Tensor or fresh.device.type == "meta" or fresh.is_sparse:
        return fresh
    if fresh.is_floating_point() or fresh.is_complex():
        return fresh.fill_(torch.nan)
    return fresh if fresh.dtype == torch.bool else fresh.fill_(torch.iinfo(fresh.dtype).max)


class _Numpy(ModuleType):
    """numpy for one module of ours."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def empty(*args: Any, **options: Any) -> np.ndarray:
        return poisoned(np.empty(*args, **options))

    @staticmethod
    def empty_like(*args: Any, **options: Any) -> np.ndarray:
        return poisoned(np.empty_like(*args, **options))


_NUMPY = _Numpy("numpy")


def poison_numpy() -> None:
    """In every module of fastpop that has been imported so far."""
    for name, module in sys.modules.copy().items():
        if name.startswith("fastpop.") and name not in _OF_NUMBA and getattr(module, "np", None) is np:
            module.np = _NUMPY  # type: ignore[attr-defined]


def poison_torch(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "empty", lambda *args, **options: poisoned(_torch_empty(*args, **options)))
    monkeypatch.setattr(
        torch, "empty_like", lambda *args, **options: poisoned(_torch_empty_like(*args, **options))
    )
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda self, *args, **options: poisoned(_new_empty(self, *args, **options))
    )
