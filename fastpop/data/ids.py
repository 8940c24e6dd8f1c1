"""Original ids at the edges: what an id may be, and the way to and from dense indices.

An id column is int64 or str (held in an object array), sorted without repeats once it is a
catalogue; the position in the catalogue is the dense index. Order is that of the original ids,
never of popularity, which would tell a model about counts it may not see yet.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastpop.checks import array_like, missing, wrong, wrong_type

ID_KINDS = "whole numbers or strings"


def id_array(argument: str, value: Any) -> np.ndarray:
    """`value` as one int64 [n] or object-of-str [n] array; floats, nulls and mixtures raise."""
    if isinstance(value, (str, bytes)):
        raise wrong_type(argument, "an array of ids", value)
    if isinstance(value, Iterable) and not hasattr(value, "__array__"):
        # as objects: numpy would turn 1 and "a" into strings, 2**63 and 1 into floats, unasked
        array = np.asarray(list(value), dtype=object)
    else:
        value = array_like(argument, value, objects=True)
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if array.ndim != 1:
        raise wrong(argument, "a 1-d array of ids", array)
    kind = array.dtype.kind
    if kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise wrong(argument, "ids below 2**63 (pass larger ones as strings)", int(array.max()))
    if kind in "iu":
        return array.astype(np.int64, copy=False)
    if kind == "S":
        array = np.char.decode(array, "utf-8")
        kind = "U"
    if kind in "UT":
        return array.astype(object)
    if array.size == 0:
        return array.astype(np.int64)
    if kind == "O":
        return _object_ids(argument, array)
    if kind == "f" and np.isnan(array).any():
        at = int(np.isnan(array).argmax())
        raise wrong(argument, f"{ID_KINDS}, none missing", text=f"NaN at position {at}")
    raise wrong_type(argument, f"ids that are {ID_KINDS}", array)


def _object_ids(argument: str, array: np.ndarray) -> np.ndarray:
    strings = np.fromiter((isinstance(x, str) for x in array), dtype=bool, count=array.size)
    if strings.all():
        return array
    for at in np.flatnonzero(~strings):
        one = array[at]
        if missing(one):
            raise wrong(argument, f"{ID_KINDS}, none missing", text=f"{one!r} at position {at}")
        if isinstance(one, (bool, np.bool_)) or not isinstance(one, (int, np.integer)):
            raise wrong_type(argument, f"ids that are {ID_KINDS}", one)
    if strings.any():
        raise wrong_type(
            argument, "ids of one kind, all whole numbers or all strings", array[int((~strings).argmax())]
        )
    try:
        return array.astype(np.int64)
    except OverflowError:
        raise wrong(
            argument, "ids below 2**63 (pass larger ones as strings)", text=f"{max(array, key=abs)}"
        ) from None


def _plain(one: Any) -> str:
    return repr(one.item() if isinstance(one, np.generic) else one)


def catalogue(argument: str, value: Any) -> np.ndarray:
    """An id array that is sorted and without repeats, as a dense index needs."""
    ids = id_array(argument, value)
    if ids.size > 1:
        rising = ids[1:] > ids[:-1]
        if not np.all(rising):
            at = int(np.argmin(rising.astype(bool))) + 1
            raise wrong(
                argument,
                "ids in rising order without repeats",
                text=f"{_plain(ids[at])} after {_plain(ids[at - 1])} at position {at}",
            )
    return ids


def densify(argument: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """(sorted ids [n], dense index int64 [len(value)]) of a column of original ids."""
    array = id_array(argument, value)
    ids, dense = np.unique(array, return_inverse=True)
    return ids, dense.reshape(-1).astype(np.int64, copy=False)


def find(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Dense index of each wanted id, −1 where the catalogue does not have it."""
    if ids.size == 0 or wanted.size == 0 or ids.dtype.kind != wanted.dtype.kind:
        return np.full(wanted.shape, -1, dtype=np.int64)
    at = np.searchsorted(ids, wanted).astype(np.int64)
    clipped = np.minimum(at, ids.size - 1)
    hit = np.asarray(ids[clipped] == wanted, dtype=bool)
    return np.where(hit, clipped, -1)


def encode(argument: str, ids: np.ndarray, value: Any) -> np.ndarray:
    """Dense indices int64 [n] of original ids; an unknown id raises and is named."""
    wanted = id_array(argument, value)
    dense = find(ids, wanted)
    if dense.size and dense.min() < 0:
        at = int((dense < 0).argmax())
        kind = "strings" if ids.dtype.kind == "O" else "whole numbers"
        raise wrong(
            argument,
            f"ids of this log ({ids.size} of them, {kind})",
            text=f"{_plain(wanted[at])} at position {at}, which the log does not have",
        )
    return dense
