"""A comparison whose seeds are dealt out among processes that share its folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastpop import checks

ASLEEP = 0.05  # seconds between two looks at what others have told


@dataclass(frozen=True)
class Dealt:
    """This process among those that make a comparison together, each alone its share of the seeds.

    The first holds the folder, puts the seeds together and writes; numbers are those of one process.

    Args:
        rank, world: its number, and how many there are. store: where they meet, a
            `torch.distributed.Store`. beside: how many of them are on this host, and share its memory.
    """

    rank: int
    world: int
    store: Any
    beside: int = 1

    def __post_init__(self) -> None:
        checks.number("world", self.world, ge=1, integer=True)
        checks.number("rank", self.rank, ge=0, le=self.world - 1, integer=True)

    __repr__ = checks.brief

    @property
    def leads(self) -> bool:
        """Whether it is the first."""
        return self.rank == 0

    def own(self, seeds: Sequence[int]) -> list[int]:
        """Its share: every world-th seed, so that no process has two more than another."""
        return list(seeds)[self.rank :: self.world]

    def tell(self, what: str) -> None:
        """Say that something is done."""
        self.store.set(f"{what}/{self.rank}", "done")

    def wait_for(self, what: str, *ranks: int) -> None:
        """Until these have told so. Signals are heard."""
        while not self.store.check([f"{what}/{rank}" for rank in ranks]):
            time.sleep(ASLEEP)
