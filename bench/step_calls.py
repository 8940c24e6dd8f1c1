"""How many launches, copies and waits a training step is on a device, counted without one.

python -P bench/step_calls.py [--names]
"""

import sys
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from gpu import inputs
from gpu.device_calls import Calls, counting
from shapes import Softmax

from fastpop.data.interactions import Interactions
from fastpop.training import TrainConfig, build, captured, loop
from fastpop.training.loop import train_step

SIZES = {"dim": 64, "num_negatives": 4096, "batch_size": 4096}
SHAPE = Softmax(4096, 8192, 64, 10_000, "bfloat16")
KINDS = {
    "factor, row_adam": {"encoder": "factor"},
    "factor, adam": {"encoder": "factor", "table_optimizer": "adam"},
    "factor, clipped": {"encoder": "factor", "clip_norm": 1.0},
    "factor, full softmax": {"encoder": "factor", "loss": "full_softmax"},
    "sasrec, row_adam": {"encoder": "sasrec", "max_length": 50},
    **{
        f"factor, {loss}": {"encoder": "factor", "loss": loss}
        for loss in ("dice", "importance_sampling", "partitioned_softmax", "bpr_max", "top1", "top1_max")
    },
    **{
        f"bag, {part}": {"encoder": "bag", "regularizers": part}
        for part in ("simgcl", "duorec", "cosreg", "resn")
    },
}


GRAPHS = ("factor, row_adam", "factor, adam", "factor, full softmax", "sasrec, row_adam")


def log_of(num_events: int = 16 * 4096, num_items: int = 20_000, exponent: float = 0.0) -> Interactions:
    """Item i comes as often as 1 / (i + 1)^exponent says."""
    rng = np.random.default_rng(0)
    users = num_events // 20
    share = np.cumsum(np.arange(1.0, num_items + 1) ** -exponent)
    item = np.searchsorted(share, rng.random(num_events) * share[-1])
    return Interactions.from_arrays(
        rng.integers(0, users, num_events),
        item,
        np.arange(num_events),
        user_ids=np.arange(users),
        item_ids=np.arange(num_items),
    )


def parts_of(log: Interactions, **options) -> build.Assembly:
    """An assembly whose model, loss and optimisers are on the meta device."""
    config = TrainConfig(device="cpu", **SIZES | options)
    with mock.patch.object(TrainConfig, "torch_device", return_value=torch.device("meta")):
        return build.assemble(config, log, log, np.zeros(log.num_items))


def calls_of(parts: build.Assembly, steps: int = 2) -> Calls:
    """Of the last of so many steps: in the first one optimisers make their state."""
    batches = parts.epoch(0)
    for step in range(steps):
        with counting() as calls:
            train_step(parts, next(batches), step)
    return calls


class Replayed:
    """A graph that counts what its launch asks of a device: CUDA first fills in where its random numbers
    begin, two of them."""

    def __init__(self, calls: Calls):
        self.calls = calls

    def record(self, function):
        return function()

    def replay(self):
        self.calls.operators += ["fill", "fill", "graph"]
        self.calls.seen += 3


def calls_of_graph(parts: build.Assembly) -> Calls:
    """Of a step that is replayed."""
    calls, batches = Calls(), parts.epoch(0)
    region = partial(loop._autocast, parts.config, parts.model.device)
    recorder = captured.Recorder(parts, lambda step: None, region, lambda: Replayed(calls))
    batch = next(batches)
    for step in range(captured.SEEN_BEFORE + 1):
        with counting():
            recorder(parts, batch, step)
    calls.__init__()
    with counting() as around:
        recorder(parts, batch, step)
    calls.operators += around.operators
    calls.copies, calls.waits, calls.seen = around.copies, around.waits, calls.seen + around.seen
    return calls


def calls_of_segment(parts: build.Assembly) -> Calls:
    """Of making the rows of the first batches, 2^20 of them at once where the log has as many."""
    with counting() as calls:
        next(parts.epoch(0))
    return calls


def calls_of_op(what: str) -> Calls:
    """Of the sampled softmax with shared negatives, forward or both, as the GPU day times it."""
    given = inputs.Inputs(
        *(one.to("meta") if isinstance(one, torch.Tensor) else one for one in inputs.made(SHAPE, "cpu"))
    )
    run = inputs.Both(given) if what == "both" else lambda: inputs.forward(given)
    for _ in range(2):
        with counting() as calls:
            run()
    return calls


def shown(name: str, calls: Calls) -> None:
    print(f"{name:40}", ", ".join(f"{key} {value}" for key, value in calls.row().items()))
    if "--names" in sys.argv:
        print("   ", calls.commonest(), calls.triton, calls.cuda, calls.copies, calls.waits, sep="\n    ")


def main() -> None:
    log = log_of()
    for name, options in KINDS.items():
        shown(name, calls_of(parts_of(log, **options)))
    for name in GRAPHS:
        parts = parts_of(log, **KINDS[name], cuda_graph=True)
        shown(f"{name}, a graph", calls_of_graph(parts))
        shown(f"{name}, a segment of rows", calls_of_segment(parts))
    popular = parts_of(log_of(exponent=1.0), encoder="factor", proposal="popularity")
    shown("factor, popular draws", calls_of(popular))
    for what in ("forward", "both"):
        shown(f"sampled softmax, {what}", calls_of_op(what))


if __name__ == "__main__":
    main()
