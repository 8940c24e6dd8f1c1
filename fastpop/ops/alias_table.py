"""A distribution over items as an integer alias table: what can be drawn from, and the exact log of it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks
from fastpop.kernels.alias_draw import reference
from fastpop.ops import _dispatch
from fastpop.ops.alias_draw import check_counters, drawn
from fastpop.ops.proposal_tensors import ProposalTensors
from fastpop.types import Impl

if TYPE_CHECKING:
    import torch

MAX_ITEMS = reference.MAX_ITEMS


@dataclass(frozen=True, eq=False, repr=False)
class AliasTable:
    """num_items: V. log_proposal_V: float64 [V], nats; the exact distribution of what is drawn, -inf where
    never. table_V2: uint32 [V, 2], rows (threshold, alias); what kernels that draw inside read.

    `fastpop.popularity.Proposal` is one with a name.
    """

    num_items: int
    log_proposal_V: np.ndarray
    table_V2: np.ndarray
    _tensors: ProposalTensors = field(init=False)
    _distinct: dict[int, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        arrays = {"log_proposal_V": self.log_proposal_V, "table_V2": self.table_V2}
        object.__setattr__(self, "_tensors", ProposalTensors(arrays))

    def sample(
        self, seed: int, step: int, shape: int | tuple[int, ...], group: int = 0, *, impl: Impl = "cpu"
    ) -> np.ndarray:
        """rng.choice(V, size=shape, p=exp(log_proposal_V)), drawn by counter.

        seed, step: integers in [0, 2^64). shape: K or (K,) draws K ids of group `group`; (G, K)
        draws groups group .. group+G-1, row by row what each group draws alone.
        impl: "cpu" (C++, all OpenMP threads, no GIL) or "reference" (numpy); the same ids.
        Returns: int64 of that shape. A longer draw starts with the shorter one's ids.
        Cost: one Philox block for two ids; no state, nothing stored.
        """
        size = (shape,) if isinstance(shape, (int, np.integer)) else shape
        if not isinstance(size, tuple) or len(size) not in (1, 2):
            raise checks.wrong("shape", "K, (K,) or (G, K)", shape)
        num_groups, num_draws = (1, size[0]) if len(size) == 1 else size
        check_counters(seed, step, group, num_groups, num_draws)
        inputs = reference.Inputs(self.table_V2, (seed, step), int(group), int(num_groups), int(num_draws))
        return drawn(inputs, impl).reshape(size)

    def table_on(self, device: Any) -> "torch.Tensor":
        """table_V2 as torch int32 [V, 2] (the same bits) on a device; kept after the first call."""
        return self._tensors.on("table_V2", device, "int32")

    def expected_distinct(self, num_draws: int) -> float:
        """How many different ids so many draws have on average: the sum over items of 1 - (1 - q)^num_draws.

        Cost: O(V) the first time that a number is asked for.
        """
        checks.number("num_draws", num_draws, ge=0, integer=True)
        if num_draws == 0:
            return 0.0
        if num_draws not in self._distinct:
            with np.errstate(divide="ignore"):  # an item of q 1 is drawn
                missed_V = num_draws * np.log1p(-np.exp(self.log_proposal_V))
            self._distinct[num_draws] = float(-np.expm1(missed_V).sum())
        return self._distinct[num_draws]

    def log_proposal_on(self, device: Any, dtype: Any = None) -> "torch.Tensor":
        """log_proposal_V as a torch tensor (float32, or `dtype`); kept after the first call."""
        return self._tensors.on("log_proposal_V", device, dtype or "float32")


def table_of(weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """(table_V2, log_proposal_V), read-only, of weights / weights.sum().

    weights: [V] finite numbers >= 0, not all zero. Weight 0 is never drawn; any positive weight can be
    drawn, however small. Cost: O(V) time (about 50 ns per item) and 24 bytes per item while it builds.
    """
    weight_V = checks.float_array("weights", weights, 1)
    num_items = weight_V.shape[0]
    if num_items == 0 or num_items > MAX_ITEMS:
        raise checks.wrong("weights", f"1 to {MAX_ITEMS} items", weight_V)
    if (weight_V < 0).any():
        at = int(np.argmax(weight_V < 0))
        raise checks.wrong("weights", "numbers >= 0", text=f"{weight_V[at]} at item {at}")
    positive = np.flatnonzero(weight_V)
    if positive.size == 0:
        raise checks.wrong("weights", "at least one number > 0", text="all zeros")
    if positive.size == 1:
        table_V2 = reference.single_item_table(num_items, int(positive[0]))
    else:
        table_V2 = _dispatch.load("alias_draw", "cpu").build(reference.integer_mass(weight_V))
    log_proposal_V = reference.log_proposal_of(table_V2)
    table_V2.flags.writeable = False
    log_proposal_V.flags.writeable = False
    return table_V2, log_proposal_V
