"""Other tiles for the three passes of the shared softmax, each checked against the written one's result."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from measuring import DEVICE
from shapes import SMALL, Softmax
from torch import Tensor

from gpu import inputs
from gpu.context import Context
from gpu.sections.baseline import SHAPES
from gpu.sections.compile import in_parallel, triton_or_skip
from gpu.timing import timed

# (rows, candidates, warps, stages) of each pass. Two blocks on a multiprocessor let one multiply while the
# other exponentiates: tiles of four warps, and smaller ones.
CANDIDATES = {
    "FORWARD": [
        (128, 128, 8, 3),
        (128, 64, 4, 3),
        (64, 128, 4, 3),
        (128, 128, 4, 2),
        (128, 64, 8, 3),
        (64, 64, 4, 3),
        (128, 256, 8, 2),
        (256, 64, 8, 2),
    ],
    "QUERY": [
        (128, 64, 8, 3),
        (64, 64, 4, 3),
        (64, 128, 4, 2),
        (128, 128, 8, 2),
        (64, 64, 4, 2),
        (128, 64, 4, 2),
    ],
    "ITEM": [
        (64, 128, 8, 3),
        (64, 64, 4, 3),
        (128, 64, 4, 2),
        (128, 128, 8, 2),
        (64, 64, 4, 2),
        (64, 128, 4, 2),
    ],
}


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "compile", partial(compile_all, context)
    for shape in SHAPES:
        for table in CANDIDATES:
            yield f"{table} {shape}", partial(sweep, context, shape, table)


def with_tile(table: str, shape: Softmax, tile: tuple[int, ...]) -> Any:
    """A patch: that pass takes this tile at this size, whatever the capability."""
    from fastpop.kernels import triton_tiles

    written = triton_tiles.tile_for

    def chosen(of, arch, dim, dtype):
        same = triton_tiles.block_of(dim) == triton_tiles.block_of(shape.dim)
        if of is getattr(triton_tiles, table) and same:
            return triton_tiles.Tile(*tile)
        return written(of, arch, dim, dtype)

    return mock.patch.object(triton_tiles, "tile_for", chosen)


def names() -> list[str]:
    return [
        f"{table}/{at}/{number}"
        for at in range(len(SHAPES))
        for table, tiles in CANDIDATES.items()
        for number in range(len(tiles))
    ]


def compile_all(context: Context) -> None:
    """Into Triton's cache, on all cores: twenty seconds that would else be a minute and a half."""
    triton_or_skip()
    if not context.cuda:
        compile_tile("FORWARD/0/1", 90)
        context.add("fact", "one tile compiled")
        return
    from gpu.sections.install import arch

    found, _ = in_parallel(names(), int(arch()), os.cpu_count() or 1, compile_tile)
    for name, one in found.items():
        if "error" in one:
            context.add("error", f"compiling tile {name}", error=one["error"])
    context.add("fact", "tiles compiled", tiles=len(found))


def compile_tile(name: str, capability: int) -> dict:
    from gpu import pretend

    table, at, number = name.split("/")
    shape = SHAPES[int(at)]
    try:
        with pretend.card(capability), with_tile(table, shape, CANDIDATES[table][int(number)]):
            once(inputs.made(shape, "cpu"), table)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {}


def once(given: inputs.Inputs, table: str) -> Tensor:
    """What runs the pass, and little more: backward needs both of its passes' inputs, but one output."""
    if table == "FORWARD":
        return inputs.forward(given)
    run = inputs.Both(given)
    if table == "QUERY":
        run.inputs.items.requires_grad_(False)
    else:
        run.inputs.query.requires_grad_(False)
    run()
    return run.inputs.query.grad if table == "QUERY" else run.inputs.items.grad._values()


def sweep(context: Context, shape: Softmax, table: str) -> None:
    """The time of the tile's pass with the forward it needs: compare within one table."""
    if not context.cuda:
        triton_or_skip()
    given = inputs.made(shape, DEVICE)
    expected = once(given, table).float()
    for tile in CANDIDATES[table][: 2 if SMALL else None]:
        name = f"D={shape.dim} {table} {'x'.join(map(str, tile))}"
        try:
            with with_tile(table, shape, tile):
                error = (once(given, table).float() - expected).abs().max() / expected.abs().max()
                found = timed(lambda: once(given, table), seconds=0.2, most=15)
        except Exception as failure:
            if "CUDA error" in str(failure):
                raise
            context.add("error", name, error=f"{type(failure).__name__}: {failure}"[:300])
            continue
        context.timed(name, found, error=float(error))
        if not error < 0.02:
            context.check(f"{name} gives what the written tile gives", False, error=float(error))
