"""`fastpop doctor`: which implementation of each op is active here, why others are not, and every name."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import Any

import torch

import fastpop
from fastpop import files, registry
from fastpop.ops import availability
from fastpop.text import aligned
from fastpop.training import memory

PACKAGES = (
    *("numpy", "numba", "safetensors", "threadpoolctl", "tqdm"),  # needed
    *("duckdb", "tyro", "matplotlib", "pyarrow", "polars", "pandas", "triton"),
    *("tensorboard", "wandb", "mlflow", "faiss-cpu", "onnxruntime"),
)
LEAST = memory.GIB  # of memory and of disk, below which little can be trained


def found() -> dict[str, Any]:
    """The state of this installation as plain data: what `report` says, and `fastpop doctor --json`."""
    left, disk = memory.free(torch.device("cpu")), _disk()
    ops = {}
    for op in availability.OPS:
        active = {device: availability.first(op, device) for device in ("cpu", "cuda")}
        ops[op] = {**active, "implementations": availability.available(op)}
    here: dict[str, Any] = {
        "version": fastpop.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "cores_usable": _usable(),
        "torch_threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "memory_free_bytes": left,
        "disk_free_bytes": disk if isinstance(disk, int) else None,
        "disk": disk if isinstance(disk, str) else f"{disk / memory.GIB:.1f} GiB free here",
        "file_locks": _locks(),
        "cards": _cards(),
        "cuda_device": _cuda(),
        "compiled_module": _extension(),
        "permutation_test": _kept(),
        "nvcc": shutil.which("nvcc"),
        "packages": {name: _version(name) for name in PACKAGES},
        "ops": ops,
        "does_not_run": {
            name: why for name in ("cpu", "triton", "cuda") if (why := availability.why_not(name))
        },
        "names": {kind.plural: list(registry.all_of(name)) for name, kind in registry.KINDS.items()},
    }
    return {**here, "problems": problems(here)}


def problems(here: dict[str, Any]) -> list[str]:
    """What stands in the way of work, and what helps."""
    said = []
    left, disk = here["memory_free_bytes"], here["disk_free_bytes"]
    if left is not None and left < LEAST:
        said.append(f"memory: {left / memory.GIB:.2f} GiB are free; end other programs, or raise the limit")
    if disk is None:
        said.append(f"disk: {here['disk']}; go to a folder that can be read")
    elif disk < LEAST:
        said.append(f"disk: {disk / memory.GIB:.2f} GiB are free here; give --out on another disk")
    threads, cores = here["torch_threads"], here["cores_usable"]
    if threads > cores:
        said.append(f"threads: torch uses {threads} on {cores} cores; set OMP_NUM_THREADS")
    if "cpu" in here["does_not_run"]:
        said.append("the compiled module does not load: the reference runs, many times slower")
    if here["file_locks"] is not True:
        said.append(f"file locks: {here['file_locks']}; two processes in one folder would not be told apart")
    for card in here["cards"]:
        if card["memory_free_bytes"] < LEAST:
            said.append(f"card {card['name']}: less than 1 GiB is free")
    return said


def report(here: dict[str, Any] | None = None) -> str:
    """The state of this installation as text, at most 80 columns: what a bug report needs."""
    here = found() if here is None else here
    left = here["memory_free_bytes"]
    told = "the system does not say" if left is None else f"{left / memory.GIB:.1f} GiB free"
    threads = f"{here['torch_threads']} threads" + (
        f" (OMP_NUM_THREADS={here['omp_num_threads']})" if here["omp_num_threads"] else ""
    )
    locks = "work here" if here["file_locks"] is True else here["file_locks"]
    cards = [
        f"card: {one['name']}, {one['memory_free_bytes'] / memory.GIB:.1f} of "
        f"{one['memory_bytes'] / memory.GIB:.1f} GiB free, capability {one['capability']}"
        for one in here["cards"]
    ]
    lines = [
        f"fastpop {here['version']}, Python {here['python']}, torch {here['torch']}",
        f"system: {here['system']}",
        f"processor: {here['processor']}, {here['cores']} cores, {here['cores_usable']} for this process, "
        f"torch uses {threads}, {here['capability']}",
        f"memory: {told}; disk: {here['disk']}",
        f"file locks: {locks}",
        f"CUDA device: {here['cuda_device']}",
        *cards,
        f"compiled module: {here['compiled_module']}",
        f"permutation test: {here['permutation_test']}",
        f"nvcc: {'found' if here['nvcc'] else 'not on PATH'}",
        "packages: " + ", ".join(f"{name} {version or 'no'}" for name, version in here["packages"].items()),
        "",
    ]
    table = [["op", "cpu", "cuda", "implementations"]]
    for op, active in here["ops"].items():
        cuda = (active["cuda"] or "-") if torch.cuda.is_available() else "no device"
        table.append([op, active["cpu"] or "-", cuda, ", ".join(active["implementations"])])
    lines += aligned(table, least=(18, 14, 14), left=4, gap=0)
    if here["does_not_run"]:
        lines += ["", *(f"{name} does not run here: {why}" for name, why in here["does_not_run"].items())]
    lines += ["", *(f"{plural}: " + ", ".join(names) for plural, names in here["names"].items())]
    lines += ["", "problems: none found" if not here["problems"] else "problems:"]
    lines += [f"- {one}" for one in here["problems"]]
    lines = [line if len(line) <= 80 else _wrapped(line) for line in lines]
    return "\n".join(["for a bug report, as it is:", "```", *(line.rstrip() for line in lines), "```"])


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 80, subsequent_indent="         ", break_on_hyphens=False)


def _disk() -> int | str:
    """Bytes free in the folder that a run without a path would go to, or why nobody knows."""
    try:
        return shutil.disk_usage(".").free
    except OSError as error:
        return f"this folder cannot be read ({error.strerror})"


def _usable() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _locks() -> bool | str:
    """Whether files can be locked here; why not, or that it cannot be tried."""
    try:
        with (
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory(prefix=".fastpop-doctor-", dir=".") as place,
        ):
            warnings.simplefilter("error", RuntimeWarning)
            with files.locked(Path(place) / "lock", place):
                return True
    except RuntimeWarning:
        return "this file system has none"
    except OSError as error:
        return f"not tried, as nothing can be written here ({error.strerror})"


def _version(name: str) -> str | None:
    """Of an installed package; None: it is not there."""
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"


def _cards() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    cards = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        cards.append(
            {
                "name": torch.cuda.get_device_name(number),
                "memory_bytes": total,
                "memory_free_bytes": free,
                "capability": ".".join(map(str, torch.cuda.get_device_capability(number))),
                "cuda": torch.version.cuda,
            }
        )
    return cards


def _cuda() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "none (torch sees no CUDA device" + (
        ")" if torch.version.cuda else "; this torch is built without CUDA)"
    )


def _extension() -> str:
    return availability.why_not("cpu") or (
        f"fastpop._C loads (built by {availability.compiler()}), CPU kernels take the path "
        f"{availability.cpu_path()} on threads of {availability.threads_of()}"
    )


def _kept() -> str:
    """Where its compiled form is kept."""
    place = availability.permutation_cache()
    return (
        "compiled anew in each process: no writable place for a cache"
        if place is None
        else f"compiled once, kept in {place}"
    )
