"""One training step of a large catalogue: wall time, what the device does of it, and a trace."""

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from bench_train_step import Ours, Plain
from shapes import GPU_STEP, Softmax

from fastpop.training import captured
from gpu import figures
from gpu.context import Context, Skip
from gpu.timing import host_timed

TRACED = 5
STEPS = 32


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for shape in GPU_STEP:
        yield f"ours {shape}", partial(measure, context, shape)
        yield f"graph {shape}", partial(recorded, context, shape)
        yield f"torch {shape}", partial(plain, context, shape)


def measure(context: Context, shape: Softmax) -> None:
    run = Ours(shape)
    for _ in range(3):
        run.step()
    context.timed(figures.step(shape), host_timed(run.step, 50))
    trace(context, run)


def recorded(context: Context, shape: Softmax) -> None:
    """One of 32 steps as graphs, as a run makes them between two looks at the device; first that they have
    the losses of steps that are not recorded."""
    if not context.cuda:
        raise Skip("no CUDA device: no graph to record")
    run, eager = Ours(shape, cuda_graph=True), Ours(shape, cuda_graph=True)
    with eager.make.running(), mock.patch.object(captured, "MOST_GRAPHS", 0):
        expected = [eager.step().item() for _ in range(8)]
    with run.make.running():
        losses = [run.step().item() for _ in range(8)]
        context.check(
            "train step: as a graph, the losses of one that is not",
            losses == expected and run.make.num_graphs > 0,
            losses=losses,
            expected=expected,
        )
        times = host_timed(lambda: [run.step() for _ in range(STEPS)], 20)
    seconds, low, high = (one / STEPS for one in times[:3])
    context.timed(figures.graph_step(shape), times._replace(seconds=seconds, low=low, high=high))


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
