"""Triton kernels of the day into the cache, on all cores. What was carried is found there."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

from gpu.context import Context, Skip
from gpu.progress import bar

KEYS = "triton-key.json"


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "cache key", partial(key, context)
    yield "kernels", partial(kernels, context)


def key(context: Context) -> None:
    """Whether the names in a carried cache are those that Triton gives here."""
    triton_or_skip()
    from gpu import pretend

    here = pretend.cache_key()
    context.add("fact", "cache key", **here)
    there_file = context.carried / KEYS
    if not there_file.exists():
        raise Skip("no cache was carried")
    there = json.loads(there_file.read_text())
    differs = [name for name in here if here[name] != there.get(name)]
    context.add("fact", "carried cache", fits=not differs, differs=differs)


def triton_or_skip() -> None:
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise Skip(f"Triton: {error}") from None


def kernels(context: Context) -> None:
    triton_or_skip()
    from gpu import launches

    names = list(launches.cases())
    if not context.cuda:
        started = time.monotonic()
        found = [one for one in names if one.startswith("energy")][:1]
        report(context, {name: compile_case(name, 90) for name in found}, started)
        return
    from gpu.sections.install import arch

    report(context, *in_parallel(names, int(arch()), os.cpu_count() or 1))


def in_parallel(
    names: list[str], capability: int, workers: int, function: Callable[[str, int], dict] | None = None
) -> tuple[dict[str, dict], float]:
    """What each case said, and when the first began."""
    started = time.monotonic()
    # As without a card: a context of CUDA a process would take longer than compiling.
    os.environ |= {"FASTPOP_BENCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    found: dict[str, dict] = {}
    with ProcessPoolExecutor(min(workers, len(names)), multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(function or compile_case, name, capability): name for name in names}
        for done in bar(as_completed(waiting), "compiling", len(waiting)):
            error = done.exception()
            found[waiting[done]] = {"error": str(error)[:300]} if error else done.result()
    return found, started


def compile_case(name: str, capability: int) -> dict:
    """Compiles the kernels of a case of launches.py; {"from_cache", "compiled", "error"}."""
    from triton import knobs

    from gpu import launches, pretend

    counts = {"from_cache": 0, "compiled": 0}

    def listen(*, cache_hit: bool, **_) -> None:
        counts["from_cache" if cache_hit else "compiled"] += 1

    knobs.compilation.listener = listen
    try:
        with pretend.card(capability):
            launches.cases()[name]()
    except Exception as error:
        return counts | {"error": f"{type(error).__name__}: {error}"[:300]}
    return counts


def report(context: Context, found: dict[str, dict], started: float) -> None:
    for name, one in found.items():
        if "error" in one:
            context.add("error", f"compiling {name}", error=one["error"])
    context.add(
        "fact",
        "kernels compiled beforehand",
        cases=len(found),
        from_cache=sum(one.get("from_cache", 0) for one in found.values()),
        compiled=sum(one.get("compiled", 0) for one in found.values()),
        seconds=round(time.monotonic() - started, 1),
    )
