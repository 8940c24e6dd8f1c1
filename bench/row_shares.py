"""What a row update can keep beside a busy process: its serial part, the bounds of that, and what it does.

    python bench/row_shares.py                     # beside whatever runs now: say which

A call is S of one thread (ids are checked and sorted) and P that threads share; processor time of one thread
says how much each is. Beside one process that spins, two cores have three to run.
"""

import os
import statistics
import time

import torch
from bench_row_update import gradient_of, our_adagrad
from shapes import RowUpdate

from fastpop import _C

SHAPE = RowUpdate(40_000, 20_000, 2_000_000, 64)
SECONDS = 4


def call_on(ids: torch.Tensor, rows: torch.Tensor, threads: int):
    torch.set_num_threads(threads)
    run = our_adagrad(torch.ones(SHAPE.items, SHAPE.dim), ids, rows, impl="cpu")
    for _ in range(5):
        run()
    return run


def processor_ms(run) -> float:
    """The first quartile of calls: others lose their caches to neighbours."""
    took = []
    for _ in range(100):
        start = time.thread_time()
        run()
        took.append(1e3 * (time.thread_time() - start))
    return statistics.quantiles(took, n=4)[0]


def main() -> None:
    print("load", os.getloadavg(), "cores", len(os.sched_getaffinity(0)))
    ids, rows, _, _ = gradient_of(SHAPE)
    order = ids.argsort(stable=True)
    whole, shared = processor_ms(call_on(ids, rows, 1)), processor_ms(call_on(ids[order], rows[order], 1))
    serial = whole - shared
    print(f"one thread: {whole:.2f} ms of a core, of which {serial:.2f} before threads share")
    quiet = serial + shared / 2
    for words, busy in {
        "the caller keeps its core, the other thread half of one": serial + shared / 1.5,
        "all three take turns on two cores": 1.5 * quiet,
        "the caller is alone on its core": whole,
    }.items():
        print(f"  {words}: {100 * quiet / busy:.0f} % of the quiet speed")
    run = call_on(ids, rows, 2)
    alone, met, cores, start = _C.num_alone(), _C.num_meetings(), time.process_time(), time.perf_counter()
    calls = 0
    while time.perf_counter() - start < SECONDS:
        run()
        calls += 1
    cores = 1e3 * (time.process_time() - cores) / calls
    print(
        f"two threads: {calls} calls, {_C.num_alone() - alone} of them alone, "
        f"{_C.num_meetings() - met} meetings, {cores:.2f} ms of cores a call"
    )


if __name__ == "__main__":
    main()
