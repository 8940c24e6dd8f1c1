"""Masked rows: histories with some of their items hidden, which are the targets (BERT4Rec)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastpop import checks, registry
from fastpop.data.batches import PAD, Batch, SequenceBatches, _cut
from fastpop.data.interactions import Interactions
from fastpop.data.rows import Rows


@dataclass(frozen=True)
class Masked(Rows):
    """Histories with hidden items: the rows of BERT4Rec (Sun et al. 2019, arXiv 1904.06690).

    A user's events are cut into windows of at most max_length + 1, of which one at least is hidden: nearly
    even ones, so that hardly any has a single event, which would be left out. Each epoch hides items anew,
    each with probability `share`, at least one a window; in a share `last` of the windows the last item
    alone, as a model is asked when it serves (one in eleven in the original, which hides ten times and then
    once so). A hidden item is the id V in a history.

    share: of items hidden. last: of windows in which the last item alone is.
    """

    name: ClassVar[str] = "masked"
    needs_order: ClassVar[bool] = True
    dated: ClassVar[bool] = True
    share: float = 0.2
    last: float = 1 / 11

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("rows.share", self.share, gt=0, le=1)
        checks.number("rows.last", self.last, ge=0, le=1)

    def check(self, log: Interactions) -> None:
        super().check(log)
        if np.diff(log.offsets).max(initial=0) < 2:
            raise checks.wrong("log", "at least one user with two training events", text="none")

    def batches(
        self,
        log: Interactions,
        *,
        max_length: int,
        batch_size: int,
        seed: int,
        period: np.ndarray | None = None,
    ) -> "MaskedBatches":
        return MaskedBatches(log, max_length, batch_size, seed, self.share, self.last, period=period)

    def target_counts(self, log: Interactions) -> np.ndarray:
        """[V] float64: the expected share of the targets that each item is, times the number of events that
        can be hidden. Windows are those without a limit, so that it is a function of the log."""
        self.check(log)
        return _expected(log, *_even_windows(log.offsets, log.num_events), self.share, self.last)

    def target_events(self, log: Interactions) -> tuple[np.ndarray, np.ndarray | None]:
        """Every event that can be hidden, by how often it is expected to be."""
        self.check(log)
        windows = _even_windows(log.offsets, log.num_events)
        at, mass, total = _hidden_shares(log, *windows, self.share, self.last)
        return at, mass * (total / mass.sum())

    def contexts(self, log: Interactions, *, max_length: int, chunk: int) -> Iterator[Batch]:
        """Every event of a window hidden once, `share` of a window at a time."""
        return MaskedBatches(log, max_length, chunk, 0, self.share, 0.0).in_order()


class MaskedBatches(SequenceBatches):
    """Windows of like length together, about batch_size hidden items a batch."""

    def __init__(
        self,
        log: Interactions,
        max_length: int,
        batch_size: int,
        seed: int,
        share: float,
        last: float,
        *,
        period: np.ndarray | None = None,
    ):
        self.log, self.seed, self.share, self.last, self.period = log, seed, share, last, period
        self.batch_size = max(1, round(batch_size / share))  # in events
        self.start, self.length, self.user = _even_windows(log.offsets, max_length + 1)
        if len(self.length) == 0:
            raise checks.wrong("log", "at least one user with two training events", text="none")
        self.num_rows = int(((1 - last) * _rate(self.length, share) * self.length + last).sum())

    def target_counts(self) -> np.ndarray:
        """[V] the expected share of the targets that each item is, times the number of events in windows."""
        return _expected(self.log, self.start, self.length, self.user, self.share, self.last)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `skip` on."""
        for number, windows in enumerate(self.plan(epoch)[skip:], skip):
            generator = np.random.default_rng([self.seed, epoch, number])
            yield self._hidden(windows, _drawn(generator, self.length[windows], self.share, self.last))

    def in_order(self) -> Iterator[Batch]:
        """Every event hidden once: each window as often as it takes, `share` of it at a time."""
        times = max(1, round(1 / self.share))
        order = np.argsort(self.length, kind="stable")
        for number, windows in enumerate(_cut(order, self.length, self.batch_size)):
            length = self.length[windows]
            generator = np.random.Generator(np.random.Philox(key=[0, number]))
            key_BL = generator.random((len(windows), int(length.max())))
            key_BL[np.arange(key_BL.shape[1]) >= length[:, None]] = 2
            place_BL = np.argsort(np.argsort(key_BL, axis=1), axis=1)
            for turn in range(times):
                hidden_BL = (place_BL % times == turn) & (key_BL < 2)
                asked = hidden_BL.any(1)
                if asked.any():
                    yield self._hidden(windows[asked], hidden_BL[asked])

    def _hidden(self, windows: np.ndarray, hidden_BL: np.ndarray) -> Batch:
        """The windows, whose items at hidden_BL are hidden."""
        log, length = self.log, self.length[windows]
        column = np.arange(hidden_BL.shape[1])
        real_BL = column < length[:, None]
        at_BL = np.where(real_BL, self.start[windows][:, None] + column, 0)
        item_BL = log.item[at_BL].astype(np.int64)
        return Batch(
            user=self.user[windows],
            history=np.where(real_BL, np.where(hidden_BL, log.num_items, item_BL), PAD),
            target=np.where(hidden_BL, item_BL, PAD),
            weight=None if log.weight is None else log.weight[at_BL],
            period=None if self.period is None else np.where(hidden_BL, self.period[at_BL], PAD),
        )


