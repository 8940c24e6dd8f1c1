"""Where compiled permutation kernels are kept: never beside the source, whose folder may be read-only
and would outlive an uninstallation."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import NullCache

_kernels: list[Any] = []


def cache_folder() -> Path | None:
    """A folder to write to: $NUMBA_CACHE_DIR, or numba under fastpop in the user's place for caches.
    None where neither can be written.

    The system's temporary folder will not do: what lies in a cache is executed, and there anybody
    may put it.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(given)] if given else []
    if os.environ.get("XDG_CACHE_HOME"):
        places.append(Path(os.environ["XDG_CACHE_HOME"]) / "fastpop" / "numba")
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        places.append(Path(home) / ".cache" / "fastpop" / "numba")
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:
            continue
    return None


FOLDER = cache_folder()
if FOLDER is None:
    warnings.warn(
        "permutation tests are compiled anew in each process (about 10 s): there is no "
        "writable place for a cache; set NUMBA_CACHE_DIR to one",
        RuntimeWarning,
        stacklevel=2,
    )


def jit(**options: Any) -> Callable[[Any], Any]:
    """`numba.njit` whose code is kept in FOLDER; numba's own setting is left as it was found."""

    def made(function: Any) -> Any:
        with _kept_in(FOLDER):
            kernel = numba.njit(cache=FOLDER is not None, **options)(function)
        _kernels.append(kernel)
        return kernel

    return made


def compiled_before() -> bool:
    """Whether the cache holds these kernels, so that loading them takes no compilation."""
    return any(
        next(Path(kernel._cache.cache_path).glob("*.nbi"), None) is not None
        for kernel in _kernels
        if not isinstance(kernel._cache, NullCache)
    )


def forget_cache(error: OSError) -> None:
    """Go on without a cache, once it can no longer be written (a full disk). Raises where there was none
    to blame."""
    if all(isinstance(kernel._cache, NullCache) for kernel in _kernels):
        raise error
    for kernel in _kernels:
        kernel._cache = NullCache()
    warnings.warn(
        f"the compiled permutation test cannot be kept in {FOLDER}: {error.strerror or error}",
        RuntimeWarning,
        stacklevel=4,
    )


@contextlib.contextmanager
def _kept_in(folder: Path | None) -> Iterator[None]:
    """numba looks at this setting when a function is decorated, and not again."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = "" if folder is None else str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
