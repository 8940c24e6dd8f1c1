"""One kernel, run warm and then once between profiler marks: python -m gpu.profiled NAME, under ncu."""

import sys
from collections.abc import Callable
from functools import partial

import torch
from bench_row_update import gradient_of, our_adagrad
from bench_score_energy import arrays_of as energy_arrays
from measuring import DEVICE
from shapes import GPU_ENERGY, GPU_ROW_UPDATE, GPU_ROWS, GPU_SHARED

from fastpop import ops
from gpu import inputs

# What is profiled: the name, and a pattern of the kernel's.
KERNELS = {
    "sampled forward": "forward_kernel",
    "sampled d_query": "query_kernel",
    "sampled d_item": "item_kernel",
    "per-row forward": "sampled_rows_forward_kernel",
    "row update": "row_update_kernel",
    "score energy": "sums_kernel",
}


def call_of(name: str) -> Callable[[], object]:
    shape = next((one for one in GPU_SHARED if one.dim == 128), GPU_SHARED[0])
    cuda = DEVICE.type == "cuda"
    if name == "sampled forward":
        return partial(inputs.forward, inputs.made(shape, DEVICE))
    if name in ("sampled d_query", "sampled d_item"):
        return inputs.Both(inputs.made(shape, DEVICE))
    if name == "per-row forward":
        return partial(inputs.forward, inputs.made(GPU_ROWS[0], DEVICE), "cuda" if cuda else "cpu")
    if name == "row update":
        size = GPU_ROW_UPDATE[-1]
        ids, rows, *_ = gradient_of(size)
        table = torch.ones(size.items, size.dim, device=DEVICE)
        return our_adagrad(table, ids, rows, impl="cuda" if cuda else "cpu")
    query, items, log_prior = energy_arrays(GPU_ENERGY[-1])
    half = torch.bfloat16
    return lambda: ops.score_energy(
        query.to(half), items.to(half), log_prior, form="streamed", impl="triton" if cuda else "cpu"
    )


def main(name: str) -> None:
    call = call_of(name)
    call()
    if DEVICE.type != "cuda":
        call()
        return
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main(sys.argv[1])
