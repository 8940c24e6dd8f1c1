"""A training step as CUDA graphs: one copy of a batch and one launch of a graph, whatever the model is.

Everything that a step reads of its batch lies in one buffer on the device, at addresses that do not change:
users, histories, where targets stand, targets, weights, the number of the step for the draws. Where rows
lie on the device (`resident.py`), a batch is copied from there; else the host fills a pinned copy of the
buffer and sends that. Batches differ in size, so sizes are rounded up a little, and what is added is a row of
the batch again at a weight of 0; each size that comes often has a graph of its own. Sizes that come seldom
make the same step without one, on the same buffer: which it was changes no bit.

Nothing of a batch may be in Python's hands while a graph is recorded: `recorded_step` takes tensors alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastpop.data.batches import PAD, Batch
from fastpop.objectives import FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.popularity import Proposal
from fastpop.training.build import Assembly
from fastpop.training.resident import ResidentBatch
from fastpop.training.row_losses import scalar_of
from fastpop.training.words import Layout, Rows

SEEN_BEFORE = 3  # steps of a size that are made before its graph is recorded
MOST_GRAPHS = 64


def recorded_step(parts: Assembly, rows: Rows, region: Callable[[], Any]) -> Tensor:
    """One optimiser step on tensors alone; the mean loss before it, 0-d. region: what it computes in."""
    model = parts.model
    for optimizer in parts.optimizers:
        optimizer.zero_grad(set_to_none=True)
    with region():
        item_VD = model.decoder.item_vectors()
        query = model.encoder(rows.user_B, rows.history_BL, item_VD)
        if rows.at_R is not None:
            query = query.reshape(-1, query.shape[-1]).index_select(0, rows.at_R)
        draws = {"step": rows.step} if parts.draws else {}
        terms = model.decoder.training_terms()
        given = parts.loss(query, item_VD, rows.target_R, row_weight=rows.weight_R, **terms, **draws)
        mean = scalar_of(parts.loss, given) / rows.total
    if parts.stop is not None:
        parts.stop.watch(mean)
    mean.backward()
    for optimizer in parts.optimizers:
        optimizer.step()
    return mean.detach()


def cannot(parts: Assembly) -> list[str]:
    """Why the steps of an assembly cannot be recorded, in words; nothing where they can."""
    config, found = parts.config, []
    if parts.ranks is not None:
        found.append("several processes make the run")
    if parts.model.device.type != "cuda":
        found.append(f"device is {parts.model.device}")
    elif parts.stop is None and parts.ranks is None:
        found.append(
            f"the optimiser of table_optimizer={str(config.table_optimizer_part)!r} heeds no found_inf"
        )
    for name, default in (("accumulate", 1), ("clip_norm", 0.0)):
        if getattr(config, name) != default:
            found.append(f"{name} is {getattr(config, name)}")
    if parts.regularizers:
        found.append("there are regularizers")
    if parts.period_log_prior_TV is not None:
        found.append("log p is by period")
    loss = parts.loss
    by_rows = isinstance(loss, FullSoftmaxLoss) or (
        isinstance(loss, SampledSoftmaxLoss) and isinstance(loss.proposal, Proposal)
    )
    if not by_rows:
        drawn = f"proposal={str(config.proposal_part)!r}"
        found.append(f"rows of loss={str(config.loss_part)!r} with {drawn} may see each other")
    if not parts.model.encoder.can_be_recorded:
        found.append(f"encoder={str(config.encoder_part)!r} does not say that it waits for nothing")
    return found


class Graph(Protocol):
    """What a device can record of the work that a function gives it, and do again."""

    def record(self, function: Callable[[], Tensor]) -> Tensor:
        """What the function gives, without doing it."""
        ...

    def replay(self) -> None: ...


class CudaGraph:
    """torch's. All graphs of a run take turns on one stream, so they share memory."""

    pool: Any = None

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        if CudaGraph.pool is None:
            CudaGraph.pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], Tensor]) -> Tensor:
        with torch.cuda.graph(self.graph, pool=CudaGraph.pool, stream=torch.cuda.current_stream()):
            return function()

    def replay(self) -> None:
        self.graph.replay()


@dataclass
class _Kept:
    """Of one layout."""

    words: Tensor
    rows: Rows
    seen: int = 0
    graph: Graph | None = None
    loss: Tensor | None = None


class Recorder:
    """Steps of an assembly; called like `train_step`. seed: of dropout, by the number of the step.
    region: what a step computes in. graph: makes a fresh one."""

    def __init__(
        self,
        parts: Assembly,
        seed: Callable[[int], None],
        region: Callable[[], Any],
        graph: Callable[[], Graph] = CudaGraph,
    ):
        self.seed, self.region, self.graph = seed, region, graph
        self.kept: dict[Layout, _Kept] = {}
        self.num_graphs = 0
        self.stream = torch.cuda.Stream(parts.model.device) if parts.model.device.type == "cuda" else None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """All steps on a stream of their own, as recording asks: it waits for what was before, and what comes
        after waits for it."""
        if self.stream is None:
            yield
            return
        before = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(before)
        with torch.cuda.stream(self.stream):
            yield
        before.wait_stream(self.stream)

    def __call__(self, parts: Assembly, batch: Batch | ResidentBatch, step: int) -> tuple[Tensor, float]:
        kept, total = self._filled(parts, batch, step)
        self.seed(step)

        def once() -> Tensor:
            return recorded_step(parts, kept.rows, self.region)

        if kept.graph is None and kept.seen >= SEEN_BEFORE and self.num_graphs < MOST_GRAPHS:
            kept.graph = self.graph()
            kept.loss = kept.graph.record(once)
            self.num_graphs += 1
            self.seed(step)
        kept.seen += 1
        if kept.graph is None:
            return once(), total
        kept.graph.replay()
        assert kept.loss is not None
        return kept.loss.clone(), total

    def _filled(self, parts: Assembly, batch: Batch | ResidentBatch, step: int) -> tuple[_Kept, float]:
        """The buffer of a batch's sizes, with the batch in it, and the weight of its rows."""
        device = parts.model.device
        if isinstance(batch, ResidentBatch):
            kept = self._of(batch.layout, device)
            kept.words.copy_(batch.words)
            return kept, batch.weight
        is_row = batch.target != PAD
        total = float(is_row.sum() if batch.weight is None else batch.weight[is_row].sum())
        layout = Layout.of(batch, parts.config.max_length)
        words = torch.empty(layout.words, dtype=torch.int64, pin_memory=device.type == "cuda")
        layout.fill(words, batch, max(total, 1e-30), step)
        kept = self._of(layout, device)
        kept.words.copy_(words, non_blocking=True)
        return kept, total

    def _of(self, layout: Layout, device: torch.device) -> _Kept:
        if layout not in self.kept:
            words = torch.empty(layout.words, dtype=torch.int64, device=device)
            self.kept[layout] = _Kept(words, Rows.of(words, layout))
        return self.kept[layout]
