"""A query ends in what the handler of a signal raises, never in DuckDB's word for it."""

import os
import signal
import threading
import time

import pytest

from fastpop.data.workbench import Workbench

ENDLESS = "SELECT sum(sqrt(a.range) * b.range) AS x FROM range(1000000) a, range(1000000) b"


class Told(Exception):
    """What the handler of this test raises."""


def tell(*_):
    raise Told


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ask", ["rows", "column", "value", "run"])
def test_the_handler_of_a_signal_decides_what_a_query_raises(ask, sent):
    before = signal.signal(sent, tell)
    sender = threading.Timer(0.3, os.kill, (os.getpid(), sent))
    try:
        with Workbench("1GB", threads=1, progress=False) as bench:
            question = [ENDLESS, "sums"] if ask == "run" else [ENDLESS]
            bench.rows("SELECT 1")
            sender.start()
            begin = time.monotonic()
            with pytest.raises(Told):
                getattr(bench, ask)(*question)
            assert time.monotonic() - begin < 20
            assert bench.value("SELECT 41 + 1") == 42  # the connection goes on
    finally:
        sender.join()
        signal.signal(sent, before)


def test_a_handler_that_raises_nothing_leaves_the_query_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    sender = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        with Workbench("1GB", threads=1, progress=False) as bench:
            sender.start()
            assert bench.value("SELECT count(*) FROM range(40000) a, range(30000) b WHERE a.range < b.range")
        assert heard == [True]
    finally:
        sender.join()
        signal.signal(signal.SIGTERM, before)
