"""The sort of events in C++ (csrc/event_order): one pass over all rows for each range of users.

Memory is 16 bytes (24 with weights) an event of the range.
"""

from typing import Any

import numpy as np

from fastpop import _C

KEPT, DROPPED, REJECTED = 0, 1, 2
EventRange = _C.EventRange
map_codes = _C.map_codes
count_events = _C.count_events


def unsupported(user_N: Any) -> str | None:
    if not isinstance(user_N, np.ndarray) or user_N.dtype != np.int32:
        return "users are not an int32 array"
    return None


def ordered_bits(real: np.ndarray) -> np.ndarray:
    """int64 that sort as the doubles do, as `EventRange.finish(real=True)` reads them."""
    bits = (real + 0.0).view(np.int64)  # -0.0 is 0.0
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))
