"""Rows of different lengths, laid end to end: histories, targets, candidates, what was shown."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop.checks import ids_in_range, int_array, wrong, wrong_type
from fastpop.data import columns
from fastpop.frozen import frozen_array


@dataclass(frozen=True, eq=False)
class Csr:
    """R rows of whole numbers: row r is item[offsets[r]:offsets[r + 1]].

    offsets: [R+1] int64, from 0 to M, never falling. item: [M] whole numbers. Unsigned ones below 64
    bits stay as narrow as an opened log holds them, others are int64. Both are read-only views.
    Raises TypeError, ValueError. Cost: O(R); no item is read.
    """

    offsets: np.ndarray
    item: np.ndarray

    def __post_init__(self) -> None:
        offsets, item = _whole("offsets", self.offsets), _whole("item", self.item)
        check_offsets("offsets", offsets, item.size)
        narrow = item.dtype.kind == "u" and item.dtype.itemsize < 8
        object.__setattr__(self, "offsets", frozen_array(offsets.astype(np.int64, copy=False)))
        object.__setattr__(self, "item", frozen_array(item if narrow else item.astype(np.int64, copy=False)))

    @classmethod
    def of(
        cls, argument: str, value: Any, *, num_rows: int | None = None, num_items: int | None = None
    ) -> "Csr":
        """Rows as anybody has them: a Csr, a tuple (offsets, item), a list of lists, one a row, or a sparse
        matrix of scipy, whose places that are not 0 in a row are its items.

        argument: what an error calls them. num_rows, num_items: how many there must be; items are then in
        [0, num_items).
        Raises TypeError, ValueError that name the argument.
        """
        if not isinstance(value, cls):
            if hasattr(value, "tocsr"):
                value = value.tocsr(copy=True)
                value.eliminate_zeros()
                value = (value.indptr, value.indices)
            if isinstance(value, tuple) and len(value) == 2:
                offsets, item = (_whole(argument, one) for one in value)
            elif isinstance(value, list):
                rows = [int_array(argument, row) for row in value]
                offsets = np.cumsum([0, *map(len, rows)])
                item = np.concatenate([np.empty(0, np.int64), *rows])
            else:
                raise wrong_type(
                    argument, "(offsets, item), a Csr, a sparse matrix, or a list of lists", value
                )
            check_offsets(f"{argument} offsets", offsets, item.size)
            value = cls(offsets, item)
        if num_rows is not None and len(value) != num_rows:
            raise wrong(argument, f"{num_rows:,} rows", text=f"{len(value):,}")
        if num_items is not None:
            ids_in_range(f"{argument} items", value.item, num_items)
        return value

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __repr__(self) -> str:
        return f"Csr({len(self):,} rows, {self.item.size:,} items)"

    def lengths(self) -> np.ndarray:
        """[R] items of each row."""
        return np.diff(self.offsets)

    def row(self, number: int) -> np.ndarray:
        """The items of one row, in order."""
        return self.item[self.offsets[number] : self.offsets[number + 1]]

    def row_of_each(self) -> np.ndarray:
        """[M] the row that each item stands in."""
        return np.repeat(np.arange(len(self)), self.lengths())

    def keys(self, num_items: int) -> np.ndarray:
        """[M] int64: row * num_items + item, one number a (row, item) pair."""
        return self.row_of_each() * num_items + self.item

    def places(self, start: int, stop: int) -> slice:
        """Where the items of the rows start..stop stand."""
        return slice(int(self.offsets[start]), int(self.offsets[stop]))

    def part(self, start: int, stop: int) -> "Csr":
        """The rows start..stop; their items are not copied."""
        offsets = self.offsets[start : stop + 1]
        return Csr(offsets - offsets[0], self.item[self.places(start, stop)])

    def last(self, length: int, fill: int = -1) -> np.ndarray:
        """[R, L] int64, L <= length: the last items of each row, in order, `fill` after the end."""
        size = np.minimum(self.lengths(), length)
        column = np.arange(max(int(size.max(initial=0)), 1))
        real = column < size[:, None]
        at = np.where(real, (self.offsets[1:] - size)[:, None] + column, 0)
        return np.where(real, self.item[at].astype(np.int64) if len(self.item) else 0, fill)

    def take(self, rows: np.ndarray, storage: columns.Memory = columns.MEMORY) -> "Csr":
        """The chosen rows in the order asked for, into `storage`; a piece at a time."""
        length = self.offsets[rows + 1] - self.offsets[rows]
        new = np.zeros(rows.size + 1, dtype=np.int64)
        np.cumsum(length, out=new[1:])
        out = storage.empty(int(new[-1]), self.item.dtype)
        for some, at in columns.user_pieces(new):
            begin, size = self.offsets[rows[some]], length[some]
            place = np.arange(at.stop - at.start) + np.repeat(begin - (new[some] - at.start), size)
            out[at] = self.item[place]
            if place.size:
                columns.let_go(self.item[place[0] : place[-1] + 1], out[at])
        return Csr(new, out)

    def distinct(self) -> tuple["Csr", int]:
        """(the rows with each item once, where it came first; how many repeats that leaves out)."""
        first = np.ones(self.item.size, dtype=bool)
        for some, at in columns.user_pieces(self.offsets):
            part = self.part(some.start, some.stop)
            row = part.row_of_each()
            order = np.lexsort((part.item, row))  # stable: equal items stay in the order they came
            here, item = row[order], part.item[order]
            first[at.start + order[1:][(here[1:] == here[:-1]) & (item[1:] == item[:-1])]] = False
        repeats = int(np.count_nonzero(~first))
        if not repeats:
            return self, 0
        kept = np.zeros(first.size + 1, dtype=np.int64)
        np.cumsum(first, out=kept[1:])
        return Csr(kept[self.offsets], self.item[first]), repeats


def check_offsets(argument: str, offsets: np.ndarray, size: int, num_rows: int | None = None) -> None:
    """[R+1], from 0 to `size`, never falling. Raises ValueError."""
    if offsets.ndim != 1 or offsets.size == 0 or num_rows not in (None, offsets.size - 1):
        raise wrong(argument, f"shape [{'R+1' if num_rows is None else num_rows + 1}]", offsets)
    if offsets[0] != 0 or offsets[-1] != size or (offsets[1:] < offsets[:-1]).any():
        raise wrong(argument, f"offsets that rise from 0 to {size}", text=f"{offsets[0]} … {offsets[-1]}")


def _whole(argument: str, value: Any) -> np.ndarray:
    """A 1-d array of whole numbers, as narrow as it came."""
    array = value if isinstance(value, np.ndarray) else int_array(argument, value)
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)  # numpy calls an empty list float64
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise wrong_type(argument, "integers in a 1-d array", array)
    return array
