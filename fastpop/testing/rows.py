"""The contract of rows: which (context, target) pairs an epoch has."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import registry
from fastpop.data.batches import PAD
from fastpop.data.interactions import Interactions
from fastpop.testing.training import ITEMS, LENGTH, small_log


def check_rows(rows: Any, reads: str = "sequences") -> None:
    """The contract of rows: epochs are functions of (seed, epoch), can be skipped into, and predict what
    target_counts says. reads: what the encoder of these rows reads."""
    part = registry.made("rows", rows)
    log = small_log()
    made = part.batches(log, max_length=LENGTH, batch_size=8, seed=0)
    first, again = list(made.epoch(0)), list(made.epoch(0))
    assert len(first) == made.num_batches(0), "num_batches is not how many an epoch has"
    for one, two in zip(first, again):
        assert np.array_equal(one.target, two.target), "an epoch is no function of (seed, epoch)"
    assert len(first) > 1, f"{log.num_events} events make one batch of 8 targets"
    skipped = list(made.epoch(0, 1))
    assert len(skipped) == len(first) - 1, "epoch(e, skip) has not the batches from number skip on"
    assert np.array_equal(skipped[0].target, first[1].target), "epoch(e, skip) begins with another batch"
    held_V = np.zeros(ITEMS)
    for batch in first:
        assert (batch.history is None) == (reads == "events"), "history: expected it where it is read"
        real = batch.target != PAD
        np.add.at(held_V, batch.target[real], 1 if batch.weight is None else batch.weight[real])
    if part.first_events is not None:
        assert np.array_equal(part.target_counts(log), held_V), "target_counts is not what an epoch predicts"
    contexts = list(part.contexts(log, max_length=LENGTH, chunk=64))
    assert contexts, "no context to audit"
    if part.dated:
        _check_dated(part, log, first)
    with tempfile.TemporaryDirectory() as folder:
        log.save(Path(folder) / "log")
        opened = Interactions.open(Path(folder) / "log")
        others = [
            *part.batches(opened, max_length=LENGTH, batch_size=8, seed=0).epoch(0),
            *part.contexts(opened, max_length=LENGTH, chunk=64),
        ]
        for one, two in zip([*first, *contexts], others):
            assert np.array_equal(one.target, two.target), (
                "targets of a log opened from a folder, whose ids are narrower than int64, are others"
            )
            assert one.history is None or np.array_equal(one.history, two.history), (
                "histories of a log opened from a folder, whose ids are narrower than int64, are others"
            )


def _check_dated(part: Any, log: Interactions, plain: list[Any]) -> None:
    """Rows that say when their targets are: with each event a period of its own, a period is its event."""
    own = np.arange(log.num_events)
    made = part.batches(log, max_length=LENGTH, batch_size=8, seed=0, period=own)
    at, weight_n = part.target_events(log)
    counted_V = np.bincount(log.item[at], weight_n, ITEMS)
    np.testing.assert_allclose(
        counted_V, part.target_counts(log), rtol=1e-12, err_msg="target_events are not those of target_counts"
    )
    for one, batch in zip(plain, made.epoch(0)):
        assert one.period is None, "periods that nobody asked for"
        assert np.array_equal(one.target, batch.target), "period= changes the targets of an epoch"
        assert batch.period is not None, "dated rows give no periods"
        assert batch.period.shape == batch.target.shape, "period: expected it like target"
        real = batch.target != PAD
        assert np.array_equal(log.item[batch.period[real]], batch.target[real]), "a period of another event"
        assert np.isin(batch.period[real], at).all(), "a target that target_events does not have"
        assert (batch.period[~real] == PAD).all(), "period: expected -1 where there is no target"
        halves = batch.split(2)
        assert np.array_equal(np.concatenate([half.period for half in halves]), batch.period), (
            "a part of a batch has periods of another"
        )
