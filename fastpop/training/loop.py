"""The training loop: steps, validation, checkpoints, and stopping well.

Everything random is a function of (seed, epoch) or (seed, step): the data order, the draws, and
dropout, whose generator is seeded anew at each step. So a run that resumes from a checkpoint does
what the uninterrupted run does, bit for bit, on the same kind of machine and number of threads.
"""

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from fastpop import bars, checks, deprecated, files
from fastpop.data.batches import Batch
from fastpop.model import Placed, Recommender
from fastpop.ops.draw import seed_of
from fastpop.optim import summed_gradient
from fastpop.training import captured, checkpoint
from fastpop.training.build import Assembly
from fastpop.training.config import TrainConfig
from fastpop.training.late import Losses, Met
from fastpop.training.prints import HISTORY, history_csv
from fastpop.training.ranks import Ranks
from fastpop.training.resident import ResidentBatch
from fastpop.training.row_losses import scalar_of, summed_loss

LOG = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; says where, and where the batch was saved."""


RENAMED = {"looks_since_best": "validations_since_best"}  # of what checkpoints hold


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps beside tensors."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the running epoch
    step: int = 0
    loss_sum: float = 0.0  # over the running epoch
    weight_sum: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per epoch
    best: float | None = None
    best_epoch: int = 0
    validations_since_best: int = 0
    stopped: str = ""  # "epochs", "patience"

    def add(self, loss_sum: float, weight_sum: float) -> None:
        self.loss_sum += loss_sum
        self.weight_sum += weight_sum

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Progress":
        """From a checkpoint, which an earlier version may have written."""
        return cls(**deprecated.current(state, RENAMED, silent=True))


def fit(
    parts: Assembly,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
    show: bool | None = None,
    label: str = "train",
    each_step: Callable[[int], None] | None = None,
    least_epochs: int = 0,
) -> Progress:
    """Train the model of an assembly in place up to config.epochs; returns where it ended.

    validate: called every config.evaluate_every epochs; its numbers join the epoch's row and decide
    early stopping. out: folder for checkpoints, train.csv and failures. progress: where to go on
    from. show: a progress bar; None shows one in a terminal or a notebook. each_step: called with the
    steps that the running epoch has, after each. least_epochs: no early stop before these.

    Raises TrainingDiverged, CheckpointError; KeyboardInterrupt after a checkpoint is written.
    """
    config, model, batches, ranks = parts.config, parts.model, parts.batches, parts.ranks
    leads = ranks is None or ranks.leads
    progress = progress or Progress()
    best_state: dict[str, torch.Tensor] | None = None

    saved = time.monotonic()

    def fail(met: Met, loss: float) -> NoReturn:
        _fail(out, config, met, loss, leads)

    losses = Losses(progress.add, fail)

    def keep() -> None:
        nonlocal saved
        losses.read()  # first: nothing is kept of a run that has met a loss that is not finite
        if out is not None:
            adapted = parts.loss if config.loss_part.adapts else None
            checkpoint.save(
                out, progress.step, model, parts.optimizers, vars(progress), loss=adapted, ranks=ranks
            )
        saved = time.monotonic()

    patience = 60 * config.checkpoint_minutes or math.inf
    step_of = stepping(parts)
    running = step_of.running() if isinstance(step_of, captured.Recorder) else contextlib.nullcontext()
    bar = bars.progress_bar(0, label, initial=progress.step, show=show if leads else False)

    def agreed(*answers: bool) -> list[bool]:
        """What any process says of each."""
        return list(answers) if ranks is None else [told > 0 for told in ranks.told(*answers)]

    devices = [model.device] if model.device.type == "cuda" else []
    with (
        bar,
        _opened(config, out, leads) as logs,
        _interrupts() as interrupted,
        torch.random.fork_rng(devices=devices),
        running,
    ):
        while progress.epoch < config.epochs and not progress.stopped:
            started = time.perf_counter()
            model.train()
            steps = batches.num_batches(progress.epoch)
            _expect(bar, progress, config, label, steps)
            for batch in parts.epoch(progress.epoch, progress.batch, progress.step):
                loss, weight = step_of(parts, batch, progress.step)
                losses.met(Met(progress.step, progress.epoch, progress.batch, batch, loss, weight))
                progress.batch += 1
                progress.step += 1
                bar.update()
                if each_step is not None:
                    each_step(steps)
                if progress.step % 10 == 0 and progress.weight_sum:
                    seconds = time.perf_counter() - started + progress.seconds
                    bar.set_postfix_str(
                        f"loss {progress.loss_sum / progress.weight_sum:.4f}, "
                        f"{progress.weight_sum / seconds:,.0f}/s",
                        refresh=False,
                    )
                stops, is_due = agreed(interrupted.is_set(), time.monotonic() - saved > patience)
                if stops or is_due:
                    progress.seconds += time.perf_counter() - started
                    started = time.perf_counter()
                    keep()
                    if stops:
                        raise KeyboardInterrupt
            losses.read()
            progress.seconds += time.perf_counter() - started
            row = _end_epoch(progress)
            if validate is not None and _due(progress.epoch, config.evaluate_every, config.epochs):
                row |= {f"valid_{name}": value for name, value in validate().items()}
                if _is_better(row, config, progress) and config.patience:
                    best_state = _keep_best(model, out, progress, ranks)
            waited = config.patience and progress.validations_since_best >= config.patience
            if waited and progress.epoch >= least_epochs:
                progress.stopped = "patience"
            elif progress.epoch == config.epochs:
                progress.stopped = "epochs"
            kept = False
            stops = agreed(interrupted.is_set())[0]
            if out is not None:
                if leads:
                    checkpoint.write_text(out / HISTORY, history_csv(progress.history))
                due = _due(progress.epoch, config.checkpoint_every, config.epochs)
                if progress.stopped or due or stops:
                    keep()
                    kept = True
            LOG.info("epoch %d: loss %.4f", row["epoch"], row["loss"], extra={"fields": row})
            try:
                for log in logs:
                    log.epoch(dict(row))
            except Exception:
                if out is not None and not kept and ranks is None:
                    keep()  # a logger that fails ends a run, but costs it no epoch
                raise
            if stops:
                raise KeyboardInterrupt
    if config.patience and progress.best is not None:
        if best_state is None and out is not None:
            best_state = checkpoint.read_folder(out / "best", ("model",), ranks)[0]["model"]
        if best_state is not None:
            if ranks is not None:
                best_state = ranks.parts_of(model, best_state)
            model.load_state_dict(best_state)
    model.eval()
    return progress


@contextlib.contextmanager
def _opened(config: TrainConfig, out: Path | None, leads: bool) -> Iterator[list[Any]]:
    """The loggers of a run, closed when it ends; none where another process has them."""
    with contextlib.ExitStack() as open_ones:
        logs = []
        for part in config.logger_parts if leads else ():
            logs.append(part.open(out, config.to_dict()))
            if not (hasattr(logs[-1], "epoch") and hasattr(logs[-1], "close")):
                raise checks.wrong_type(f"{part!r}.open", "what has epoch(row) and close()", logs[-1])
            open_ones.callback(logs[-1].close)
        yield logs


def _expect(bar: Any, progress: Progress, config: TrainConfig, label: str, steps: int) -> None:
    """Tell the bar what is to come, taking all epochs to be as long as this one."""
    bar.total = progress.step - progress.batch + steps * (config.epochs - progress.epoch)
    bar.set_description_str(f"{label} {progress.epoch + 1}/{config.epochs}", refresh=False)


def stepping(parts: Assembly) -> Callable[..., Any]:
    """`train_step`, or what makes the same steps as CUDA graphs, within its `running()`."""
    config, device = parts.config, parts.model.device
    if not config.cuda_graph:
        return train_step
    reasons = captured.cannot(parts)
    if reasons:
        raise checks.wrong("cuda_graph", "False where " + "; ".join(reasons), True)
    return captured.Recorder(
        parts,
        lambda step: _seed_dropout(_mixed(config.seed, step), device),
        lambda: _autocast(config, device),
    )


def train_step(parts: Assembly, batch: Batch | ResidentBatch, step: int) -> tuple[float | Tensor, float]:
    """One optimiser step; returns the mean loss before it and the weight of its rows.

    No step is made past a loss that is not finite. On a device whose optimisers see to that themselves
    (`late.py`) the loss is a 0-d tensor, and nothing was waited for.
    """
    config, model, ranks = parts.config, parts.model, parts.ranks
    draws = {"step": step} if parts.draws else {}
    seed = _mixed(config.seed, step)
    _seed_dropout(seed if ranks is None else seed_of(seed, ranks.rank), model.device)
    for optimizer in parts.optimizers:
        optimizer.zero_grad(set_to_none=True)
    weight, pieces = _pieces(batch, config.accumulate)
    total: float | Tensor = 0.0
    for number, piece in enumerate(pieces):
        with _autocast(config, model.device):
            item_VD = model.decoder.item_vectors()
            terms = model.decoder.training_terms()
            whole = piece
            if ranks is None:
                query, pos_id, row_weight = model.rows(_placed(piece), item_VD)
            else:
                piece = ranks.own(piece)
                query, pos_id, row_weight = ranks.rows(model, piece, item_VD)
                terms["shard"] = ranks.shard
            given = query, item_VD, pos_id, row_weight
            piece_sum = summed_loss(parts, piece, *given, {**terms, **draws}, whole)
            mean = piece_sum / max(weight, 1e-30)
            mean = _regularized(parts, mean, given, (batch, whole, piece), seed_of(seed, number))
        if parts.stop is not None:
            parts.stop.watch(mean)
            total = mean.detach() + total if isinstance(total, Tensor) else mean.detach()
        else:
            value = mean.item() if ranks is None else ranks.told(mean.item())[0]
            total += value
            if not math.isfinite(value):
                return value, weight
        mean.backward()
    if ranks is not None:
        tables = parts.optimizers[0].param_groups if config.update_in_backward else []
        ranks.sum_gradients(model, [param for group in tables for param in group["params"]])
    if config.clip_norm:
        _clip(model, config.clip_norm, ranks)
    for optimizer in parts.optimizers:
        optimizer.step()
    if parts.adapt is not None:
        parts.adapt()
    return total, weight


def _pieces(batch: Batch | ResidentBatch, parts: int) -> tuple[float, list[Any]]:
    """The weight of a batch's rows, and the parts that are computed one after the other."""
    if isinstance(batch, ResidentBatch):
        return batch.weight, [batch]
    rows = batch.target >= 0
    weight = float(rows.sum() if batch.weight is None else batch.weight[rows].sum())
    return weight, [batch] if parts == 1 else batch.split(parts)


