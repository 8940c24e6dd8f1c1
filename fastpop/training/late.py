"""Losses that are read late: a step on a device is not waited for, and still none is made past a loss that is
not finite.

A number on the device, the stop, says whether the run has met such a loss; the optimisers read it there and
make no step from then on. The host reads losses some steps later, in order, so the run ends at the step that
met it, with that step's batch and with the tables as they were before it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastpop.data.batches import Batch
from fastpop.training.resident import ResidentBatch

EVERY = 32  # steps between two looks at a device: a wait of some ten microseconds for each


class Stop:
    """0-d on a device: `flag` is 0, and 1 from the first loss on that is not finite."""

    def __init__(self, device: torch.device):
        self.flag = torch.zeros((), device=device)
        self._seen = torch.zeros((), device=device)

    @torch.no_grad()
    def watch(self, loss: Tensor) -> None:
        """To be called between a loss and its backward()."""
        self._seen.add_(loss, alpha=0)  # 0 * inf and 0 * NaN are NaN, and stay so
        torch.ne(self._seen, 0, out=self.flag)


def stop_of(changing: Iterable[Any], device: torch.device) -> Stop | None:
    """A stop that all heed that change after a loss: optimisers, and a loss that adapts; None where they need
    none, on the CPU, or where one of them cannot: then each loss is waited for.

    It is their `found_inf`, which torch's fused optimisers read, and ours.
    """
    changing = list(changing)
    if device.type == "cpu" or not all(map(_heeds, changing)):
        return None
    stop = Stop(device)
    for one in changing:
        one.found_inf = stop.flag
    return stop


def _heeds(one: Any) -> bool:
    """torch's own flag is of its fused optimisers, ours of those that say so."""
    return getattr(one, "heeds_found_inf", False) or getattr(one, "_step_supports_amp_scaling", False)


@dataclass(frozen=True)
class Met:
    """A step that was made: where, on what, and the mean loss before it by the weight of its rows."""

    step: int
    epoch: int
    number: int
    batch: Batch | ResidentBatch
    loss: float | Tensor
    weight: float


class Losses:
    """Of the steps since the last look. add: the sum of losses and that of weights, one step at a time.
    fail: called with the first step whose loss is not finite, and the loss."""

    def __init__(self, add: Callable[[float, float], None], fail: Callable[[Met, float], NoReturn]):
        self._add, self._fail = add, fail
        self._waiting: list[Met] = []

    def met(self, one: Met) -> None:
        """A loss that is a number is read at once, others when there are `EVERY` of them."""
        self._waiting.append(one)
        if not isinstance(one.loss, Tensor) or len(self._waiting) == EVERY:
            self.read()

    def read(self) -> None:
        """All that are waiting, in order; the only wait for a device."""
        waiting, self._waiting = self._waiting, []
        for one, loss in zip(waiting, _numbers([one.loss for one in waiting])):
            if not math.isfinite(loss):
                self._fail(one, loss)
            self._add(loss * one.weight, one.weight)


def _numbers(losses: list[Any]) -> list[float]:
    if losses and all(isinstance(one, Tensor) for one in losses):
        return torch.stack(losses).tolist()
    return [float(one) for one in losses]
