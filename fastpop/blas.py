"""numpy's own products and factorisations, on one thread.

An audit makes many of them on panels of some thousand rows. OpenBLAS splits even those over all cores, and
its threads spin until all are there, which costs many times the work where another process holds a core. Sums
then do not depend on the number of cores, either.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Of a function: numpy's linear algebra in it runs on the calling thread."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _limit():
            return function(*args, **kwargs)

    return call


def _limit() -> contextlib.AbstractContextManager[Any]:
    found = _controller(len(sys.modules))
    return contextlib.nullcontext() if found is None else found.limit(limits=1, user_api="blas")


@functools.lru_cache(maxsize=1)
def _controller(num_modules: int) -> Any:
    """Looking through the loaded libraries takes milliseconds, so it is done again only when there are more
    modules, since one of these may have brought a library. None: a machine that has no threadpoolctl, where
    the same numbers take what they take."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
