"""fastpop.train on a card and on the processor: losses and metrics side by side; a run that resumes."""

import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from measuring import DEVICE
from shapes import SMALL

from fastpop import Interactions
from fastpop.data import bundled_log
from fastpop.training import TrainResult, train
from gpu.context import Context

# No dropout: each device draws its own.
OPTIONS = {
    "dim": 64,
    "num_negatives": 1024,
    "batch_size": 4096,
    "epochs": 2,
    "dropout": 0.0,
    "max_length": 20,
    "learning_rate": 5e-3,
    "seed": 3,
}
if SMALL:
    OPTIONS |= {"dim": 8, "num_negatives": 32, "batch_size": 512, "max_length": 8}
# Largest difference of an epoch's mean loss in nats, and of a metric of the test part.
CLOSE = {"fp32": (2e-3, 5e-3), "bf16": (3e-2, 3e-2)}


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for encoder in ("factor", "sasrec"):
        for precision in ("fp32", "bf16"):
            yield (f"{encoder} {precision}", partial(beside, context, encoder, precision))
    yield "resume", partial(resume, context)


@lru_cache(maxsize=1)
def log() -> Interactions:
    whole = bundled_log()
    return whole.take(whole.user < 400) if SMALL else whole.take(whole.user < 8000)


def trained(encoder: str, device: str, **options) -> TrainResult:
    return train(log(), progress=False, **(OPTIONS | {"encoder": encoder, "device": device} | options))


@lru_cache(maxsize=2)
def on_processor(encoder: str) -> TrainResult:
    """What both precisions are compared with."""
    return trained(encoder, "cpu")


def beside(context: Context, encoder: str, precision: str) -> None:
    here = on_processor(encoder)
    there = trained(encoder, DEVICE.type, precision=precision)
    losses = [[row["loss"] for row in result.history] for result in (there, here)]
    loss_error = float(np.abs(np.subtract(*losses)).max())
    most_loss, most_metric = CLOSE[precision]
    context.check(
        f"{encoder} {precision}: losses as the processor's",
        loss_error <= most_loss,
        off=round(loss_error, 6),
        most=most_loss,
        losses=losses[0],
        processor=losses[1],
    )
    nll, ndcg = (abs(there.metrics[name] - here.metrics[name]) for name in ("nll", "ndcg@10"))
    context.check(
        f"{encoder} {precision}: evaluation as the processor's",
        nll <= 10 * most_loss and ndcg <= most_metric,
        nll_off=round(nll, 6),
        ndcg_off=round(ndcg, 6),
        nll=there.metrics["nll"],
        ndcg=there.metrics["ndcg@10"],
    )
    context.add(
        "fact",
        f"{encoder} {precision}: speed",
        examples_per_second=round(there.history[-1]["examples_per_second"]),
        processor=round(here.history[-1]["examples_per_second"]),
    )


def resume(context: Context) -> None:
    """Stopped after one epoch and resumed, a run ends with the bits of one that was not."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        whole = trained("factor", DEVICE.type, dropout=0.2)
        trained("factor", DEVICE.type, dropout=0.2, out=out, epochs=1)
        resumed = trained("factor", DEVICE.type, dropout=0.2, out=out, resume=True)
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    differ = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    context.check(
        "resumed as uninterrupted, bit for bit", not differ, differ=differ, epochs=len(resumed.history)
    )
