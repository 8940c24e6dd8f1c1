"""What a section's items write with: lines of the record, and the same for eyes on standard output."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu import judging
from gpu.record import Record


class Skip(Exception):
    """Raised by an item that does not run here; its words say why."""


class Context:
    """Made from the environment that either command gives to each section's process.

    cuda: on a card, else the small form on the processor. out: the folder of the record and of what
    else comes back. carried: what was prepared elsewhere (docs/gpu-day.md).
    """

    def __init__(self, section: str):
        self.section, self.item = section, ""
        self.cuda = os.environ["FASTPOP_BENCH_DEVICE"] == "cuda"
        self.record = Record(Path(os.environ["GPU_DAY_RECORD"]), os.environ["GPU_DAY_RUN"])
        self.out = self.record.path.parent
        self.site = Path(os.environ["GPU_DAY_SITE"])
        self.carried = Path(os.environ["GPU_DAY_CARRIED"])
        # Of the whole section, when its process started.
        self.left = float(os.environ.get("GPU_DAY_LEFT", 60))

    def add(self, kind: str, name: str = "", **facts: Any) -> dict[str, Any]:
        line = self.record.add(self.section, kind, name or self.item, **facts)
        if kind not in ("begin", "end"):
            print(judging.row(line, self.ceilings()), flush=True)
        return line

    def ceilings(self) -> dict[str, float]:
        return judging.ceilings_of(self.record.lines())

    def time(self, name: str, run: Callable[[], object], **facts: Any) -> None:
        """Measure `run` and write it down as `timed` does."""
        from gpu.timing import timed

        self.timed(name, timed(run), **facts)

    def timed(self, name: str, found: Any, **facts: Any) -> None:
        """A time beside its prediction and bar, where figures.py has one of that name. A processor has no
        bars to meet."""
        from gpu.figures import figures

        figure = figures().get(name)
        if figure is not None:
            expected = figure.cost.seconds()
            facts |= {
                "predicted": expected,
                "bound": figure.cost.bound(),
                "ratio": round(found.seconds / expected, 3),
            }
            if figure.bar is not None and self.cuda:
                facts["bar"] = figure.bar._asdict()
        self.add("time", name, **found._asdict(), **facts)

    def check(self, name: str, ok: bool, **facts: Any) -> None:
        self.add("check", name, ok=bool(ok), **facts)

    def watch_compiles(self) -> dict[str, Any]:
        """Counts what Triton takes from its cache in this process, and what it compiles anew."""
        counts = {"from_cache": 0, "compiled": 0}
        if "triton" not in sys.modules and not self.cuda:
            return counts
        try:
            from triton import knobs

            def listen(*, cache_hit: bool, **_: Any) -> None:
                counts["from_cache" if cache_hit else "compiled"] += 1

            knobs.compilation.listener = listen
        except (ImportError, AttributeError):
            return {}
        return counts
