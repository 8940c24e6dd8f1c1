"""What every row of a comparison that needs no model has to do."""

from typing import Any

import numpy as np

from fastpop import evaluation
from fastpop.data.split import split
from fastpop.testing.judging import made_component, words_of
from fastpop.testing.training import small_log

K = 10


def check_reference(reference: Any) -> None:
    """Words; candidates with every option open to none; finite scores of every item, the same twice, whatever
    chunk a case comes in and whichever cases stand beside it; a log and cases that are left alone.

    reference: a name, an object, or a class that can be made without options.
    """
    reference = made_component("reference", reference)
    name = str(reference)
    words_of(reference, "trained_on", "served_as")
    parts = split(small_log(), "leave-last-out")
    log, cases = parts.known, parts.test
    assert cases is not None
    before = [array.copy() for array in _arrays(log, cases)]
    candidates = reference.candidates(parts.train)
    assert candidates, f"{name}: no candidate for a log with times and an order"
    assert all(type(one) is type(reference) for one in candidates), f"{name}: candidates of another class"
    assert len(set(candidates)) == len(candidates), f"{name}: candidates that are equal"
    for one in candidates:
        assert one.candidates(parts.train) == (one,), f"{name}: {one!r} leaves something to choose again"
    for one in candidates[:3]:
        _check_scores(one, log, cases)
    for old, new in zip(before, _arrays(log, cases)):
        assert np.array_equal(old, new), f"{name}: changes the log or its cases"


def _check_scores(reference: Any, log: Any, cases: Any) -> None:
    name, scorer = repr(reference), reference.fit(log)
    score, number = scorer(cases), cases.num_cases
    whole = np.asarray(score(slice(0, number)), float)
    assert whole.shape == (number, log.num_items), f"{name}: scores [b, V]; got {list(whole.shape)}"
    assert np.isfinite(whole).all(), f"{name}: scores that are not finite"
    again = np.asarray(reference.fit(log)(cases)(slice(0, number)), float)
    assert np.allclose(whole, again), f"{name}: not the same twice"
    pieces = [np.asarray(score(slice(first, min(first + 7, number))), float) for first in range(0, number, 7)]
    assert np.allclose(whole, np.concatenate(pieces), rtol=1e-4, atol=1e-5), f"{name}: hangs on the chunk"
    some = np.arange(0, number, 2)
    assert np.allclose(
        whole[some], np.asarray(scorer(cases.take(some))(slice(0, len(some)))), rtol=1e-4, atol=1e-5
    ), f"{name}: a case hangs on others"
    item_V = reference.shared(log)
    if item_V is not None:
        assert np.allclose(whole, np.asarray(item_V, float), rtol=1e-4, atol=1e-5), (
            f"{name}: shared and fit disagree"
        )
    found = evaluation.evaluate(score, cases, ks=(K,), logits=reference.logits).metrics
    assert 0 <= found[f"ndcg@{K}"] <= 1, f"{name}: NDCG {found[f'ndcg@{K}']}"
    assert ("nll" in found) == reference.logits, f"{name}: an NLL without logits, or none with them"


def _arrays(log: Any, cases: Any) -> list[np.ndarray]:
    return [
        np.asarray(array)
        for array in (log.item, log.offsets, log.time, cases.history_item, cases.target_item)
    ]
