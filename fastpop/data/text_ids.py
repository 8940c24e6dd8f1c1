"""Text ids of a log that is mapped from disk: bytes and offsets, decoded where they are asked for."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

PIECE = 1 << 18  # ids at a time


def encoded(text: str) -> bytes:
    """UTF-8 in which half a surrogate pair has its place, as Python's str does."""
    return text.encode("utf-8", "surrogatepass")


class TextIds:
    """[n] str ids in rising order that behave as the object array they would make.

    Indexing, iteration, `numpy.asarray`, `==`, `astype`, `tolist` and `numpy.searchsorted` work;
    everything else numpy does goes through `numpy.asarray`. The order of UTF-8 bytes is the order
    of str.

    Args:
        data: [bytes] uint8. offsets: [n+1] whole numbers; id i is data[offsets[i]:offsets[i+1]].
    """

    dtype = np.dtype(object)
    ndim = 1

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data, self.offsets = data, offsets
        self.size = offsets.size - 1
        self.shape = (self.size,)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        shown = [repr(one) for one in self[:3]] + (["..."] if self.size > 3 else [])
        return f"TextIds([{', '.join(shown)}], size={self.size})"

    def _bytes(self, at: int) -> bytes:
        return self.data[int(self.offsets[at]) : int(self.offsets[at + 1])].tobytes()

    def _slice(self, start: int, stop: int) -> list[str]:
        if stop <= start:
            return []
        ends = self.offsets[start : stop + 1].astype(np.int64)
        whole = self.data[int(ends[0]) : int(ends[-1])].tobytes()
        cuts = (ends - ends[0]).tolist()
        return [whole[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(cuts)]

    def __getitem__(self, index: Any) -> Any:
        """An id, or an object array of ids, by the rules of numpy."""
        if isinstance(index, (int, np.integer)):
            at = range(self.size)[index]
            return self._bytes(at).decode("utf-8", "surrogatepass")
        if isinstance(index, slice):
            chosen = range(self.size)[index]
            if chosen.step == 1:
                return objects(self._slice(chosen.start, chosen.stop), len(chosen))
            index = np.arange(chosen.start, chosen.stop, chosen.step)
        at_n = np.asarray(index)
        if at_n.dtype == bool:
            if at_n.shape != self.shape:
                raise IndexError(f"boolean index of shape {at_n.shape} for {self.size} ids")
            at_n = np.flatnonzero(at_n)
        flat = at_n.reshape(-1)
        if flat.size and not (-self.size <= flat.min() and flat.max() < self.size):
            raise IndexError(f"index out of range for {self.size} ids")
        found = (self._bytes(i % self.size).decode("utf-8", "surrogatepass") for i in flat.tolist())
        return objects(found, flat.size).reshape(at_n.shape)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self.size, PIECE):
            yield from self._slice(start, min(start + PIECE, self.size))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("text ids are decoded: an array of them is always a copy")
        whole = objects(self, self.size)
        return whole if dtype is None else whole.astype(dtype)

    def __eq__(self, other: Any) -> Any:
        return np.asarray(self) == np.asarray(other, dtype=object)

    __hash__ = None  # type: ignore[assignment]

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        return np.asarray(self).astype(dtype, copy=False)

    def tolist(self) -> list[str]:
        return list(self)

    def searchsorted(self, wanted: Any, side: str = "left", sorter: Any = None) -> Any:
        """`numpy.searchsorted` of str: by bisection for a few, in memory for many."""
        wanted_n = np.asarray(wanted, dtype=object)
        if side != "left" or sorter is not None or wanted_n.size > 1000 + self.size // 64:
            return np.searchsorted(np.asarray(self), wanted_n, side, sorter)  # type: ignore[call-overload]
        found = [bisect_left(range(self.size), encoded(one), key=self._bytes) for one in wanted_n.reshape(-1)]
        return np.array(found, dtype=np.int64).reshape(wanted_n.shape)[()]

    def rises(self) -> bool:
        """Whether the ids are in rising order without repeats."""
        last = None
        for one in self:
            if last is not None and not last < one:
                return False
            last = one
        return True


def objects(values: Iterable[Any], size: int) -> np.ndarray:
    """An object array [size] of the values, whatever they are."""
    array = np.empty(size, dtype=object)
    array[:] = list(values) if size else []
    return array
