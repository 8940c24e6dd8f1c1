"""A draw of negatives by name, not by value: what stands where `neg_id` would."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks
from fastpop.kernels.alias_draw.reference import Inputs
from fastpop.ops.alias_draw import MAX_DRAWS, MAX_SEED, counter_on, drawn
from fastpop.ops.alias_table import AliasTable
from fastpop.types import Impl

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Draw:
    """K ids from `proposal` for each group of rows, fixed by (seed, step) alone.

    proposal: a `fastpop.popularity.Proposal` (InBatch draws nothing), or any AliasTable.
    seed, step: integers in [0, 2^64). The same pair always gives the same ids, on every device and in
        every process (`SampledSoftmaxLoss` mixes the process's rank into its seed).
        step may be a one-element int64 tensor, so that a captured graph can count on.
    num_negatives: K >= 1, drawn with replacement.
    group_size: rows that share their K ids; row b belongs to group b // group_size, the last group
        may be short. None: all rows share one group. 1: every row has its own.
    """

    proposal: AliasTable
    seed: int
    step: "int | torch.Tensor"
    num_negatives: int
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.proposal, AliasTable):
            raise checks.wrong_type("proposal", "a Proposal that draws", self.proposal)
        checks.number("seed", self.seed, ge=0, le=MAX_SEED, integer=True)
        step: Any = self.step
        # An int that torch.compile traces as a symbol is an int, but hasattr of it cannot be traced.
        if not isinstance(step, (int, np.integer)) and hasattr(step, "numel"):
            if step.numel() != 1 or str(step.dtype) != "torch.int64":
                raise checks.wrong("step", "an integer or a one-element int64 tensor", step)
        else:
            checks.number("step", self.step, ge=0, le=MAX_SEED, integer=True)
        checks.number("num_negatives", self.num_negatives, ge=1, le=MAX_DRAWS, integer=True)
        if self.group_size is not None:
            checks.number("group_size", self.group_size, ge=1, integer=True)

    def num_groups(self, num_rows: int) -> int:
        """G = ceil(num_rows / group_size); 1 when all rows share, 0 without rows."""
        checks.number("num_rows", num_rows, ge=0, integer=True)
        if num_rows == 0:
            return 0
        return 1 if self.group_size is None else -(-num_rows // int(self.group_size))

    def ids(self, num_rows: int) -> np.ndarray:
        """proposal.sample(seed, step, (G, num_negatives)): int64 [G, K]."""
        shape = (self.num_groups(num_rows), int(self.num_negatives))
        return self.proposal.sample(self.seed, int(self.step), shape)

    def counter_on(self, device: Any) -> "torch.Tensor":
        """(seed, step) as the bits of two int64, on a device: what kernels that draw inside read."""
        return counter_on(self.seed, self.step, device)

    def tensor(self, num_rows: int, device: Any = "cpu", *, impl: Impl = "auto") -> "torch.Tensor":
        """torch.from_numpy(self.ids(num_rows)).to(device): int64 [G, K], drawn on that device.

        impl: as in `fastpop.ops.alias_draw`. The table (8 bytes per item) is kept on each device it was
        used on. Works under torch.compile(fullgraph=True), where the implementation is chosen by "auto".
        Raises: NotImplementedError where nothing draws on the device; says what would.
        """
        import torch

        counter: Any
        groups, table = self.num_groups(num_rows), self.proposal.table_on(device)
        if torch.compiler.is_compiling():
            from fastpop.ops import _draw_op  # noqa: F401  (registers the operator)

            return torch.ops.fastpop.alias_draw(table, self.counter_on(device), groups, self.num_negatives)
        counter = (self.seed, self.step)
        if not all(isinstance(word, (int, np.integer)) for word in counter):
            counter = self.counter_on(device)
        return drawn(Inputs(table, counter, 0, groups, int(self.num_negatives)), impl)


def seed_of(seed: int, rank: int) -> int:
    """The seed of one of several processes that share `seed`: that itself for rank 0, for others a mix
    of both (SplitMix64's), so that seeds side by side and ranks side by side meet nowhere."""
    if rank == 0:
        return seed
    word = (seed + rank * 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31
