"""What the card does at best: products, copies, gathers, exponentials; and its clock while it does."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from measuring import DEVICE
from shapes import SMALL

from gpu import costs
from gpu.context import Context, Skip
from gpu.sections.install import output
from gpu.timing import timed

SIZE = 192 if SMALL else 8192
BYTES = 2**20 if SMALL else 2**31
ROW = 256  # bytes of a gathered row: D = 128 in bfloat16


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for name in ("bfloat16", "tf32", "float32"):
        yield f"gemm {name}", partial(gemm, context, name)
    yield "copy", partial(copy, context)
    yield "gather", partial(gather, context)
    yield "exp", partial(exponentials, context)
    yield "clocks", partial(clocks, context)


def ceiling(context: Context, name: str, run: Callable[[], object], work: float, unit: str) -> None:
    found = timed(run, seconds=0.5, most=20)
    context.add(
        "ceiling",
        name,
        rate=work / found.low,
        unit=unit,
        seconds=found.low,
        rounds=found.rounds,
        clock=found.clock,
        predicted=costs.H100[name],
    )


def gemm(context: Context, name: str) -> None:
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    left, right = (torch.randn(SIZE, SIZE, device=DEVICE).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        ceiling(context, f"gemm {name}", lambda: torch.mm(left, right, out=product), 2.0 * SIZE**3, "FLOP/s")
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def copy(context: Context) -> None:
    source = torch.randn(BYTES // 4, device=DEVICE)
    target = torch.empty_like(source)
    ceiling(context, "copy", lambda: target.copy_(source), 2.0 * source.nbytes, "B/s")


def gather(context: Context) -> None:
    """Rows at random from a table far larger than the cache; a row is read and written."""
    table = torch.randn(BYTES // ROW, ROW // 4, device=DEVICE)
    ids = torch.randint(len(table), (len(table) // 2,), device=DEVICE)
    rows = torch.empty(len(ids), ROW // 4, device=DEVICE)
    ceiling(
        context,
        "gather",
        lambda: torch.index_select(table, 0, ids, out=rows),
        2.0 * rows.nbytes + ids.nbytes,
        "B/s",
    )


def exponentials(context: Context) -> None:
    if not context.cuda:
        raise Skip("no CUDA device: the kernel is Triton's")
    from gpu.exponentials import launches_on

    launch, number = launches_on(DEVICE)
    ceiling(context, "exp", launch, number, "exp/s")


def clocks(context: Context) -> None:
    if not context.cuda:
        raise Skip("no CUDA device")
    busy = torch.randn(SIZE, SIZE, device=DEVICE, dtype=torch.bfloat16)
    for _ in range(300):
        busy @ busy
    context.add(
        "fact",
        "clocks while multiplying",
        read=output(
            "nvidia-smi",
            "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu",
            "--format=csv,noheader",
        ),
    )
    torch.cuda.synchronize()
