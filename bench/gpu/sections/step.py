"""One training step of a large catalogue: wall time, what the device does of it, and a trace."""

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from bench_train_step import Ours, Plain
from shapes import GPU_STEP, Softmax

from gpu import figures
from gpu.context import Context
from gpu.timing import host_timed

TRACED = 5


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for shape in GPU_STEP:
        yield f"ours {shape}", partial(measure, context, shape)
        yield f"torch {shape}", partial(plain, context, shape)


def measure(context: Context, shape: Softmax) -> None:
    run = Ours(shape)
    for _ in range(3):
        run.step()
    context.timed(figures.step(shape), host_timed(run.step, 50))
    trace(context, run)


def plain(context: Context, shape: Softmax) -> None:
    context.timed(f"{figures.step(shape)}, plain torch", host_timed(Plain(shape).step, 30))


def trace(context: Context, run: Ours) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if context.cuda:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(TRACED):
            run.step()
    table = profile.key_averages()
    own = "self_device_time_total" if context.cuda else "self_cpu_time_total"
    busy = sum(getattr(one, own) for one in table) / 1e6 / TRACED
    launches = sum(one.count for one in table if "LaunchKernel" in one.key) / TRACED
    context.add("fact", "train step: device", busy_ms=round(busy * 1e3, 3), launches=launches)
    for one in sorted(table, key=lambda one: -getattr(one, own))[:12]:
        context.add(
            "fact", f"  {one.key[:44]}", us=round(getattr(one, own) / TRACED, 1), times=one.count / TRACED
        )
    with tempfile.TemporaryDirectory() as folder:
        plain_file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(plain_file))
        with open(plain_file, "rb") as source, gzip.open(context.out / "gpu-day-trace.json.gz", "wb") as out:
            shutil.copyfileobj(source, out)
