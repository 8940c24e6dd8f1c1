"""`fastpop doctor`: which implementation of each op is active here, why others are not, and every name."""

import importlib.util
import os
import platform
import shutil

import torch

import fastpop
from fastpop import registry
from fastpop.ops import availability
from fastpop.text import aligned
from fastpop.training import memory

PACKAGES = (
    "duckdb",
    "tyro",
    "matplotlib",
    "pyarrow",
    "polars",
    "pandas",
    "triton",
    "tensorboard",
    "threadpoolctl",
)


def report() -> str:
    """The state of this installation as text, at most 80 columns."""
    lines = [
        f"fastpop {fastpop.__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        f"processor: {platform.machine()}, {os.cpu_count()} cores, torch uses "
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        f"memory: {_memory()}; disk: {_disk()}",
        f"CUDA device: {_cuda()}",
        f"compiled module: {_extension()}",
        f"permutation test: {_kept()}",
        f"nvcc: {'found' if shutil.which('nvcc') else 'not on PATH'}",
        "packages: " + ", ".join(f"{name} {'yes' if _has(name) else 'no'}" for name in PACKAGES[:5]) + ",",
        "          " + ", ".join(f"{name} {'yes' if _has(name) else 'no'}" for name in PACKAGES[5:]),
        "",
    ]
    table = [["op", "cpu", "cuda", "implementations"]]
    missing = {name: why for name in ("cpu", "triton", "cuda") if (why := availability.why_not(name))}
    for op in availability.OPS:
        active = {device: availability.first(op, device) or "-" for device in ("cpu", "cuda")}
        if not torch.cuda.is_available():
            active["cuda"] = "no device"
        table.append([op, active["cpu"], active["cuda"], ", ".join(availability.available(op))])
    lines += aligned(table, least=(18, 14, 14), left=4, gap=0)
    if missing:
        lines += ["", *(f"{name} does not run here: {why}" for name, why in missing.items())]
    lines += [
        "",
        *(f"{kind.plural}: " + ", ".join(registry.all_of(name)) for name, kind in registry.KINDS.items()),
    ]
    return "\n".join(line if len(line) <= 80 else _wrapped(line) for line in lines)


def _wrapped(line: str) -> str:
    import textwrap

    return textwrap.fill(line, 80, subsequent_indent="         ", break_on_hyphens=False)


def _memory() -> str:
    left = memory.free(torch.device("cpu"))
    return "the system does not say" if left is None else f"{left / memory.GIB:.1f} GiB free"


def _disk() -> str:
    """Of the folder that a run without a path would go to."""
    try:
        return f"{shutil.disk_usage('.').free / memory.GIB:.1f} GiB free here"
    except OSError as error:
        return f"this folder cannot be read ({error.strerror})"


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _cuda() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "none (torch sees no CUDA device" + (
        ")" if torch.version.cuda else "; this torch is built without CUDA)"
    )


def _extension() -> str:
    return availability.why_not("cpu") or (
        f"fastpop._C loads, CPU kernels take the path {availability.cpu_path()}"
    )


def _kept() -> str:
    """Where its compiled form is kept."""
    place = availability.permutation_cache()
    return (
        "compiled anew in each process: no writable place for a cache"
        if place is None
        else f"compiled once, kept in {place}"
    )
