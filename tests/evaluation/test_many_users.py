"""The best items of many users: a chunk of them at a time, with a bar, and the numbers of all at once."""

import contextlib
import types

import numpy as np
import pytest
import torch

from fastpop import bars, ops
from fastpop.data import Cases
from fastpop.evaluation import DotScores, positions
from fastpop.evaluation.asked import Shown
from fastpop.evaluation.recommendations import best_items


@pytest.mark.parametrize("seen", [True, False])
def test_chunks_and_a_bar_change_no_number(monkeypatch, seen):
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    query, items = torch.randn(700, 8, generator=generator), torch.randn(90, 8, generator=generator)
    offsets = np.arange(0, 2801, 4)
    nobody, users = np.zeros(701, np.int64), np.arange(700)
    cases = Cases(users, offsets, rng.integers(0, 90, 2800), nobody, np.empty(0, np.int64), 90)
    rows = cases.history_rows if seen else None
    given = {} if rows is None else {"exclude_offsets": rows.offsets, "exclude_item": rows.item}
    ids, best = ops.top_items(query, items, k=5, **given)
    told = []

    @contextlib.contextmanager
    def bar(total, label, **options):
        told.append((label, total))
        yield types.SimpleNamespace(update=told.append)

    monkeypatch.setattr(bars, "progress_bar", bar)
    monkeypatch.setattr(positions, "_STREAMED_SCORES", 256 * 90)
    allowed = Shown(None, None)
    found = best_items(DotScores(query, items), cases, 5, allowed, rows)
    np.testing.assert_array_equal(found[0], ids.numpy())
    np.testing.assert_array_equal(found[1], best.numpy())
    assert told == [("best items", 700), 64, 256, 256, 124]
