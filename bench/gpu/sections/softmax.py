"""Shared negatives at the shapes of the bars: forward, and forward and backward."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import torch
from bench_sampled_softmax import case_of
from measuring import DEVICE, memory_of
from shapes import GPU_GRAPH, GPU_SHARED, Softmax
from softmax_gate import check

from fastpop import Draw, ops, popularity
from gpu import figures, inputs
from gpu.context import Context
from gpu.timing import replayed, timed


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for shape in sorted(GPU_SHARED, key=lambda shape: shape.dim != 128):  # the bar's own first
        yield f"shared {shape}", partial(measure, context, shape)
    for shape in GPU_GRAPH:
        for what in ("forward", "both"):
            yield (f"graph, {what}, {shape}", partial(in_a_graph, context, shape, what))
    for dtype in ("bfloat16", "float32"):
        shape = replace(GPU_GRAPH[0], dtype=dtype)
        yield f"draws that repeat, {dtype}", partial(repeats, context, shape)


def measure(context: Context, shape: Softmax) -> None:
    """Checked against float64, loss and gradients, before anything is timed."""
    case = case_of(shape)
    given = inputs.of_case(case)
    both = inputs.Both(given)
    total = both()
    error = check(total.detach(), both.inputs.query, both.inputs.items, case)
    context.check(figures.shared(shape, "float64"), True, error=error)
    context.time(figures.shared(shape, "forward"), lambda: inputs.forward(given))
    context.time(figures.shared(shape, "both"), both)
    memory = memory_of(both)
    if memory is not None:
        context.add(
            "fact",
            figures.shared(shape, "memory"),
            peak_mib=round(memory[0] / 2**20, 1),
            left_mib=round(memory[1] / 2**20, 1),
        )


def in_a_graph(context: Context, shape: Softmax, what: str) -> None:
    """Eager, where the host may bind, and replayed, where it cannot."""
    given = inputs.made(shape, DEVICE)
    run = inputs.Both(given) if what == "both" else lambda: inputs.forward(given)
    context.time(figures.shared(shape, what), run)
    context.timed(figures.shared(shape, f"{what}, graph"), replayed(run))


def repeats(context: Context, shape: Softmax) -> None:
    """Draws that seldom and that often repeat each other, each multiplied and each different one once. From
    the four times: what looking for repeats costs, what a logit saves, and the number of logits that pay for
    looking, which is what `LEAST_SAVED` stands for."""
    op = importlib.import_module("fastpop.ops.sampled_softmax")
    given = inputs.made(shape, DEVICE)
    saved, gained = [], []
    for words, power in (("even", 0.0), ("popular", 1.0)):
        proposal = popularity.power(1 / np.arange(1.0, shape.items + 1), power)
        draw = Draw(proposal, 0, 0, shape.negatives)
        saved.append(shape.rows * (shape.negatives - len(np.unique(draw.ids(shape.rows)))))
        run, seconds = partial(both_of_draws, given, draw), {}
        for way, least in (("each", 1 << 62), ("once", 0)):
            with mock.patch.object(op, "LEAST_SAVED", dict.fromkeys((2, 4, 8), least)):
                found = replayed(run) if context.cuda else timed(run)
            context.timed(f"draws that repeat, {shape.dtype}, {words}, {way}", found)
            seconds[way] = found.seconds
        gained.append(seconds["each"] - seconds["once"])
    if not context.cuda:  # the same computation twice: repeats are always merged there
        return
    a_logit = (gained[1] - gained[0]) / (saved[1] - saved[0])
    looking = a_logit * saved[0] - gained[0]
    facts: dict[str, object] = {"looking_us": 1e6 * looking, "a_logit_ps": 1e12 * a_logit, "saved": saved}
    if a_logit > 0:
        facts["pays_from"] = round(looking / a_logit)
    facts["least_saved"] = op.LEAST_SAVED[given.query.element_size()]
    context.add("fact", f"draws that repeat, {shape.dtype}", **facts)


def both_of_draws(given: inputs.Inputs, draw: Draw) -> torch.Tensor:
    query, items = given.query.detach().requires_grad_(), given.items.detach().requires_grad_()
    total = ops.sampled_softmax(
        query,
        items,
        given.pos_id,
        draw,
        accidental_hits="drop",
        scale=given.one,
        prior_weight=given.one,
        ignore_index=None,
        sparse_grad=True,
        reduction="sum",
    )
    total.backward()
    return total
