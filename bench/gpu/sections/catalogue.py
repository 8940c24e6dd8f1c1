"""What reads the whole catalogue: energies of scores, top items, ranks of targets."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from bench_score_energy import CONTEXTS, definition
from bench_score_energy import arrays_of as energy_arrays
from bench_target_ranks import ROWS
from bench_target_ranks import arrays_of as rank_arrays
from bench_target_ranks import check as check_ranks
from bench_target_ranks import ours as our_ranks
from bench_top_items import arrays_of as top_arrays
from bench_top_items import check as check_top
from shapes import GPU_ENERGY, GPU_TARGET_RANKS, GPU_TOP_ITEMS, Energy, TargetRanks, TopItems

from fastpop import ops
from fastpop.ops._dispatch import load
from gpu import figures
from gpu.context import Context


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for shape in GPU_ENERGY:
        for dtype in figures.SCORES:
            yield f"energy {shape} {dtype}", partial(energy, context, shape, dtype)
    for shape in GPU_TOP_ITEMS:
        for dtype in figures.SCORES:
            yield f"top {shape} {dtype}", partial(top, context, shape, dtype)
    for shape in GPU_TARGET_RANKS:
        for dtype in figures.SCORES:
            yield f"ranks {shape} {dtype}", partial(ranks, context, shape, dtype)


def impl_of(context: Context) -> str:
    return "triton" if context.cuda else "cpu"


def energy(context: Context, shape: Energy, dtype: str) -> None:
    query, item, log_prior = energy_arrays(shape)
    query, item = (one.to(getattr(torch, dtype)) for one in (query, item))

    few = query[: min(CONTEXTS, shape.contexts)], item, log_prior
    found = ops.score_energy(*few, form="streamed", impl=impl_of(context))
    error = float(np.abs(np.divide((found.total, found.direction), definition(*few)) - 1).max())
    name = figures.energy(shape, dtype)
    context.check(f"{name} float64", error < 1e-4, error=error)
    # The sums alone: what the op does besides, it does on the host.
    module, along = load("score_energy", impl_of(context)), log_prior - log_prior.mean()
    inputs = module.Inputs(query, item, along / np.linalg.norm(along), 1.0)
    context.time(name, lambda: module.forward(inputs))


def top(context: Context, shape: TopItems, dtype: str) -> None:
    query, item, offsets, seen = top_arrays(shape)
    # Rounded before they are checked: bfloat16 rows have exact products in float32.
    query, item = (one.to(getattr(torch, dtype)) for one in (query, item))

    def run(rows: int = shape.rows):
        return ops.top_items(
            query[:rows],
            item,
            shape.k,
            exclude_offsets=offsets[: rows + 1],
            exclude_item=seen[: rows * shape.seen],
            impl=impl_of(context),
        )[0]

    few = min(64, shape.rows)
    error = check_top(run(few), query[:few], item, offsets[: few + 1], seen[: few * shape.seen])
    name = figures.top(shape, dtype)
    context.check(f"{name} float64", True, error=error)
    context.time(name, run)


def ranks(context: Context, shape: TargetRanks, dtype: str) -> None:
    query, item, target, offsets, seen = rank_arrays(shape)
    query, item = (one.to(getattr(torch, dtype)) for one in (query, item))
    few = query[:ROWS], item, target[:ROWS], offsets[: ROWS + 1], seen[: ROWS * shape.seen]
    impl = impl_of(context)
    error = check_ranks(our_ranks(*few, impl=impl), *few)
    name = figures.ranks(shape, dtype)
    context.check(f"{name} float64", True, error=error)
    context.time(name, lambda: our_ranks(query, item, target, offsets, seen, impl=impl))
