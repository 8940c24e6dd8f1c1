"""numpy's linear algebra on one thread where an audit uses it, and as it was after."""

import contextlib
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import fastpop
from fastpop import blas
from fastpop.diagnostics import geometry


def threads():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


@blas.one_thread
def threads_inside(fail=False):
    if fail:
        raise RuntimeError
    return threads()


def test_one_thread_inside_and_as_many_as_before_after():
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        assert before == {2}
        assert threads_inside() == {1}
        with pytest.raises(RuntimeError):
            threads_inside(fail=True)
        assert threads() == before


def test_a_library_that_is_loaded_later_is_on_one_thread_too(monkeypatch):
    class Limits:
        def __init__(self):
            self.before = len(sys.modules)

        def limit(self, **options):
            return contextlib.nullcontext(self)

    monkeypatch.setattr("threadpoolctl.ThreadpoolController", Limits)
    blas._controller.cache_clear()
    with blas._limit() as first, blas._limit() as same:
        assert first is same
    monkeypatch.setitem(sys.modules, "a_module_with_a_library", sys)
    with blas._limit() as later:
        assert later.before == first.before + 1
    blas._controller.cache_clear()


def test_an_audit_factors_on_one_thread(monkeypatch):
    seen = []
    qr = np.linalg.qr
    monkeypatch.setattr(
        np.linalg, "qr", lambda *args, **options: (seen.append(threads()), qr(*args, **options))[1]
    )
    rng = np.random.default_rng(0)
    with threadpool_limits(2, user_api="blas"):
        fastpop.audit(rng.normal(size=(50, 4)), rng.normal(size=(30, 4)), np.arange(1, 31), permutations=10)
    assert seen
    assert set.union(*seen) == {1}
    assert geometry.__name__ == "geometry"  # a wrapped function keeps its name


def test_without_the_library_the_numbers_are_the_same(monkeypatch):
    monkeypatch.setattr(blas, "_controller", lambda _: None)
    with threadpool_limits(2, user_api="blas"):
        assert threads_inside() == {2}
