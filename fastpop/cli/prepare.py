"""`fastpop prepare`: read a log once, into a folder that opens at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

from fastpop.cli.options import LogOptions, about_log, readable, writable


@readable()
@dataclass(frozen=True)
class Prepare:
    """Read a log once, into a folder that opens at once and needs no memory.

    Stopped at any moment, the same command gives the same folder.
    """

    reading: OmitArgPrefixes[LogOptions]
    out: Path
    """Folder for the prepared log: new, empty, or an older prepared log, which is replaced."""

    def run(self) -> dict[str, Any]:
        writable("out", self.out, folder=True)
        log = self.reading.prepare(self.out)
        size = sum(path.stat().st_size for path in self.out.iterdir())
        print(
            f"{log}\n{size / 1e6:,.1f} MB in {self.out}: `fastpop train` and `fastpop compare` take "
            "the folder as LOG"
        )
        return {"out": str(self.out), "bytes": size, **about_log(log)}

    def left(self) -> str:
        return f"; {self.out} is as it was before"
