"""A set of negatives for each row, and updates of table rows: what memory binds."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from bench_row_update import LR, by_row, gradient_of, our_adagrad, our_adam
from bench_sampled_softmax import case_of
from measuring import DEVICE
from shapes import GPU_ROW_UPDATE, GPU_ROWS, GPU_ROWS_CHECKED, RowUpdate, Softmax
from softmax_gate import check

from gpu import figures, inputs
from gpu.context import Context
from gpu.timing import replayed

RULES = {"adagrad": (our_adagrad, 1e-10), "adam": (our_adam, 1e-8)}


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for shape in GPU_ROWS_CHECKED:
        yield f"per-row check {shape}", partial(checked, context, shape)
    for shape in GPU_ROWS:
        yield f"per-row forward {shape}", partial(forward, context, shape)
        yield f"per-row both {shape}", partial(both, context, shape)
    for shape in GPU_ROW_UPDATE:
        for rule in RULES:
            yield f"{rule} {shape}", partial(update, context, shape, rule)


def impl_of(context: Context) -> str:
    """By name: nothing else may run in its place."""
    return "cuda" if context.cuda else "cpu"


def checked(context: Context, shape: Softmax) -> None:
    case = case_of(shape)
    run = inputs.Both(inputs.of_case(case), impl_of(context))
    error = check(run().detach(), run.inputs.query, run.inputs.items, case)
    context.check(figures.per_row(shape, "float64"), True, error=error)


def forward(context: Context, shape: Softmax) -> None:
    given = inputs.made(shape, DEVICE)
    context.time(figures.per_row(shape, "forward"), lambda: inputs.forward(given, impl_of(context)))


def both(context: Context, shape: Softmax) -> None:
    context.time(figures.per_row(shape, "both"), inputs.Both(inputs.made(shape, DEVICE), impl_of(context)))


def update(context: Context, shape: RowUpdate, rule: str) -> None:
    """Checked by its own formula, then timed."""
    make, eps = RULES[rule]
    ids, rows, touched, summed = gradient_of(shape)
    table = torch.ones(shape.items, shape.dim, device=DEVICE)
    run = make(table, ids, rows, impl=impl_of(context))
    run()
    error = (table[touched].double() - (1 - LR * by_row(summed, eps))).abs().max().item()
    name = figures.update(shape, rule)
    context.check(f"{name} float64", error < 1e-5, error=error)
    context.time(name, run)
    context.timed(f"{name}, graph", replayed(run))
