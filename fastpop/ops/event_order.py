"""Events of a log in order, a range of users at a time: what `fastpop.data` sorts with. No torch."""

from fastpop.kernels.event_order import DROPPED as DROPPED
from fastpop.kernels.event_order import KEPT as KEPT
from fastpop.kernels.event_order import REJECTED as REJECTED
from fastpop.kernels.event_order import EventRange as EventRange
from fastpop.kernels.event_order import count_events as count_events
from fastpop.kernels.event_order import map_codes as map_codes
from fastpop.kernels.event_order import ordered_bits as ordered_bits
