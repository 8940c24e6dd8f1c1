"""`fastpop demo`: the question the package answers, asked of a real log that it brings."""

from pathlib import Path
from typing import Any

import fastpop
from fastpop.experiments import compare

# Settled by validation NLL on this log; see docs/results.md.
OPTIONS: dict[str, Any] = {"encoder": "factor", "epochs": 8, "learning_rate": 3e-3}


def demo(out: Path, seeds: int) -> None:
    """Train all arms on MovieTweetings 100K, print the table, write out/report.html."""
    log = fastpop.data.bundled_log()
    print(log)
    result = compare(log, seeds=seeds, name="MovieTweetings 100K", out=out, **OPTIONS)
    print(result.table())
    print(f"\nopen {out / 'report.html'}")
