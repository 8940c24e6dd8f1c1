"""Rows of a run that lie on its device: batches are made there, and no step sends one.

The columns of the log are sent once. An epoch's order is made on the host, as ever, and sent in segments of
some hundred batches; what these read is gathered there at once, into one buffer (`words.py`), of which a
step's batch is a piece. So a step launches nothing for its rows, and its batches are the host's, number for
number.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop.data import columns
from fastpop.data.batches import PAD, Batch, EventBatches, SequenceBatches
from fastpop.data.interactions import Interactions
from fastpop.model import Placed
from fastpop.ops.upload import uploaded
from fastpop.training.words import Layout

LOG = logging.getLogger(__name__)
SEGMENT = 1 << 20  # events, or places of histories, that are gathered at once
SCRATCH = 256  # bytes for each of these: its words, and what finds them
COLUMN = 4  # bytes an event of a column on the device
MOST = 2**31 - 1  # ids and events that such a column can name


@dataclass(frozen=True, eq=False)
class ResidentBatch:
    """A batch on the device.

    words: its part of a segment. num_rows, weight: its rows, and their weights together. is_weighted: whether
    they have some. host: makes the same batch on the host.
    """

    words: Tensor
    layout: Layout
    num_rows: int
    weight: float
    is_weighted: bool
    host: Callable[[], Batch]

    @cached_property
    def placed(self) -> Placed:
        layout = self.layout
        user, history, at, target, weight, *_ = self.words.split(list(layout.sizes().values()))
        return Placed(
            user_B=user,
            history_BL=history.view(layout.users, layout.length) if layout.length else None,
            at_R=at if layout.length else None,
            target_R=target,
            weight_R=weight.view(torch.float32)[: layout.rows] if self.is_weighted else None,
        )


def bytes_of(log: Interactions, max_length: int, by_event: bool) -> int:
    """What the rows of a log take on a device, at most."""
    columns_of = (2 if by_event else 1) + (log.weight is not None)
    return COLUMN * columns_of * log.num_events + SCRATCH * (SEGMENT + max_length)


def made_of(batches: Any, device: torch.device, reasons: list[str], longest: int | None) -> "Resident | None":
    """The rows of a run on its device; None on the CPU, and where something is against it, which is logged.

    reasons: why not, that the caller knows of. longest: as `Resident` takes it.
    """
    if device.type == "cpu":
        return None
    reasons = list(reasons)
    if type(batches) not in (EventBatches, SequenceBatches):
        reasons.append(f"{type(batches).__name__} draws them there")
    elif max(batches.log.num_events, batches.log.num_users, batches.log.num_items) > MOST:
        reasons.append("ids or events are too many for 32 bits")
    if reasons:
        LOG.info("batches are made on the host and sent: %s", "; ".join(reasons))
        return None
    return Resident(batches, device, longest)


class Resident:
    """The epochs of `batches` on a device. longest: batches have sizes of few, as graphs of them ask, and
    histories no longer than that; None: their own sizes."""

    def __init__(self, batches: EventBatches | SequenceBatches, device: torch.device, longest: int | None):
        self.batches, self.device, self.longest = batches, device, longest
        log = batches.log
        self.item_N = _column(log.item, device)
        self.user_N = _column(log.user, device) if isinstance(batches, EventBatches) else None
        self.weight_N = None if log.weight is None else _column(log.weight, device, np.float32)

    def epoch(self, epoch: int, skip: int = 0, step: int = 0) -> Iterator[ResidentBatch]:
        """The batches of an epoch from number `skip` on, which is the run's step number `step`."""
        segments = self._of_events if isinstance(self.batches, EventBatches) else self._of_windows
        number = skip
        for words, layouts, rows, weights in segments(epoch, skip, step - skip):
            for piece, layout, num_rows, weight in zip(words, layouts, rows, weights):
                host = partial(self._host, epoch, number)
                is_weighted = self.weight_N is not None
                yield ResidentBatch(piece, layout, num_rows, weight, is_weighted, host)
                number += 1

    def _host(self, epoch: int, number: int) -> Batch:
        return next(iter(self.batches.epoch(epoch, number)))

    def _layout(self, users: int, length: int, rows: int) -> Layout:
        if self.longest is None:
            return Layout(users, length, rows)
        return Layout.rounded(users, length, rows, self.longest)

    def _of_events(self, epoch: int, skip: int, before: int) -> Iterator[tuple]:
        own = self.batches
        assert isinstance(own, EventBatches)
        assert self.user_N is not None
        size, order, weight_N = own.batch_size, own.order(epoch), own.log.weight
        at_once = size * max(1, SEGMENT // size)
        for first in range(skip * size, len(order), at_once):
            part = order[first : first + at_once]
            whole = len(part) // size * size
            for start, stop in ((0, whole), (whole, len(part))):  # and a last one that is shorter
                if start == stop:
                    continue
                take = part[start:stop].reshape(-1, min(size, stop - start))
                number, rows = take.shape
                weights = (
                    [float(rows)] * number
                    if weight_N is None
                    else [float(weight_N[one].sum()) for one in take]
                )
                layout = self._layout(rows, 0, rows)
                words = torch.empty(number, layout.words, dtype=torch.int64, device=self.device)
                room = dict(zip(layout.sizes(), words.split(list(layout.sizes().values()), 1)))
                at = self._sent(take.astype(np.int32).reshape(-1))
                _fill(room["user"], self.user_N.index_select(0, at).view(number, rows))
                _fill(room["target"], self.item_N.index_select(0, at).view(number, rows))
                if self.weight_N is not None or self.longest is not None:
                    room_of_weights = room["weight"].view(torch.float32)
                    room_of_weights.zero_()
                    if self.weight_N is None:
                        room_of_weights[:, :rows] = 1
                    else:
                        room_of_weights[:, :rows] = self.weight_N.index_select(0, at).view(number, rows)
                if self.longest is not None:
                    self._number(
                        room["total"][:, 0], room["step"][:, 0], weights, before + (first + start) // size
                    )
                yield words.unbind(0), [layout] * number, [rows] * number, weights

    def _number(self, total: Tensor, step: Tensor, weights: list[float], first_step: int) -> None:
        """Totals and steps of batches, into their words [m]."""
        least = np.maximum(np.array(weights), 1e-30).astype(np.float32)
        total.copy_(self._sent(np.stack([least, np.zeros_like(least)], 1)).view(torch.int64)[:, 0])
        step.copy_(torch.arange(first_step, first_step + len(weights), device=self.device))

    def _of_windows(self, epoch: int, skip: int, before: int) -> Iterator[tuple]:
        own = self.batches
        assert isinstance(own, SequenceBatches)
        plan = own.plan(epoch)[skip:]
        if not plan:
            return
        layouts = [
            self._layout(len(windows), int(own.length[windows].max()), int(own.length[windows].sum()))
            for windows in plan
        ]
        places = np.cumsum([layout.users * layout.length for layout in layouts])
        segment_of = (places - 1) // SEGMENT
        for cut in np.split(np.arange(len(plan)), np.flatnonzero(np.diff(segment_of)) + 1):
            part = slice(int(cut[0]), int(cut[-1]) + 1)
            yield self._gathered(plan[part], layouts[part], before + skip + part.start)

    def _gathered(self, plan: list[np.ndarray], layouts: list[Layout], first_step: int) -> tuple:
        """Words of these batches of windows, a number of words a batch, and what the host knows of them."""
        own, log = self.batches, self.batches.log
        assert isinstance(own, SequenceBatches)
        number_m = np.array([len(windows) for windows in plan])
        rows_m = np.array([int(own.length[windows].sum()) for windows in plan])
        users_m, length_m, room_m = np.array(layouts).T
        words_m = np.array([layout.words for layout in layouts])
        first_m = np.cumsum(words_m) - words_m
        # Where the parts of each batch begin, as `Layout.sizes` has them.
        history_m = first_m + users_m
        at_m = history_m + users_m * length_m
        target_m, weight_m = at_m + room_m, at_m + 2 * room_m
        # A row a window, and the first of a batch again for those that are added to it.
        window = np.concatenate([np.r_[w, np.repeat(w[:1], u - len(w))] for w, u in zip(plan, users_m)])
        batch = np.repeat(np.arange(len(plan)), users_m)
        place = np.arange(len(window)) - np.repeat(np.cumsum(users_m) - users_m, users_m)
        is_own = place < number_m[batch]
        width = length_m[batch]
        cells, targets = width, np.where(is_own, own.length[window], 0)
        first_target = np.cumsum(targets) - targets
        of_batch = first_target - (np.cumsum(rows_m) - rows_m)[batch]
        sent = np.stack(
            (
                own.start[window],
                own.length[window],
                own.user[window],
                place * width,
                first_m[batch] + place,
                history_m[batch] + place * width,
                np.cumsum(cells) - cells,
                first_target,
                cells,
                targets,
                at_m[batch] + of_batch,
                target_m[batch] + of_batch,
                2 * weight_m[batch] + of_batch,
            )
        )
        (
            start_W, length_W, user_W, place_W, user_word_W, history_word_W, first_cell_W, first_target_W,
            cells_W, targets_W, at_word_W, target_word_W, weight_word_W,
        ) = self._sent(sent.astype(np.int64)).unbind(0)  # fmt: skip
        words = torch.empty(int(words_m.sum()), dtype=torch.int64, device=self.device)
        words[user_word_W] = user_W

        window_P, column_P = _each(cells_W, first_cell_W, int(cells.sum()))
        is_real_P = column_P < length_W[window_P]
        at_P = torch.where(is_real_P, start_W[window_P] + column_P, 0)
        words[history_word_W[window_P] + column_P] = torch.where(is_real_P, self.item_N[at_P].long(), PAD)

        window_R, column_R = _each(targets_W, first_target_W, int(rows_m.sum()))
        event_R = start_W[window_R] + column_R + 1
        words[target_word_W[window_R] + column_R] = self.item_N[event_R].long()
        words[at_word_W[window_R] + column_R] = place_W[window_R] + column_R
        weights = rows_m.astype(np.float64).tolist()
        if log.weight is not None:
            weights = [float(log.weight[_events(own, windows)].sum()) for windows in plan]
        if self.weight_N is not None or self.longest is not None:
            floats = words.view(torch.float32)
            one_R = torch.ones((), device=self.device) if self.weight_N is None else self.weight_N[event_R]
            floats[weight_word_W[window_R] + column_R] = one_R
        if self.longest is not None:
            added_m = room_m - rows_m
            sent = np.stack([added_m, np.cumsum(added_m) - added_m, rows_m, target_m, at_m, 2 * weight_m])
            added, first_added, rows, target_word, at_word, weight_word = self._sent(sent).unbind(0)
            batch_A, nth_A = _each(added, first_added, int(added_m.sum()))
            nth_A = nth_A + rows[batch_A]
            for word in (target_word, at_word):  # the first of them again, at a weight of 0
                words[word[batch_A] + nth_A] = words[word[batch_A]]
            floats[weight_word[batch_A] + nth_A] = 0
            last = self._sent(first_m + words_m - 1)
            total, step = torch.empty_like(last), torch.empty_like(last)
            self._number(total, step, weights, first_step)
            words[last - 1], words[last] = total, step
        return words.split(words_m.tolist()), layouts, rows_m.tolist(), weights

    def _sent(self, array: np.ndarray) -> Tensor:
        return uploaded(np.ascontiguousarray(array), self.device)


def _column(array: np.ndarray, device: torch.device, kind: Any = np.int32) -> Tensor:
    """A column of a log on a device, a piece at a time."""
    found = torch.from_numpy(np.empty(0, kind)).to(device).new_empty(len(array))
    for at in columns.pieces(len(array)):
        found[at] = uploaded(array[at].astype(kind), device)
        columns.let_go(array[at])
    return found


def _fill(room: Tensor, values: Tensor) -> None:
    """[m, R'] of values [m, R], then the first of each again."""
    number = values.shape[1]
    room[:, :number] = values
    if room.shape[1] > number:
        room[:, number:] = values[:, :1]


def _each(number_W: Tensor, first_W: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """(w [total], place [total]) of 0, ..., number - 1 for each w, whose first one is first_W."""
    every = torch.arange(len(number_W), device=number_W.device)
    of = torch.repeat_interleave(every, number_W, output_size=total)  # told its size, it waits for nothing
    return of, torch.arange(total, device=number_W.device) - first_W[of]


def _events(own: SequenceBatches, windows: np.ndarray) -> np.ndarray:
    """The events that windows predict, in their order."""
    length = own.length[windows]
    first = np.cumsum(length) - length
    return np.repeat(own.start[windows] + 1 - first, length) + np.arange(int(length.sum()))
