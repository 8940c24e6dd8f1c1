"""Rules that a run splits its log by. One contract, `SplitRule`; the cutting itself is in split.py."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import checks, registry
from fastpop.components import Component
from fastpop.data.interactions import Interactions
from fastpop.data.split import Split, assembled, split


@dataclass(frozen=True)
class SplitRule(Component):
    """The base of rules: a new one says which part each event goes to.

    keeps_test: False for a rule that leaves no validation and no test part.
    """

    kind: ClassVar[str] = "split"
    keeps_test: ClassVar[bool] = True

    def part(self, log: Interactions, seed: int) -> np.ndarray:
        """[N] for each event of the log: 0 train, 1 validation, 2 test. A function of (log, seed)."""
        raise NotImplementedError

    def cut(self, log: Interactions, seed: int) -> Split:
        """The parts. Raises ValueError where the log cannot be split so."""
        part = np.asarray(self.part(log, seed))
        checks.shape(f"split {self}: part", part, (log.num_events,))
        if part.dtype.kind not in "iu" or not np.isin(part, (0, 1, 2)).all():
            raise checks.wrong(
                f"split {self}: part", "0 (train), 1 (validation) or 2 (test) for each event", part
            )
        if not (part == 0).any():
            raise checks.wrong(f"split {self}: part", "some events that train (0)", text="none")
        return assembled(log, part.astype(np.int8), {"rule": str(self), **self.options(), "seed": int(seed)})


@dataclass(frozen=True)
class _Ours(SplitRule):
    def cut(self, log: Interactions, seed: int) -> Split:
        return split(log, self.name, seed=seed, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class LeaveLastOut(_Ours):
    """A user's last event is the test, the last but one validates."""

    name: ClassVar[str] = "leave-last-out"


@dataclass(frozen=True)
class LeaveLastN(_Ours):
    """The same with the last n events as one set of targets."""

    name: ClassVar[str] = "leave-last-n"
    n: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("split.n", self.n, ge=1, integer=True)

    def _arguments(self) -> dict[str, Any]:
        return {"n": self.n}


@dataclass(frozen=True)
class _ByShare(_Ours):
    fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("split.fraction", self.fraction, gt=0, le=0.5)

    def _arguments(self) -> dict[str, Any]:
        return {"fraction": self.fraction}


@dataclass(frozen=True)
class GlobalTime(_ByShare):
    """Events at or after a moment are the test, those of a span before it validate."""

    name: ClassVar[str] = "global-time"


@dataclass(frozen=True)
class RandomByUser(_ByShare):
    """A share of each user's events at random, for logs without order."""

    name: ClassVar[str] = "random-by-user"


@dataclass(frozen=True)
class NoSplit(_Ours):
    """Everything trains."""

    name: ClassVar[str] = "none"
    keeps_test: ClassVar[bool] = False


registry.ours("split", LeaveLastOut, LeaveLastN, GlobalTime, RandomByUser, NoSplit)
