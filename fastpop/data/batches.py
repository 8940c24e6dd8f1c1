"""Training batches: the order of the data is a function of (seed, epoch) and nothing else.

`batch_size` counts loss rows (events that are predicted) whatever the encoder.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastpop import checks
from fastpop.data import columns
from fastpop.data.interactions import Interactions

PAD = -1  # no item; never a valid id


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's rows. Event batches have `user` only; sequence batches have `history` too.

    user: [B] int64 dense users. history: [B, L] items, oldest first, PAD after the end. target: [B, L] what
    each history position predicts, the item after it or the one that is hidden there (PAD where there is
    none), or [B] for events.
    weight: like target, or None. period: like target, int64, the period of the event that is predicted (PAD
    where there is none), or None where nothing asks for it.
    """

    user: np.ndarray
    target: np.ndarray
    history: np.ndarray | None = None
    weight: np.ndarray | None = None
    period: np.ndarray | None = None

    __repr__ = checks.brief

    @property
    def num_rows(self) -> int:
        return int((self.target != PAD).sum())

    def split(self, parts: int) -> list["Batch"]:
        """Nearly equal parts, none empty."""
        cuts = np.array_split(np.arange(len(self.user)), min(parts, len(self.user)))
        return [
            replace(
                self,
                user=self.user[cut],
                target=self.target[cut],
                history=None if self.history is None else self.history[cut],
                weight=None if self.weight is None else self.weight[cut],
                period=None if self.period is None else self.period[cut],
            )
            for cut in cuts
        ]


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch]))


def check_order(log: Interactions) -> None:
    """Raises ValueError for a log without what an encoder of histories needs."""
    if not log.has_order:
        raise checks.wrong(
            "log",
            "events with an order (a time column or sequences) for an encoder that reads histories",
            text="a log without one",
        )


class EventBatches:
    """Each event once an epoch, in random order: for encoders that read the user only."""

    def __init__(self, log: Interactions, batch_size: int, seed: int, *, period: np.ndarray | None = None):
        if log.num_events == 0:
            raise checks.wrong("log", "at least one training event", text="none")
        self.log, self.batch_size, self.seed, self.period = log, batch_size, seed, period
        self.num_rows = log.num_events

    def target_counts(self) -> np.ndarray:
        """[V] how often an epoch predicts each item: the distribution of in-batch negatives."""
        return columns.bincount(self.log.item, self.log.num_items).astype(np.float64)

    def num_batches(self, epoch: int) -> int:
        return -(-self.num_rows // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `skip` on."""
        log, order = self.log, self.order(epoch)
        for first in range(skip * self.batch_size, len(order), self.batch_size):
            take = order[first : first + self.batch_size]
            yield Batch(
                user=log.user[take].astype(np.int64),
                target=log.item[take].astype(np.int64),
                weight=None if log.weight is None else log.weight[take],
                period=None if self.period is None else self.period[take],
            )

    def order(self, epoch: int) -> np.ndarray:
        """[N] the events of an epoch, one batch after the other."""
        return columns.permutation(epoch_generator(self.seed, epoch), self.log.num_events)


class SequenceBatches:
    """Each event that has a predecessor once an epoch as a target, its predecessors as history.

    A user's events are cut from the end into windows of at most `max_length` targets. Windows of
    like length share a batch (sorted within random pools), so little of it is padding.
    """

    POOL = 4096

    def __init__(
        self,
        log: Interactions,
        max_length: int,
        batch_size: int,
        seed: int,
        *,
        period: np.ndarray | None = None,
    ):
        check_order(log)
        self.log, self.batch_size, self.seed, self.period = log, batch_size, seed, period
        self.start, self.length, self.user = _windows(log.offsets, max_length)
        self.num_rows = int(self.length.sum())
        if self.num_rows == 0:
            raise checks.wrong("log", "at least one user with two training events", text="none")

    def num_batches(self, epoch: int) -> int:
        return len(self.plan(epoch))

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `skip` on."""
        for windows in self.plan(epoch)[skip:]:
            yield self._batch(windows)

    def target_counts(self) -> np.ndarray:
        """[V] how often an epoch predicts each item (never a user's first event)."""
        log = self.log
        first = log.offsets[:-1][np.diff(log.offsets) > 0]
        counts_V = columns.bincount(log.item, log.num_items)
        return (counts_V - np.bincount(log.item[first], minlength=log.num_items)).astype(np.float64)

    def in_order(self) -> Iterator[Batch]:
        """Every window once, shortest first: for passes that do not train."""
        for windows in _cut(np.argsort(self.length, kind="stable"), self.length, self.batch_size):
            yield self._batch(windows)

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The windows of each batch of an epoch."""
        generator = epoch_generator(self.seed, epoch)
        order = columns.permutation(generator, len(self.length))
        plan: list[np.ndarray] = []
        for first in range(0, len(order), self.POOL):
            pool = order[first : first + self.POOL]
            pool = pool[np.argsort(self.length[pool], kind="stable")]
            batches = _cut(pool, self.length, self.batch_size)
            plan += [batches[i] for i in generator.permutation(len(batches))]
        return [plan[i] for i in generator.permutation(len(plan))]

    def _batch(self, windows: np.ndarray) -> Batch:
        length = self.length[windows]
        column = np.arange(length.max())
        real = column < length[:, None]
        at = np.where(real, self.start[windows][:, None] + column, 0)
        next_one = np.where(real, at + 1, 0)
        log = self.log
        return Batch(
            user=self.user[windows],
            history=np.where(real, log.item[at].astype(np.int64), PAD),
            target=np.where(real, log.item[next_one].astype(np.int64), PAD),
            weight=None if log.weight is None else log.weight[next_one],
            period=None if self.period is None else np.where(real, self.period[next_one], PAD),
        )


def _windows(offsets: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, length, user): inputs are events start .. start+length-1, targets one later."""
    num_targets = np.maximum(np.diff(offsets) - 1, 0)
    per_user = -(-num_targets // max_length)
    user = np.repeat(np.arange(len(num_targets)), per_user)
    first_of_user = np.repeat(np.cumsum(per_user) - per_user, per_user)
    nth_from_end = np.arange(len(user)) - first_of_user
    stop = offsets[user] + num_targets[user] - nth_from_end * max_length
    start = np.maximum(stop - max_length, offsets[user])
    return start, stop - start, user


def _cut(windows: np.ndarray, length: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive windows in batches of about batch_size targets."""
    if len(windows) == 0:
        return []
    batch = (np.cumsum(length[windows]) - 1) // batch_size
    return np.split(windows, np.flatnonzero(np.diff(batch)) + 1)
