"""Every launch of Triton kernels that the day makes, by name, to be compiled without a card (pretend.py).

The tests marked gpu have shapes of their own, which compile when they run.
"""

from collections.abc import Callable
from functools import partial

import shapes
import torch
from bench_score_energy import arrays_of as energy_arrays
from bench_target_ranks import arrays_of as rank_arrays
from bench_target_ranks import ours as ranks_of
from bench_top_items import arrays_of as top_arrays
from bench_train_step import Ours

from fastpop import ops
from fastpop.training import train
from gpu import inputs


def softmax(shape: shapes.Softmax) -> None:
    made = inputs.made(shape, "cpu")
    inputs.forward(made)
    inputs.Both(made)()


def energy(shape: shapes.Energy, dtype: torch.dtype) -> None:
    query, items, log_prior = energy_arrays(shape)
    ops.score_energy(query.to(dtype), items.to(dtype), log_prior, form="streamed", impl="triton")


def top_items(shape: shapes.TopItems, dtype: torch.dtype) -> None:
    query, items, offsets, seen = top_arrays(shape)
    ops.top_items(
        query.to(dtype), items.to(dtype), shape.k, exclude_offsets=offsets, exclude_item=seen, impl="triton"
    )


def target_ranks(shape: shapes.TargetRanks, dtype: torch.dtype) -> None:
    query, items, target, offsets, seen = rank_arrays(shape)
    # Lists of their own, as what kernels take is written over.
    ranks_of(query.to(dtype), items.to(dtype), target, offsets.clone(), seen.clone(), impl="triton")


def full_softmax(shape: shapes.Softmax) -> None:
    dtype = getattr(torch, shape.dtype)
    query, items = (
        torch.zeros(rows, shape.dim, dtype=dtype, requires_grad=True) for rows in (shape.rows, shape.items)
    )
    ids = torch.zeros(shape.rows, dtype=torch.int64)
    ops.full_softmax(query, items, ids, log_prior=torch.zeros(shape.items), impl="triton").sum().backward()


def step(shape: shapes.Softmax) -> None:
    Ours(shape).step()


def training(encoder: str, precision: str) -> None:
    """An epoch of what sections/training.py runs, and its evaluation."""
    from gpu.sections.training import OPTIONS, log

    train(
        log(),
        progress=False,
        **OPTIONS
        | {"encoder": encoder, "precision": precision, "epochs": 1, "device": "cpu", "evaluate_every": 0},
    )


def exponentials() -> None:
    from gpu.exponentials import launches_on

    launches_on("cpu")[0]()


def cases() -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {"exponentials": exponentials}
    for shape in dict.fromkeys([*shapes.GPU_SHARED, *shapes.GPU_GRAPH]):
        found[f"sampled softmax {shape}"] = partial(softmax, shape)
    for shape in shapes.GPU_ENERGY:
        for dtype in (torch.float32, torch.bfloat16):
            found[f"energy {shape} {dtype}"] = partial(energy, shape, dtype)
    for shape in shapes.GPU_TOP_ITEMS:
        for dtype in (torch.float32, torch.bfloat16):
            found[f"top items {shape} {dtype}"] = partial(top_items, shape, dtype)
    for shape in shapes.GPU_TARGET_RANKS:
        for dtype in (torch.float32, torch.bfloat16):
            found[f"ranks {shape} {dtype}"] = partial(target_ranks, shape, dtype)
    for shape in shapes.GPU_FULL:
        found[f"full softmax {shape}"] = partial(full_softmax, shape)
    for shape in shapes.GPU_STEP:
        found[f"step {shape}"] = partial(step, shape)
    for encoder in ("factor", "sasrec"):
        for precision in ("fp32", "bf16"):
            found[f"training {encoder} {precision}"] = partial(training, encoder, precision)
    return found
