"""Logs of interactions: read any file or frame, freeze it, split it without leaks."""

from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions, Rejected
from fastpop.data.split import Split, event_halves, split

__all__ = ["Cases", "Interactions", "Rejected", "Split", "event_halves", "split"]
