"""Rows: which (context, target) pairs an epoch trains on. One contract, `Rows`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from fastpop import checks, registry
from fastpop.components import Component
from fastpop.data import columns
from fastpop.data.batches import PAD, Batch, EventBatches, SequenceBatches, check_order
from fastpop.data.interactions import Interactions


class Batches(Protocol):
    """The epochs of a run. num_rows: about how many targets one has."""

    num_rows: int

    def num_batches(self, epoch: int) -> int: ...

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `skip` on: a function of (seed, epoch)."""
        ...

    def target_counts(self) -> np.ndarray:
        """[V] how often an epoch predicts each item: the distribution of in-batch negatives."""
        ...


@dataclass(frozen=True)
class Rows(Component):
    """The base of rows. needs_order: a log without times or order is refused.

    first_events: what an epoch predicts, for log p that leaves events out one by one: True every event,
    False all but each user's first, None something else, which target_counts says.
    dated: whether every target is an event of the log. `batches` then also takes period= [N] int64, of each
    event of the log, and its batches carry those of their targets; `target_events` says what is predicted.
    Ids of a log that was opened from a folder are of the narrowest type, uint8 say, in which -1 is 255: take
    `.astype(np.int64)` before anything is made of them.
    """

    kind: ClassVar[str] = "rows"
    needs_order: ClassVar[bool] = False
    first_events: ClassVar[bool | None] = None
    dated: ClassVar[bool] = False

    def batches(self, log: Interactions, *, max_length: int, batch_size: int, seed: int) -> Batches:
        """Training batches of about batch_size targets, histories no longer than max_length."""
        raise NotImplementedError

    def target_counts(self, log: Interactions) -> np.ndarray:
        """[V] float64: how often an epoch predicts each item, by weight."""
        self.check(log)
        if self.first_events is None:
            raise NotImplementedError
        return log.item_counts(first_events=self.first_events)

    def target_events(self, log: Interactions) -> tuple[np.ndarray, np.ndarray | None]:
        """(place in the log [n], weight [n] or None) of the events that an epoch predicts; the weights of an
        item's sum to target_counts."""
        self.check(log)
        if self.first_events is None:
            raise NotImplementedError
        is_one_N = np.ones(log.num_events, bool)
        if not self.first_events:
            is_one_N[log.offsets[:-1][np.diff(log.offsets) > 0]] = False
        at = np.flatnonzero(is_one_N)
        return at, None if log.weight is None else np.asarray(log.weight[at], np.float64)

    def contexts(self, log: Interactions, *, max_length: int, chunk: int) -> Iterator[Batch]:
        """What a model is audited on: contexts in a fixed order, weighted by how often they are asked.

        Batches without a history stand for their users; their targets are not read.
        """
        raise NotImplementedError

    def check(self, log: Interactions) -> None:
        """Raises ValueError for a log that these rows cannot be made of."""
        if self.needs_order:
            check_order(log)


@dataclass(frozen=True)
class Events(Rows):
    """Each event once an epoch, its user as context."""

    name: ClassVar[str] = "events"
    first_events: ClassVar[bool | None] = True
    dated: ClassVar[bool] = True

    def batches(
        self,
        log: Interactions,
        *,
        max_length: int,
        batch_size: int,
        seed: int,
        period: np.ndarray | None = None,
    ) -> EventBatches:
        return EventBatches(log, batch_size, seed, period=period)

    def contexts(self, log: Interactions, *, max_length: int, chunk: int) -> Iterator[Batch]:
        weight_U = columns.bincount(log.user, log.num_users, log.weight)
        users = np.flatnonzero(weight_U > 0)
        for first in range(0, len(users), chunk):
            user = users[first : first + chunk]
            yield Batch(user, np.full(len(user), PAD), weight=weight_U[user].astype(np.float64))


@dataclass(frozen=True)
class Sequences(Rows):
    """Each event but a user's first once an epoch, the user's events before it as context."""

    name: ClassVar[str] = "sequences"
    needs_order: ClassVar[bool] = True
    first_events: ClassVar[bool | None] = False
    dated: ClassVar[bool] = True

    def batches(
        self,
        log: Interactions,
        *,
        max_length: int,
        batch_size: int,
        seed: int,
        period: np.ndarray | None = None,
    ) -> SequenceBatches:
        return SequenceBatches(log, max_length, batch_size, seed, period=period)

    def contexts(self, log: Interactions, *, max_length: int, chunk: int) -> Iterator[Batch]:
        return SequenceBatches(log, max_length, chunk, 0).in_order()

    def check(self, log: Interactions) -> None:
        super().check(log)
        if np.diff(log.offsets).max(initial=0) < 2:
            raise checks.wrong("log", "at least one user with two training events", text="none")


registry.ours("rows", Events, Sequences)