def _placed(batch: Batch | ResidentBatch) -> Batch | Placed:
    return batch.placed if isinstance(batch, ResidentBatch) else batch


def _regularized(
    parts: Assembly,
    mean: Tensor,
    rows: tuple[Tensor, Tensor, Tensor, Tensor | None],
    batches: tuple[Batch | ResidentBatch, Any, Any],
    seed: int,
) -> Tensor:
    """The mean loss and what regularisers add to it. batches: the batch, the part of it that is computed, and
    of that this process's rows. seed: of random numbers that several processes draw as one."""
    model, ranks, (batch, whole, piece) = parts.model, parts.ranks, batches
    query, item_VD, pos_id, _ = rows
    views = {}
    if any(part.view for part, _ in parts.regularizers):
        # Dropout goes on where it stands, so the second view has other masks and nothing else.
        again = model.rows(_placed(piece), item_VD) if ranks is None else ranks.rows(model, piece, item_VD)
        views["view"] = again[0]
    for number, (part, regularizer) in enumerate(parts.regularizers):
        num_rows: float = piece.num_rows
        more = views if part.view else {}
        if ranks is None:
            added = regularizer(query, item_VD, pos_id, model.decoder.log_prior_V, **more)
        else:
            given = (query, item_VD, pos_id, more)
            added = ranks.regularized(part, regularizer, given, model, parts.config, seed_of(seed, number))
            if part.reads == "rows" or part.takes_shard:  # of all processes, which each has then
                num_rows = whole.num_rows / ranks.world
        share = part.weight * num_rows / max(batch.num_rows, 1)
        mean = mean + share * scalar_of(regularizer, added)
    return mean


