"""Memory: how much of it is free, and large tables on huge pages, where the system gives them.

A step reads rows all over a table. On pages of 4 KiB each of these costs a walk through tables of pages that
are themselves out of cache (8 bytes for each 4 KiB: 5 MB for a table of 2.5 GB); of 2 MiB a core keeps most
of the walks. Linux gives them to who asks (`madvise` in
/sys/kernel/mm/transparent_hugepage/enabled, the default of most distributions), for memory that nobody has
written yet; numpy asks for its arrays itself. docs/scaling.md has what they give.
"""

import ctypes
import functools
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

LEAST = 1 << 22  # bytes that are worth asking for
PIECE = 1 << 20  # rows that are copied at once


def on_huge_pages(fresh: "torch.Tensor") -> "torch.Tensor":
    """The same tensor, just made and not yet written, on huge pages where it is large and lies in memory.

    Elsewhere, and where the system refuses, nothing happens: no number depends on it.
    """
    import torch

    advise = _madvise()
    plain = type(fresh) is torch.Tensor and fresh.device.type == "cpu"  # others may have no address
    if advise is None or not plain or fresh.numel() * fresh.element_size() < LEAST:
        return fresh
    first = -(-fresh.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = fresh.data_ptr() + fresh.numel() * fresh.element_size()
    advise(first, last - first, mmap.MADV_HUGEPAGE)
    return fresh


def tensor_of(array: np.ndarray, dtype: Any, device: Any = "cpu") -> "torch.Tensor":
    """`torch.tensor(array, dtype=dtype, device=device)`, on huge pages where it is large."""
    import torch

    if torch.device(device).type != "cpu" or array.size * dtype.itemsize < LEAST:
        return torch.tensor(array, dtype=dtype, device=device)
    made = on_huge_pages(torch.empty(array.shape, dtype=dtype))
    for low in range(0, len(array), PIECE):  # a piece: torch wants arrays that it may write to
        made[low : low + PIECE] = torch.from_numpy(array[low : low + PIECE].copy())
    return made


@functools.cache
def _madvise() -> Callable[[int, int, int], Any] | None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return call


def give_back() -> None:
    """Let the system have what this process has freed: glibc keeps pieces of some megabytes otherwise."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another library than glibc, another system
        return None


def free() -> int | None:
    """Bytes of memory that may still be taken, swap included; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {name: 1024 * int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    left = [sizes["MemAvailable"] + sizes.get("SwapFree", 0)] if "MemAvailable" in sizes else []
    left += _group()
    return min(left) if left else None


def _group(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What a container's limit leaves (cgroup v2); pages of files that it can drop are no use of it."""
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [] if limit == "max" else [int(limit) - used + int(stat.get("inactive_file", 0))]
