"""`fastpop doctor`: which implementation of each op is active here, and why others are not."""

import importlib.util
import os
import platform
import shutil

import torch

import fastpop
from fastpop.ops._dispatch import AUTO_ORDER, IMPLEMENTATIONS

PACKAGES = ("duckdb", "tyro", "matplotlib", "pyarrow", "polars", "pandas", "triton", "tensorboard")


def report() -> str:
    """The state of this installation as text, at most 80 columns."""
    lines = [
        f"fastpop {fastpop.__version__}, Python {platform.python_version()}, "
        f"torch {torch.__version__}",
        f"processor: {platform.machine()}, {os.cpu_count()} cores, torch uses "
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        f"CUDA device: {_cuda()}",
        f"compiled module: {_extension()}",
        f"nvcc: {'found' if shutil.which('nvcc') else 'not on PATH'}",
        "packages: " + ", ".join(f"{name} {'yes' if _has(name) else 'no'}" for name in PACKAGES[:4])
        + ",",
        "          " + ", ".join(f"{name} {'yes' if _has(name) else 'no'}" for name in PACKAGES[4:]),
        "",
        f"{'op':18}{'cpu':14}{'cuda':14}implementations",
    ]
    for op, implementations in IMPLEMENTATIONS.items():
        active = {device: next((name for name in order if name in implementations), "-")
                  for device, order in AUTO_ORDER.items()}
        if not torch.cuda.is_available():
            active["cuda"] = "no device"
        names = ", ".join(implementations)
        lines.append(f"{op:18}{active['cpu']:14}{active['cuda']:14}{names}")
    lines += ["", "presets: " + ", ".join(fastpop.available("presets"))]
    return "\n".join(line if len(line) <= 80 else _wrapped(line) for line in lines)


def _wrapped(line: str) -> str:
    import textwrap

    return textwrap.fill(line, 80, subsequent_indent="         ")


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _cuda() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "none (torch sees no CUDA device" + (
        ")" if torch.version.cuda else "; this torch is built without CUDA)")


def _extension() -> str:
    try:
        importlib.import_module("fastpop.kernels.alias_draw._cpu")
    except ImportError as error:
        return f"does not load: {error}"
    return "fastpop._C loads"
