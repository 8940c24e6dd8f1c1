"""What every measurement needs: where it runs, the machine's two ceilings, and peak memory."""

import ctypes
import gc
import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from shapes import SMALL

DEVICE = torch.device(os.environ.get("FASTPOP_BENCH_DEVICE", "cpu"))
CLEAR_REFS = Path("/proc/self/clear_refs")


@contextmanager
def judged(contender: str) -> Iterator[None]:
    """Around a contender's first result and its check. Ours must be right or say why it cannot run;
    a peer that is wrong, or cannot, is left out by name."""
    try:
        yield
    except NotImplementedError as refusal:
        pytest.skip(f"{contender}: {refusal}")
    except AssertionError as error:
        if contender.startswith("fastpop"):
            raise
        pytest.skip(f"{contender}: wrong: {error}")


def peer(contender: str, module: str) -> ModuleType:
    """The module that a peer needs, or a skip that names the peer."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{contender}: {error}; bench/peers.txt says how it installs")


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def zipf_counts(items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).zipf(1.8, items).clip(max=10**6).astype(np.float64)


def ceilings() -> dict[str, float]:
    """What this machine does at best just now: GEMM FLOP/s by dtype, and bytes/s of a copy.

    Reads and writes both count as bytes. The best of several runs: a ceiling, not a mean.
    """
    size = 256 if SMALL else 2048 if DEVICE.type == "cpu" else 8192
    found = {}
    for dtype in ("float32", "bfloat16"):
        matrix = torch.randn(size, size, device=DEVICE).to(getattr(torch, dtype))
        product = torch.empty_like(matrix)
        found[f"gemm_{dtype}"] = 2 * size**3 / _best(partial(torch.mm, matrix, matrix, out=product))
    source = torch.ones((2**20 if SMALL else 2**28) // 4, device=DEVICE)
    target = torch.empty_like(source)
    found["copy"] = 2 * source.nbytes / _best(lambda: target.copy_(source))
    return found


def _best(run: Callable[[], object], rounds: int = 8) -> float:
    seconds = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def memory_of(run: Callable[[], object]) -> tuple[int, int] | None:
    """(peak, left): bytes above what was held before `run`, at its worst moment and after it.

    On CUDA from torch's allocator. On Linux from the kernel's high-water mark of resident memory,
    reset before the call, after free heap went back to the system; so it counts every library's
    allocations, in pages. None where neither exists. What `run` reads must have been touched.
    """
    gc.collect()
    if DEVICE.type == "cuda":
        wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        wait()
        return torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    if not os.access(CLEAR_REFS, os.W_OK):
        return None
    _trim()
    CLEAR_REFS.write_text("5")
    before = _resident("VmRSS")
    run()
    peak = _resident("VmHWM")
    _trim()
    left = _resident("VmRSS")
    return max(peak - before, left - before, 0), max(left - before, 0)  # the kernel counts pages in batches


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
