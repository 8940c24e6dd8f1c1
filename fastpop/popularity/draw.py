"""A draw of negatives by name, not by value: what stands where `neg_id` would."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks
from fastpop.kernels.alias_draw import _cuda
from fastpop.popularity.proposal import MAX_DRAWS, MAX_SEED, Proposal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Draw:
    """K ids from `proposal` for each group of rows, fixed by (seed, step) alone.

    proposal: a Proposal that draws (InBatch does not).
    seed, step: integers in [0, 2^64). The same pair always gives the same ids, on every device.
    num_negatives: K >= 1, drawn with replacement.
    group_size: rows that share their K ids; row b belongs to group b // group_size, the last group
        may be short. None: all rows share one group. 1: every row has its own.
    """

    proposal: Proposal
    seed: int
    step: int
    num_negatives: int
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.proposal, Proposal):
            raise checks.wrong_type("proposal", "a Proposal that draws", self.proposal)
        checks.number("seed", self.seed, least=0, most=MAX_SEED, integer=True)
        checks.number("step", self.step, least=0, most=MAX_SEED, integer=True)
        checks.number("num_negatives", self.num_negatives, least=1, most=MAX_DRAWS, integer=True)
        if self.group_size is not None:
            checks.number("group_size", self.group_size, least=1, integer=True)

    def num_groups(self, num_rows: int) -> int:
        """G = ceil(num_rows / group_size); 1 when all rows share, 0 without rows."""
        checks.number("num_rows", num_rows, least=0, integer=True)
        if num_rows == 0:
            return 0
        return 1 if self.group_size is None else -(-int(num_rows) // int(self.group_size))

    def ids(self, num_rows: int) -> np.ndarray:
        """proposal.sample(seed, step, (G, num_negatives)): int64 [G, K]."""
        shape = (self.num_groups(num_rows), int(self.num_negatives))
        return self.proposal.sample(self.seed, self.step, shape)

    def tensor(self, num_rows: int, device: Any = "cpu") -> "torch.Tensor":
        """torch.from_numpy(self.ids(num_rows)).to(device): int64 [G, K].

        On CUDA the ids are drawn on the device, on its current stream, where the extension was
        built with CUDA, and on the host otherwise; they are equal. The table (8 bytes an item)
        is kept on each device it was used on.
        """
        import torch

        device = torch.device(device)
        if device.type == "cuda":
            table_V2 = self.proposal.table_on(device)
            if _cuda.unsupported(table_V2) is None:
                groups, draws = self.num_groups(num_rows), int(self.num_negatives)
                return _cuda.draw(table_V2, int(self.seed), int(self.step), 0, groups, draws)
        return torch.from_numpy(self.ids(num_rows)).to(device)
