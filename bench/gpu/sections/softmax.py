"""Shared negatives at the shapes of the bars: forward, and forward and backward."""

from collections.abc import Callable, Iterator
from functools import partial

from bench_sampled_softmax import case_of
from measuring import DEVICE, memory_of
from shapes import GPU_GRAPH, GPU_SHARED, Softmax
from softmax_gate import check

from gpu import figures, inputs
from gpu.context import Context
from gpu.timing import replayed


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for shape in sorted(GPU_SHARED, key=lambda shape: shape.dim != 128):  # the bar's own first
        yield f"shared {shape}", partial(measure, context, shape)
    for shape in GPU_GRAPH:
        for what in ("forward", "both"):
            yield (f"graph, {what}, {shape}", partial(in_a_graph, context, shape, what))


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
