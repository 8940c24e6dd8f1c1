"""Columns of events a piece at a time: what a log of any length needs no memory of its length for.

Dense ids come in the narrowest type that holds them, so arithmetic on them is done in int64, on a
piece. Pieces change no result: sums are taken in the order of the events.
"""

import contextlib
import math
import mmap
import os
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import bars, files

PIECE = 1 << 22  # events at a time
LARGE = 1 << 23  # events from which work on all of them takes seconds
ON_DISK = 1 << 24  # bytes from which an array of a mapped log goes to a file


def pieces(size: int, piece: int | None = None) -> Iterator[slice]:
    """Slices that cover range(size) in order."""
    step = piece or PIECE
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def user_pieces(offsets: np.ndarray, piece: int | None = None) -> Iterator[tuple[slice, slice]]:
    """(users, their events): whole users with about a piece of events together."""
    step = piece or PIECE
    first, last = 0, offsets.size - 1
    while first < last:
        stop = int(np.searchsorted(offsets, offsets[first] + step, side="right")) - 1
        stop = min(max(stop, first + 1), last)
        yield slice(first, stop), slice(int(offsets[first]), int(offsets[stop]))
        first = stop


def told(num_events: int, label: str) -> contextlib.AbstractContextManager[Any]:
    """Says what takes so long, on logs so large that it does."""
    return contextlib.nullcontext() if num_events < LARGE else bars.waiting(label)


def bar(num_events: int, label: str) -> Any:
    """A bar over events, on logs so large that it is worth one: `with bar(...) as b: b.update(n)`."""
    if num_events < LARGE:
        return contextlib.nullcontext(types.SimpleNamespace(update=lambda n: None))
    return bars.progress_bar(num_events, label)


def distinct(values_N: np.ndarray) -> np.ndarray:
    """The distinct numbers, ascending: by a sort, where numpy from 2.3 on hashes, which is slower here."""
    ordered_N = np.sort(values_N)
    first_N = np.ones(ordered_N.size, bool)
    np.not_equal(ordered_N[1:], ordered_N[:-1], out=first_N[1:])
    return ordered_N[first_N]


def narrowest(stop: int) -> np.dtype:
    """The smallest type for whole numbers in [0, stop): uint8, uint16, uint32 or int64."""
    for kind in (np.uint8, np.uint16, np.uint32):
        if stop - 1 <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.int64)


