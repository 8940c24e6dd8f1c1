"""Blocks of text into columns in C++ (csrc/log_rows), without the GIL; 0.1 us per row and core.

A `RowReader` numbers the distinct texts of a role as it meets them; several readers may take turns
at the blocks of a log, and `dense_ids` puts what they found in order.
"""

from typing import Any

import numpy as np

from fastpop import _C

ROLES = ("user", "item", "time", "weight", "behavior", "rating")
SORT_BYTES = 28  # a text, beside the readers, while ids are sorted (csrc/log_rows/ids.h)
PADDING = 64  # bytes that must be readable behind a block
WHOLE_TICK, REAL_TICK, DATE_TICK, BAD_TICK = 1, 2, 3, 4  # 0: no time
ID_KINDS = ("whole", "point", "fraction", "padded", "word", "text")
RAGGED, AFTER_QUOTE, OPEN_QUOTE, UNQUOTED, EMPTY_LINE, NO_ITEMS, NULL_TOKEN = range(1, 8)

RowReader = _C.RowReader
last_record_end = _C.last_record_end
record_fields = _C.record_fields
count_byte = _C.count_byte


def unsupported(data: Any) -> str | None:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        return "the text is not an array of bytes"
    return None


def layout(
    *,
    shape: str = "table",
    separator: str = " ",
    quote: str = "",
    quote_all: bool = False,
    code_times: bool = False,
    num_fields: int = 0,
    position: dict[str, int] | None = None,
) -> Any:
    """How records are laid out. `shape` is table, sequence or sessions; `position` gives the field
    of each role; `code_times` numbers times as texts instead of reading them."""
    at = {"user": 0, "item": 1} if position is None else position
    return _C.RowLayout(
        shape=shape,
        separator=separator,
        quote=quote,
        quote_all=quote_all,
        code_times=code_times,
        num_fields=num_fields,
        position=[at.get(role, -1) for role in ROLES],
    )


def count_ids(readers: list, role: str, used: list) -> tuple[dict, dict, dict, list[np.ndarray]]:
    """(how many, place of the first, its text) of each kind of id, and the kind of every code.

    Args:
        used: for each reader None (all are used) or uint8 [codes]. A place is block << 32 | row.
    """
    count, place, text, kinds = _C.count_ids(readers, ROLES.index(role), used)
    return dict(zip(ID_KINDS, count)), dict(zip(ID_KINDS, place)), dict(zip(ID_KINDS, text)), kinds


def dense_ids(readers: list, role: str, used: list, whole: bool) -> tuple[Any, list[np.ndarray]]:
    """(ids in rising order, for each reader int32 [codes] the dense index or −1).

    Ids are int64 [n] where they are whole numbers, otherwise (UTF-8 one behind the other, int64 [n+1] where
    each begins). The readers forget the role's texts; while these are sorted each takes SORT_BYTES more.
    """
    return _C.dense_ids(readers, ROLES.index(role), used, whole)
