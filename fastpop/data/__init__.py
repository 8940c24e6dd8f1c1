"""Logs of interactions: read any file or frame, freeze it, split it without leaks."""

from fastpop.data.cases import Cases
from fastpop.data.csr import Csr
from fastpop.data.demo_log import bundled_log, bundled_path
from fastpop.data.interactions import Interactions, Rejected
from fastpop.data.log import read_log
from fastpop.data.masked import Masked
from fastpop.data.own_test import split_with_test
from fastpop.data.prepare import prepare
from fastpop.data.prepared import PreparedWriter
from fastpop.data.presets import PRESETS, Columns, Preset
from fastpop.data.rows import Batches, Events, Rows, Sequences
from fastpop.data.split import Split, event_halves, split
from fastpop.data.splits import GlobalTime, LeaveLastN, LeaveLastOut, NoSplit, RandomByUser, SplitRule
from fastpop.data.titles import Titles, read_titles
from fastpop.data.tokens import read_cases

__all__ = [
    "PRESETS",
    "Batches",
    "Cases",
    "Columns",
    "Csr",
    "Events",
    "GlobalTime",
    "Interactions",
    "LeaveLastN",
    "LeaveLastOut",
    "Masked",
    "NoSplit",
    "PreparedWriter",
    "Preset",
    "RandomByUser",
    "Rejected",
    "Rows",
    "Sequences",
    "Split",
    "SplitRule",
    "Titles",
    "bundled_log",
    "bundled_path",
    "event_halves",
    "prepare",
    "read_cases",
    "read_log",
    "read_titles",
    "split",
    "split_with_test",
]
