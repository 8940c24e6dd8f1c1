"""Distributions from which negatives are drawn, each with the exact log of what it draws.

A `Proposal` owns an integer alias table: ids depend on (seed, step, group, k) alone, and
`log_proposal_V` is the distribution of that table, not of the weights it was made from (the two differ by
about 2^-32 of a mean item). `InBatch` has a distribution and no table: the batch itself supplies the ids.
"""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks, deprecated
from fastpop.frozen import freeze
from fastpop.ops.alias_table import MAX_ITEMS, AliasTable, table_of
from fastpop.ops.proposal_tensors import ProposalTensors
from fastpop.popularity.smoothing import check_counts

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False, repr=False)
class Proposal(AliasTable):
    """A distribution over items that can be drawn from. Made by `uniform`, `power`, `log_uniform`,
    `mixture` or `Proposal.from_weights`.

    num_items: V.
    log_proposal_V: float64 [V], nats; the exact distribution of what is drawn, -inf where never.
    table_V2: uint32 [V, 2], rows (threshold, alias); what kernels that draw inside read.
    name: "uniform", "popularity", "log_uniform", "mixture" or "weights".
    parameters: what `spec` reports beside name and num_items.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "parameters")
        super().__post_init__()

    @classmethod
    def from_weights(
        cls, weights: Any, *, name: str = "weights", parameters: dict[str, Any] | None = None
    ) -> "Proposal":
        """weights / weights.sum() as an alias table.

        weights: [V] finite numbers >= 0, not all zero. Weight 0 is never drawn; any positive
        weight can be drawn, however small.
        Cost: O(V) time (about 50 ns per item) and 24 bytes per item while it builds.
        """
        table_V2, log_proposal_V = table_of(weights)
        made = {"weights_sha256": digest(checks.float_array("weights", weights, 1))}
        return cls(len(table_V2), log_proposal_V, table_V2, name, made if parameters is None else parameters)

    def log_q(self, ids: Any) -> np.ndarray:
        """log_proposal_V[ids], ids checked: float64 of the same shape, nats."""
        return _log_q(self, ids)

    def behind(self, first_item: int) -> "Proposal":
        """The same distribution of a table whose first rows, `first_item` of them, are no items: item i is
        row first_item + i, and the others are never drawn."""
        checks.number("first_item", first_item, ge=0, integer=True)
        weights = np.concatenate([np.zeros(first_item), np.exp(self.log_proposal_V)])
        parameters = {**self.parameters, "first_item": int(first_item)}
        return Proposal.from_weights(weights, name=self.name, parameters=parameters)

    def spec(self) -> dict[str, Any]:
        """What this distribution is, as JSON can hold it: name, number of items, parameters, and a digest
        of the counts it came from, so that a resumed run can tell whether it has the same one."""
        return {"name": self.name, "num_items": self.num_items, **self.parameters}

    def __repr__(self) -> str:
        return f"Proposal({self.name!r}, num_items={self.num_items})"


@dataclass(frozen=True, eq=False, repr=False)
class InBatch:
    """The distribution of in-batch negatives: the positives of the other rows, q(i) = counts / counts.sum().

    Rows come from training events, so an item stands in a slot with its share of those events. Each
    row excludes the in-batch diagonal, not equal ids of other rows; the loss does that.

    num_items: V. log_proposal_V: float64 [V], nats; -inf for items without training events.
    """

    num_items: int
    log_proposal_V: np.ndarray
    name: str = "in_batch"
    parameters: dict[str, Any] = field(default_factory=dict)
    _tensors: ProposalTensors = field(init=False)

    def __post_init__(self) -> None:
        freeze(self, "parameters")
        object.__setattr__(self, "_tensors", ProposalTensors({"log_proposal_V": self.log_proposal_V}))

    @classmethod
    def from_counts(cls, counts: Any) -> "InBatch":
        """counts: [V] training events of each item (the same weights that draw the batches)."""
        count_V = check_counts(counts)
        with np.errstate(divide="ignore"):
            log_proposal_V = np.log(count_V / count_V.sum())
        log_proposal_V.flags.writeable = False
        return cls(count_V.shape[0], log_proposal_V, parameters={"counts_sha256": digest(count_V)})

    def sample(self, *_args: Any, **_kwargs: Any) -> np.ndarray:
        """Always raises: the ids are the positives of the batch."""
        raise TypeError(
            "proposal: expected one that draws ids; got in_batch, whose candidates are the "
            "positives of the batch (give pos_id as neg_id and take log_proposal_V from here)"
        )

    def log_q(self, ids: Any) -> np.ndarray:
        """log_proposal_V[ids], ids checked: float64 of the same shape, nats."""
        return _log_q(self, ids)

    def log_proposal_on(self, device: Any, dtype: Any = None) -> "torch.Tensor":
        """log_proposal_V as a torch tensor (float32, or `dtype`); kept after the first call."""
        return self._tensors.on("log_proposal_V", device, dtype or "float32")

    def spec(self) -> dict[str, Any]:
        """Name, number of items and a digest of the counts, as JSON can hold them."""
        return {"name": self.name, "num_items": self.num_items, **self.parameters}

    def __repr__(self) -> str:
        return f"InBatch(num_items={self.num_items})"


def uniform(num_items: int) -> Proposal:
    """q(i) = 1 / num_items."""
    checks.number("num_items", num_items, ge=1, le=MAX_ITEMS, integer=True)
    return Proposal.from_weights(np.ones(int(num_items)), name="uniform", parameters={})


def power(counts: Any, alpha: float = 1.0) -> Proposal:
    """q(i) = counts[i]**alpha / sum(counts**alpha); an item without events is never drawn.

    alpha = 0 is uniform over the items that have events, 1 is popularity, 0.75 word2vec's choice.
    """
    count_V = check_counts(counts)
    checks.number("alpha", alpha)
    # Relative to the largest log weight, so that no alpha overflows.
    seen = count_V > 0
    log_weight = alpha * np.log(count_V[seen])
    weight_V = np.zeros_like(count_V)
    weight_V[seen] = np.exp(log_weight - log_weight.max())
    parameters = {"alpha": float(alpha), "counts_sha256": digest(count_V)}
    return Proposal.from_weights(weight_V, name="popularity", parameters=parameters)


def log_uniform(counts: Any) -> Proposal:
    """q(rank r) = log((r+2)/(r+1)) / log(V+1), r = 0 for the item with the most training events.

    The distribution of TensorFlow's log-uniform candidate sampler over ranks taken here, from training
    counts (ties by id), so that ids need no popularity order. Items without events can be drawn.
    """
    count_V = check_counts(counts)
    order = np.argsort(-count_V, kind="stable")
    weight_V = np.empty_like(count_V)
    weight_V[order] = np.log1p(1.0 / np.arange(1.0, count_V.shape[0] + 1.0))
    parameters = {"counts_sha256": digest(count_V)}
    return Proposal.from_weights(weight_V, name="log_uniform", parameters=parameters)


def mixture(parts: list[tuple[Proposal, float]]) -> Proposal:
    """q = sum of weight * q_part, as one table with the mixture's true distribution.

    Each negative comes from part j with chance weight_j / sum. The correction for a sample from
    several distributions is log of this mixture; correcting each negative by its own part is wrong.
    """
    if not isinstance(parts, (list, tuple)) or not parts:
        raise checks.wrong("parts", "a list of (proposal, weight)", parts)
    probability_V = np.zeros(1)
    described = []
    total = 0.0
    for at, part in enumerate(parts):
        if not isinstance(part, (list, tuple)) or len(part) != 2:
            raise checks.wrong(f"parts[{at}]", "(proposal, weight)", part)
        proposal, weight = part
        if not isinstance(proposal, Proposal):
            raise checks.wrong_type(
                f"parts[{at}]", "a Proposal that draws (for in-batch see slot_log_proposal)", proposal
            )
        checks.number(f"parts[{at}] weight", weight, gt=0)
        if at and proposal.num_items != probability_V.shape[0]:
            raise checks.wrong(f"parts[{at}]", f"{probability_V.shape[0]} items", proposal.num_items)
        probability_V = probability_V + weight * np.exp(proposal.log_proposal_V)
        total += weight
        described.append({**proposal.spec(), "weight": float(weight)})
    for part_spec in described:
        part_spec["weight"] /= total
    return Proposal.from_weights(probability_V, name="mixture", parameters={"parts": described})


def slot_log_proposal(
    in_batch: InBatch, proposal: Proposal, batch_size: int, num_negatives: int
) -> np.ndarray:
    """log(((B-1) p + K q) / (B-1+K)): log q of a candidate slot when each row sees the other B-1
    positives of its batch and K negatives drawn from `proposal` (mixed negative sampling, Yang et al. 2020).

    Returns: float64 [V], nats; -inf where both distributions are 0. Log Q correction for that candidate
    set uses this one distribution for every slot.
    """
    if not isinstance(in_batch, InBatch):
        raise checks.wrong_type("in_batch", "an InBatch", in_batch)
    if not isinstance(proposal, Proposal):
        raise checks.wrong_type("proposal", "a Proposal that draws", proposal)
    if proposal.num_items != in_batch.num_items:
        raise checks.wrong("proposal", f"{in_batch.num_items} items", proposal.num_items)
    checks.number("batch_size", batch_size, ge=1, integer=True)
    checks.number("num_negatives", num_negatives, ge=0, integer=True)
    others = int(batch_size) - 1
    slots = others + int(num_negatives)
    if slots == 0:
        raise checks.wrong("num_negatives", "at least one candidate beside the positive", 0)
    probability_V = others * np.exp(in_batch.log_proposal_V)
    probability_V += int(num_negatives) * np.exp(proposal.log_proposal_V)
    with np.errstate(divide="ignore"):
        return np.log(probability_V / slots)


def digest(array: np.ndarray) -> str:
    """The first 16 hex digits of the array's SHA-256."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def _log_q(proposal: Proposal | InBatch, ids: Any) -> np.ndarray:
    index = checks.array_like("ids", ids)
    index = index.detach().cpu().numpy() if hasattr(index, "detach") else index
    if index.dtype.kind not in "iu":
        raise checks.wrong_type("ids", "integers", index)
    checks.ids_in_range("ids", index, proposal.num_items)
    return proposal.log_proposal_V[index]


__getattr__ = deprecated.names(__name__, {"slot_law": ("fastpop.popularity.proposal", "slot_log_proposal")})
