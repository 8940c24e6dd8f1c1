"""What a step reads of its batch as words of 64 bits in one buffer: at addresses that do not change, where
steps are recorded; of some hundred batches one after the other, where rows lie on the device."""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastpop.data.batches import PAD, Batch
from fastpop.model import Placed

SIZES_PER_DOUBLING = 8


class Layout(NamedTuple):
    """Sizes of a step's buffer: users, items of a history (0: none is read), rows of the loss. In words of
    64 bits."""

    users: int
    length: int
    rows: int

    @classmethod
    def of(cls, batch: Batch, longest: int) -> "Layout":
        """longest: no history is padded past it."""
        users, length = (batch.num_rows, 0) if batch.history is None else batch.history.shape
        return cls.rounded(users, length, batch.num_rows, longest)

    @classmethod
    def rounded(cls, users: int, length: int, rows: int, longest: int) -> "Layout":
        """Of nearly these sizes, so that batches of many have few."""
        return cls(rounded(users), min(rounded(length, 2), longest) if length else 0, rounded(rows))

    def sizes(self) -> dict[str, int]:
        return {
            "user": self.users,
            "history": self.users * self.length,
            "at": self.rows if self.length else 0,
            "target": self.rows,
            "weight": -(-self.rows // 2),
            "total": 1,
            "step": 1,
        }

    def parts(self) -> dict[str, slice]:
        sizes = self.sizes()
        return {
            name: slice(end - size, end)
            for (name, size), end in zip(sizes.items(), accumulate(sizes.values()))
        }

    @property
    def words(self) -> int:
        return sum(self.sizes().values())

    def fill(self, words: Tensor, batch: Batch, total: float, step: int) -> None:
        """The host's words of a batch. total: the weight of its rows."""
        parts, words_N = self.parts(), words.numpy()
        words_N[parts["step"]] = step
        words_N[parts["total"]].view(np.float32)[:] = total
        target = batch.target.reshape(-1)
        at_R = np.flatnonzero(target != PAD)
        _filled(words_N[parts["user"]], batch.user)
        _filled(words_N[parts["target"]], target[at_R])
        if batch.history is not None:
            users, length = batch.history.shape
            history = words_N[parts["history"]].reshape(self.users, self.length)
            history[:users, :length] = batch.history
            history[:users, length:] = PAD
            history[users:] = history[0]
            _filled(words_N[parts["at"]], at_R // length * self.length + at_R % length)
        weight = words_N[parts["weight"]].view(np.float32)
        weight[: len(at_R)] = 1 if batch.weight is None else batch.weight.reshape(-1)[at_R]
        weight[len(at_R) :] = 0


def _filled(words: np.ndarray, values: np.ndarray) -> None:
    """The values, then the first of them again."""
    words[: len(values)] = values
    words[len(values) :] = values[0] if len(values) else 0


def rounded(number: int, per_doubling: int = SIZES_PER_DOUBLING) -> int:
    """The next of so many sizes between powers of two: at most 1 / per_doubling more."""
    step = max(1, (1 << max(number - 1, 0).bit_length()) // (2 * per_doubling))
    return -(-number // step) * step


@dataclass(frozen=True, eq=False)
class Rows(Placed):
    """What a recorded step reads: its batch, the weight of its rows, and its number for the draws."""

    total: Tensor
    step: Tensor

    @classmethod
    def of(cls, words: Tensor, layout: Layout) -> "Rows":
        parts = dict(zip(layout.sizes(), words.split(list(layout.sizes().values()))))
        return cls(
            user_B=parts["user"],
            history_BL=parts["history"].view(layout.users, layout.length) if layout.length else None,
            at_R=parts["at"] if layout.length else None,
            target_R=parts["target"],
            weight_R=parts["weight"].view(torch.float32)[: layout.rows],
            total=parts["total"].view(torch.float32)[0],
            step=parts["step"][0],
        )