def bincount(index: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """`np.bincount(index, weights, minlength=size)`, bit for bit, without a copy of `index`:
    int64 [size], float64 with weights."""
    if index.size <= PIECE:
        return np.bincount(index, weights=weights, minlength=size)
    total = np.zeros(size, dtype=np.int64 if weights is None else np.float64)
    for at in pieces(index.size):
        if weights is None:
            total += np.bincount(index[at], minlength=size)
        else:
            np.add.at(total, index[at], weights[at])
            let_go(weights[at])
        let_go(index[at])
    return total


def csr_offsets(index: np.ndarray, size: int) -> np.ndarray:
    """offsets [size+1] of a sorted dense index: rows of `u` are slice(offsets[u], offsets[u+1])."""
    offsets = np.zeros(size + 1, dtype=np.int64)
    for at in pieces(index.size):
        part = index[at].astype(np.int64)
        first, last = int(part[0]), int(part[-1])
        offsets[first + 1 : last + 2] += np.bincount(part - first, minlength=last - first + 1)
        let_go(index[at])
    return np.cumsum(offsets, out=offsets)


def mapped_through(table: np.ndarray, index: np.ndarray, out: np.ndarray) -> np.ndarray:
    """`out[:] = table[index]`, piece by piece."""
    for at in pieces(index.size):
        out[at] = table[index[at]]
        let_go(index[at], out[at])
    return out


def kth_smallest(array: np.ndarray, k: int, below: int | None = None) -> int:
    """`np.sort(array[array < below])[k]` of whole numbers, by counting: a few passes, no copy."""
    low, high = int(array.min()), int(array.max())
    if below is not None:
        high = min(high, below - 1)
    while low < high:
        width = -(-(high - low + 1) // (1 << 16))
        count = np.zeros(1 << 16, dtype=np.int64)
        for at in pieces(array.size):
            part = array[at]
            part = part[(part >= low) & (part <= high)].astype(np.int64)
            count += np.bincount((part - low) // width, minlength=1 << 16)
            let_go(array[at])
        reached = np.cumsum(count)
        box = int(np.searchsorted(reached, k, side="right"))
        k -= int(reached[box - 1]) if box else 0
        low, high = low + box * width, min(high, low + box * width + width - 1)
    return low


def permutation(generator: np.random.Generator, size: int) -> np.ndarray:
    """`generator.permutation(size)`, the same order, in half the memory where 32 bits do."""
    order = np.arange(size, dtype=np.uint32 if size < 1 << 32 else np.int64)
    generator.shuffle(order)
    return order


class Mapping(mmap.mmap):
    """Bytes of a file that arrays look at. Shared with the file, so that pages can be let go of."""


def mapped(file: Any, dtype: Any, size: int, start: int = 0, *, write: bool = False) -> np.ndarray:
    """[size] numbers of an open file from byte `start` on, in no memory of their own."""
    kind = np.dtype(dtype)
    if size == 0:
        return np.empty(0, dtype=kind)  # nothing cannot be mapped
    access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
    whole = Mapping(file.fileno(), start + size * kind.itemsize, access=access)
    return np.ndarray((size,), kind, buffer=whole, offset=start)


def let_go(*arrays: np.ndarray | None) -> None:
    """These pieces of mapped columns are done with: their pages may leave this process's memory
    (what is in them stays in the file). Of any other array, nothing happens."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, memoryview):
            base = base.obj
        if not isinstance(base, Mapping) or array is None or array.size == 0:
            continue
        start = array.__array_interface__["data"][0] - _address(base)
        start -= start % mmap.PAGESIZE
        base.madvise(mmap.MADV_DONTNEED, start, array.nbytes)


def _address(whole: Mapping) -> int:
    return np.frombuffer(whole, dtype=np.uint8).__array_interface__["data"][0]


class Memory:
    """Where the columns of a log made from another one go: into memory."""

    def empty(self, size: int, dtype: Any) -> np.ndarray:
        return np.empty(size, dtype=dtype)

    def empty_rows(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self.empty(math.prod(shape), dtype).reshape(shape)


class Disk(Memory):
    """Into memory while they are small, and otherwise into files without a name in the system's
    place for temporary files, which go with the arrays.

    Raises OSError where there is no room, before anything is written.
    """

    def empty(self, size: int, dtype: Any) -> np.ndarray:
        wanted = np.dtype(dtype)
        if size * wanted.itemsize < ON_DISK:
            return np.empty(size, dtype=wanted)
        place = tempfile.gettempdir()
        num_bytes = size * wanted.itemsize
        with (
            files.named(Path(place), f"room for {num_bytes:,} bytes of temporary files"),
            tempfile.TemporaryFile(dir=place, prefix="fastpop-") as file,
        ):
            try:  # a full disk is an error now, not a signal later
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            except (AttributeError, OSError) as error:
                if getattr(error, "errno", None) not in (None, *files.NO_LOCKS):
                    raise
                os.truncate(file.fileno(), num_bytes)  # this system has no such call
            return mapped(file, wanted, size, write=True)


MEMORY, DISK = Memory(), Disk()


def copied(array: np.ndarray, storage: Memory) -> np.ndarray:
    """A copy of an array [N, ...] in that storage."""
    out = storage.empty_rows(array.shape, array.dtype)
    rows = max(1, PIECE // max(1, math.prod(array.shape[1:])))
    for at in pieces(len(array), rows):
        out[at] = array[at]
        let_go(out[at])
    return out
