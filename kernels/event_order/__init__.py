"""Events sorted by user, time and row, a range of users at a time.

`reference.py` is the specification (numpy); `_cpu.py` counts and scatters in C++.
"""

from fastpop.kernels.event_order._cpu import (
    DROPPED,
    KEPT,
    REJECTED,
    EventRange,
    count_events,
    map_codes,
    ordered_bits,
)

__all__ = ["DROPPED", "KEPT", "REJECTED", "EventRange", "count_events", "map_codes", "ordered_bits"]
