"""A compiled module that loads and launches, and what the machine is."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from gpu import layout
from gpu.context import Context, Skip

QUERY = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"
NEAR = ("numpy", "triton", "pytest", "hypothesis", "xdist", "duckdb", "liger_kernel", "cut_cross_entropy")


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "machine", partial(machine, context)
    yield "compiled module", partial(module, context)
    yield "a kernel runs", partial(launch, context)
    yield "peers", partial(peers, context)


def machine(context: Context) -> None:
    import torch

    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
    }
    context.add("fact", "software", **facts, **{name: version_of(name) for name in NEAR})
    if context.cuda:
        found = torch.cuda.get_device_properties(0)
        context.add(
            "fact",
            "device",
            device=found.name,
            sm=f"{found.major}{found.minor}",
            processors=found.multi_processor_count,
            memory=found.total_memory,
            nvidia_smi=output("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"),
        )
        return
    context.add("fact", "device", device=platform.machine(), nvidia_smi=None)


def version_of(name: str) -> str | None:
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec(name) is None:
        return None
    known = {
        "xdist": "pytest-xdist",
        "liger_kernel": "liger-kernel",
        "cut_cross_entropy": "cut-cross-entropy",
    }
    try:
        return importlib.metadata.version(known.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return "found"


def output(*words: str) -> str | None:
    if shutil.which(words[0]) is None:
        return None
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return done.stdout.strip() or done.stderr.strip()[:200]


def module(context: Context) -> None:
    """The first that loads: one that was carried here, the installed one, one built now."""
    carried = context.carried / "build" / "fastpop" / layout.MODULE
    refusals = []
    if not carried.exists():
        refusals.append(f"carried: none of the name {layout.MODULE}")
    elif not layout.is_of_these_sources(carried):
        refusals.append("carried: it was made from other sources")
    else:
        layout.lay_out(context.site, carried)
        if not (why := layout.loads(context.site, cuda=context.cuda)):
            context.add("fact", "compiled module", source="carried", bytes=carried.stat().st_size)
            return
        refusals.append(f"carried: {why}")
        shutil.rmtree(context.site / "fastpop")
    if not (why := layout.loads(None, cuda=context.cuda)):
        context.add("fact", "compiled module", source="installed", before="; ".join(refusals))
        return
    refusals.append(f"installed: {why}")
    built = layout.build(
        context.site / "build", arch(), context.out / "gpu-day-build.log", cuda="1" if context.cuda else "0"
    )
    layout.lay_out(context.site, built)
    why = layout.loads(context.site, cuda=context.cuda)
    context.check(
        "compiled module", not why, source="built", arch=arch(), why=why, before="; ".join(refusals)
    )


def peers(context: Context) -> None:
    """Wheels of pure Python, which need torch and Triton alone, unpacked where the sections find them."""
    found = sorted(context.carried.glob("wheels/*-none-any.whl"))
    if not found:
        raise Skip("no wheels were carried")
    for wheel in found:
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(context.site)
    context.add("fact", "peers", wheels=[wheel.name for wheel in found])


def arch() -> str:
    """Of the card at hand."""
    import torch

    if not torch.cuda.is_available():
        return "90"
    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}"


def launch(context: Context) -> None:
    """One CUDA kernel of the module, in a process that sees what was laid out just now."""
    if not context.cuda:
        raise Skip("no CUDA device")
    code = (
        "import torch; from fastpop import ops; t = torch.ones(9, 8, device='cuda'); "
        "ops.row_sgd_(t, torch.tensor([1, 4], device='cuda'), torch.ones(2, 8, device='cuda'), lr=1.0, "
        "impl='cuda'); print(t.sum().item())"
    )
    path = os.pathsep.join([str(context.site), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    context.check(
        "a CUDA kernel of fastpop._C",
        done.stdout.strip() == "56.0",
        said=(done.stdout + done.stderr).strip()[-200:],
    )