def _seed_dropout(seed: int, device: torch.device) -> None:
    """torch.manual_seed of the generators that are used: that one formats a stack trace for each
    kind of device that is absent, at every step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _mixed(seed: int, step: int) -> int:
    """One 63-bit seed per (seed, step)."""
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def _autocast(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager:
    if config.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _clip(model: Recommender, most: float, ranks: Ranks | None) -> None:
    """Scale all gradients so that their joint norm is at most `most`; sparse ones stay sparse."""
    values = {}
    for param in model.parameters():
        if param.grad is not None:
            if param.grad.is_sparse:
                param.grad = summed_gradient(param.grad)
            values[param] = param.grad._values() if param.grad.is_sparse else param.grad
    if ranks is None:
        norm = torch.stack([value.float().norm() for value in values.values()]).norm()
    else:
        squares = {param: value.float().square().sum() for param, value in values.items()}
        norm = ranks.squared_norm(model, squares).sqrt()
    factor = (most / (norm + 1e-12)).clamp(max=1)
    for value in values.values():
        value.mul_(factor.to(value.dtype))


def _end_epoch(progress: Progress) -> dict[str, Any]:
    row = {
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "loss": progress.loss_sum / max(progress.weight_sum, 1e-30),
        "examples_per_second": progress.weight_sum / max(progress.seconds, 1e-9),
        "seconds": progress.seconds,
    }
    progress.history.append(row)
    progress.epoch += 1
    progress.batch, progress.loss_sum, progress.weight_sum, progress.seconds = 0, 0.0, 0.0, 0.0
    return row


def _due(epoch: int, every: int, last: int) -> bool:
    return bool(every) and (epoch % every == 0 or epoch == last)


def _is_better(row: dict[str, Any], config: TrainConfig, progress: Progress) -> bool:
    value = row[f"valid_{config.metric}"]
    if progress.best is not None:
        falls = config.metric_part.direction == "smaller"
        if not (value < progress.best if falls else value > progress.best):
            progress.validations_since_best += 1
            return False
    progress.best, progress.best_epoch, progress.validations_since_best = value, progress.epoch, 0
    return True


def _keep_best(model: Recommender, out: Path | None, progress: Progress, ranks: Ranks | None) -> dict | None:
    """The best weights so far: in out/best when there is a folder, else in memory."""
    if out is None:
        return {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint.write_folder(
        out / "best",
        {"model": checkpoint.model_tensors(model, ranks)},
        {"epoch": progress.best_epoch, "metric": progress.best},
        ranks=ranks,
    )
    return None


def _fail(out: Path | None, config: TrainConfig, met: Met, loss: float, leads: bool) -> NoReturn:
    saved = "give out= to keep the batch"
    if out is not None:
        path = out / "failed-batch.npz"
        batch = met.batch.host() if isinstance(met.batch, ResidentBatch) else met.batch
        arrays = {name: value for name, value in vars(batch).items() if value is not None}
        if leads:
            with checkpoint.explained(path), files.atomic_file(path, "wb") as file:
                np.savez(file, **arrays)
        saved = f"the batch is in {path}"
    raise TrainingDiverged(
        f"loss: expected a finite number; got {loss} at step {met.step} (epoch "
        f"{met.epoch + 1}, batch {met.number + 1}), learning_rate "
        f"{config.learning_rate:g}; {saved}. Nothing was updated in this step or after it."
    )


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C sets an event that is read between steps, so no half-made step is ever saved.

    A second Ctrl-C interrupts at once. Outside the main thread signals stay as they are.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def remember(signum: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    signal.signal(signal.SIGINT, remember)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
