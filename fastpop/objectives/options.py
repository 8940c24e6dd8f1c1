"""Losses to choose from. One contract, `Objective`; what is computed is a module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import nn

from fastpop import checks, deprecated, registry
from fastpop.components import Component
from fastpop.objectives.softmax import FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.popularity import InBatch, Proposal, ProposalOptions, uniform

MOST_NEGATIVES = 1 << 20  # what no run needs more of


@dataclass(frozen=True)
class LossInputs:
    """What a run knows before its loss is made.

    num_items: V. seed: of draws. sparse: whether tables are to get sparse row gradients. proposal: how
    negatives are drawn. event_counts, target_counts: [V] when called: how often each item is trained
    on, and how often an epoch predicts it.
    """

    num_items: int
    seed: int
    sparse: bool
    proposal: ProposalOptions
    event_counts: Callable[[], np.ndarray]
    target_counts: Callable[[], np.ndarray]

    def distribution(self) -> Proposal | InBatch:
        """The distribution of negatives, of the events trained on: whatever their weights, since a batch
        holds each event once an epoch."""
        counts = self.target_counts if self.proposal.in_batch else self.event_counts
        return self.proposal.build(counts())


@dataclass(frozen=True)
class Objective(Component):
    """The base of losses to choose from.

    needs: "catalogue", all items; "negatives", draws of the proposal (the module is then called with step=,
    which numbers them). logits: whether what it trains are logits of a softmax over the catalogue, so that
    an NLL means something. row_gradients: whether tables can get sparse row gradients. whole_batch: whether
    a row's loss depends on the other rows of its batch, which then is computed in one part. takes_prior:
    whether there are scores in it for log p to stand beside; without, prior="none" alone can be trained.
    adapts: whether its module has buffers that training changes: `adapt()` is called after each step, and
    checkpoints keep its state dict. heeds_found_inf = True of such a module says that `adapt` changes nothing
    where its `found_inf`, 0-d on a device or None, is not 0; without, each loss of a device is waited for.
    half_items: whether it takes items in bfloat16 beside float32 queries.
    takes_shard: whether its module takes shard=, a `fastpop.ops.RowShard` of items that several processes
    share, each with rows of its own, of whose losses it then gives the sum. reads_rows: whether it reads no
    vectors but those of its rows' positives: several processes then make it of the rows of all
    (docs/distributed.md).

    `check` is asked before a log is read, by the configuration.

    `build` gives a module: forward(query [R, D], items [V, D], pos_id [R], *, row_weight [R] or None,
    log_prior [V] or None, prior_weight, scale[, step]) -> the sum of the rows' losses, weighted. It adds
    prior_weight * log_prior to its scores, scale * <query, item>.
    """

    kind: ClassVar[str] = "loss"
    needs: ClassVar[Literal["catalogue", "negatives"]] = "catalogue"
    logits: ClassVar[bool] = True
    row_gradients: ClassVar[bool] = False
    whole_batch: ClassVar[bool] = False
    takes_prior: ClassVar[bool] = True
    adapts: ClassVar[bool] = False
    half_items: ClassVar[bool] = False
    takes_shard: ClassVar[bool] = False
    reads_rows: ClassVar[bool] = False

    @property
    def uncorrected(self) -> bool:
        """Whether negatives are drawn and not corrected for how: scores then lose what the draws hold."""
        return False

    def check(self, dim: int, rows: int, proposal: ProposalOptions) -> None:
        """Raises ValueError where the options do not go with D, with the rows of a batch or with the
        proposal."""

    def build(self, given: LossInputs) -> nn.Module:
        raise NotImplementedError


def need_others(part: Component, rows: int) -> None:
    """Raises ValueError for a batch of one row, which nothing of a part that compares rows is left of."""
    if rows < 2:
        raise checks.wrong(
            "batch_size",
            f"at least 2 rows in a batch, or a part of it (accumulate), with the {part.kind} {str(part)!r}, "
            "which compares rows",
            rows,
        )


@dataclass(frozen=True)
class FullSoftmax(Objective):
    """Cross-entropy over the whole catalogue. label_smoothing: share of the target spread over it."""

    name: ClassVar[str] = "full_softmax"
    half_items: ClassVar[bool] = True
    takes_shard: ClassVar[bool] = True
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.label_smoothing", self.label_smoothing, ge=0)
        if self.label_smoothing >= 1:
            raise checks.wrong("loss.label_smoothing", "a number below 1", self.label_smoothing)

    def build(self, given: LossInputs) -> FullSoftmaxLoss:
        return FullSoftmaxLoss(label_smoothing=self.label_smoothing, ignore_index=None, reduction="sum")


@deprecated.options
@dataclass(frozen=True)
class SampledSoftmax(Objective):
    """Cross-entropy over the positive and drawn negatives.

    num_negatives: per draw. group_size: rows that share a draw; 0: all rows of a batch, 1: one draw per row.
    extra_negatives: uniform draws beside in-batch negatives. logq: correction for the proposal.
    accidental_hits: what to do with negatives equal to the positive; empty lets logq decide.
    """

    name: ClassVar[str] = "sampled_softmax"
    half_items: ClassVar[bool] = True
    takes_shard: ClassVar[bool] = True
    needs: ClassVar[Literal["catalogue", "negatives"]] = "negatives"
    row_gradients: ClassVar[bool] = True
    RENAMED: ClassVar[Mapping[str, str]] = {"hits": "accidental_hits"}
    num_negatives: int = 1024
    group_size: int = 0
    extra_negatives: int = 0
    logq: Literal["standard", "corrected", "none"] = "standard"
    accidental_hits: Literal["", "keep", "drop"] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("loss.num_negatives", self.num_negatives, ge=1, le=MOST_NEGATIVES, integer=True)
        for name in ("group_size", "extra_negatives"):
            checks.number(f"loss.{name}", getattr(self, name), ge=0, integer=True)

    @property
    def uncorrected(self) -> bool:
        return self.logq == "none"

    def check(self, dim: int, rows: int, proposal: ProposalOptions) -> None:
        if proposal.in_batch and not self.extra_negatives:
            need_others(self, rows)

    def build(self, given: LossInputs) -> SampledSoftmaxLoss:
        extra = uniform(given.num_items) if self.extra_negatives else None
        return SampledSoftmaxLoss(
            None,
            given.distribution(),
            num_negatives=self.extra_negatives or self.num_negatives,
            extra=extra,
            logq=self.logq,
            accidental_hits=self.accidental_hits or None,
            group_size=self.group_size or None,
            seed=given.seed,
            sparse_grad=given.sparse,
            ignore_index=None,  # batches have rows with targets alone
            reduction="sum",
        )


registry.ours("loss", FullSoftmax, SampledSoftmax)
