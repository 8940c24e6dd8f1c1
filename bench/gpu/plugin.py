"""A pytest plugin: a line of the record for every test as it ends, and an end after so many seconds.

Loaded with -p gpu.plugin by sections/tests.py and sections/sanitizer.py. GPU_DAY_SECONDS: when to stop.
GPU_DAY_SECTION: whose lines they are.
"""

import os
import time
from pathlib import Path

from gpu.record import Record

STARTED = time.monotonic()


def pytest_configure(config):
    # With xdist every worker loads this, and only the first process hears of all tests.
    config.gpu_record = (
        None
        if hasattr(config, "workerinput")
        else Record(Path(os.environ["GPU_DAY_RECORD"]), os.environ["GPU_DAY_RUN"])
    )
    if config.gpu_record is not None:
        config.pluginmanager.register(Lines(config.gpu_record), "gpu-lines")


class Lines:
    def __init__(self, record: Record):
        self.record, self.section = record, os.environ["GPU_DAY_SECTION"]
        self.seconds = float(os.environ.get("GPU_DAY_SECONDS", "inf"))

    def pytest_runtest_logreport(self, report):
        ended = report.when == "call" or (report.when == "setup" and report.outcome != "passed")
        if report.when == "teardown" and report.failed:
            ended = True
        if not ended:
            return
        facts = {"test": True, "seconds": round(report.duration, 3)}
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.record.add(self.section, "skipped", report.nodeid, reason=reason[:200], **facts)
            return
        why = {} if report.passed else {"error": _short(report)}
        self.record.add(self.section, "check", report.nodeid, ok=report.passed, **facts, **why)

    def pytest_collectreport(self, report):
        if report.failed:
            self.record.add(self.section, "error", f"collecting {report.nodeid}", error=_short(report))

    def pytest_runtest_logfinish(self, nodeid, location):
        if time.monotonic() - STARTED > self.seconds:
            raise KeyboardInterrupt(f"{self.seconds:.0f} seconds are over")


def _short(report) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash is not None else str(report.longrepr))[-600:]