def _drawn(generator: np.random.Generator, length: np.ndarray, share: float, last: float) -> np.ndarray:
    """[B, L] which items of windows of these lengths are hidden."""
    rows, column = np.arange(len(length)), np.arange(length.max())
    hidden_BL = (generator.random((len(rows), len(column))) < share) & (column < length[:, None])
    one = (generator.random(len(rows)) * length).astype(np.int64)
    none = ~hidden_BL.any(1)
    hidden_BL[rows[none], one[none]] = True
    alone = generator.random(len(rows)) < last
    hidden_BL[alone] = column == length[alone, None] - 1
    return hidden_BL


def _rate(length: np.ndarray, share: float) -> np.ndarray:
    """The probability that an item of a window of this length is hidden, where more than the last may be."""
    return share + (1 - share) ** length / length


def _expected(
    log: Interactions, start: np.ndarray, length: np.ndarray, user: np.ndarray, share: float, last: float
) -> np.ndarray:
    """[V] the expected share of the targets that each item is, times the weight of their events."""
    at, mass, total = _hidden_shares(log, start, length, user, share, last)
    count_V = np.bincount(log.item[at], mass, log.num_items)
    return count_V * (total / count_V.sum())


def _hidden_shares(
    log: Interactions, start: np.ndarray, length: np.ndarray, user: np.ndarray, share: float, last: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Of the events in windows: (place in the log [n], probability of being hidden times weight [n], all
    weights together)."""
    first = np.cumsum(length) - length
    at = np.repeat(start - first, length) + np.arange(int(length.sum()))
    chance = np.repeat((1 - last) * _rate(length, share), length)
    chance[first + length - 1] += last
    weight = np.ones(len(at)) if log.weight is None else log.weight[at].astype(np.float64)
    return at, chance * weight, float(weight.sum())


def _even_windows(offsets: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, length, user): a user's events in as few windows of at most `longest` as it takes, nearly even
    ones, but for those of a single event."""
    number_U = np.diff(offsets).astype(np.int64)
    pieces_U = -(-number_U // longest)
    user = np.repeat(np.arange(len(number_U)), pieces_U)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(pieces_U) - pieces_U, pieces_U)
    number, pieces = number_U[user], pieces_U[user]
    begin, end = nth * number // np.maximum(pieces, 1), (nth + 1) * number // np.maximum(pieces, 1)
    kept = end - begin > 1
    return (offsets[user] + begin)[kept], (end - begin)[kept], user[kept]


registry.ours("rows", Masked)
