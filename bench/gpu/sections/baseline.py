"""What the tile sweep and the counters are compared with: ceilings, and the shared negatives as they are."""

from collections.abc import Callable, Iterator
from functools import partial

from measuring import DEVICE
from shapes import GPU_SHARED, Softmax

from gpu import figures, inputs
from gpu.context import Context
from gpu.sections import ceilings

SHAPES = [shape for shape in GPU_SHARED if shape.dim <= 128]


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "gemm bfloat16", partial(ceilings.gemm, context, "bfloat16")
    yield "copy", partial(ceilings.copy, context)
    yield "exp", partial(ceilings.exponentials, context)
    for shape in SHAPES:
        yield f"shared {shape}", partial(measure, context, shape)


def measure(context: Context, shape: Softmax) -> None:
    given = inputs.made(shape, DEVICE)
    context.time(figures.shared(shape, "forward"), lambda: inputs.forward(given))
    context.time(figures.shared(shape, "both"), inputs.Both(given))
