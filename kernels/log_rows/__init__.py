"""Text of a log, a block at a time, into columns of numbers: ids by first appearance, times, weights.

`reference.py` says what a record is; `_cpu.py` reads a block of whole records in one pass in C++.
"""

from fastpop.kernels.log_rows._cpu import (
    AFTER_QUOTE,
    BAD_TICK,
    DATE_TICK,
    EMPTY_LINE,
    ID_KINDS,
    NO_ITEMS,
    NULL_TOKEN,
    OPEN_QUOTE,
    PADDING,
    RAGGED,
    REAL_TICK,
    ROLES,
    SORT_BYTES,
    UNQUOTED,
    WHOLE_TICK,
    RowReader,
    count_byte,
    count_ids,
    dense_ids,
    last_record_end,
    layout,
    record_fields,
)

__all__ = [
    "AFTER_QUOTE",
    "BAD_TICK",
    "DATE_TICK",
    "EMPTY_LINE",
    "ID_KINDS",
    "NO_ITEMS",
    "NULL_TOKEN",
    "OPEN_QUOTE",
    "PADDING",
    "RAGGED",
    "REAL_TICK",
    "ROLES",
    "SORT_BYTES",
    "UNQUOTED",
    "WHOLE_TICK",
    "RowReader",
    "count_byte",
    "count_ids",
    "dense_ids",
    "last_record_end",
    "layout",
    "record_fields",
]
