"""Times of calls: by device events on a card, by the host's clock on a processor; and of graph replays."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from measuring import DEVICE
from shapes import SMALL

from gpu.context import Skip

FLUSH_BYTES = 256 * 2**20  # written between rounds: several times the L2 cache


class Times(NamedTuple):
    """seconds: the median of `rounds`. low, high: the fastest and the slowest."""

    seconds: float
    low: float
    high: float
    rounds: int
    clock: str


def timed(run: Callable[[], object], *, seconds: float = 0.8, least: int = 5, most: int = 40) -> Times:
    """As many rounds as `seconds` hold, each from a cold L2 cache, after two that are not counted."""
    run()
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    took = time.perf_counter() - start
    rounds = 2 if SMALL else min(max(int(seconds / took), least), most)
    if DEVICE.type == "cuda":
        return _by_events(run, rounds)
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return _summed(found, "host")


def _by_events(run: Callable[[], object], rounds: int) -> Times:
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=DEVICE)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for first, last in events:
        flush.zero_()  # also keeps the device busy while the host gets ahead of it
        first.record()
        run()
        last.record()
    torch.cuda.synchronize()
    return _summed([first.elapsed_time(last) / 1e3 for first, last in events], "events")


def replayed(run: Callable[[], object], *, rounds: int = 20, inside: int = 10) -> Times:
    """Of one replay of `run` captured as a graph, `inside` of them a round: no launch waits for the host.
    Caches stay warm.

    Raises Skip without a card, and what torch raises where `run` cannot be captured.
    """
    if DEVICE.type != "cuda":
        raise Skip("no CUDA device: no graph to capture")
    return _by_replays(run, rounds, inside)


def _by_replays(run: Callable[[], object], rounds: int, inside: int) -> Times:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for first, last in events:
        first.record()
        for _ in range(inside):
            graph.replay()
        last.record()
    torch.cuda.synchronize()
    return _summed([first.elapsed_time(last) / 1e3 / inside for first, last in events], "graph")


def host_timed(run: Callable[[], object], rounds: int = 20) -> Times:
    """By the host's clock, waiting for the device after each: what a training step takes."""
    rounds = 3 if SMALL else rounds
    run()
    _wait()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        _wait()
        found.append(time.perf_counter() - start)
    return _summed(found, "host")


def _summed(found: list[float], clock: str) -> Times:
    return Times(statistics.median(found), min(found), max(found), len(found), clock)


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
