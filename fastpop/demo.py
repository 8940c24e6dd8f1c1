"""`fastpop demo`: the question the package answers, asked of a real log that it brings."""

from pathlib import Path
from typing import Any

import fastpop
from fastpop.experiments import CompareResult, compare

# A transformer small enough for minutes. It beats counts of all events, not those of the last days, which the
# first sentence says. max_epochs ends it while it still gets better; docs/results.md has a larger one that
# trains to its end.
OPTIONS: dict[str, Any] = {
    "encoder": "sasrec",
    "dim": 32,
    "max_length": 20,
    "epochs": 4,
    "max_epochs": 10,
    "valid_cases": 2000,
    "arms": ("standard", "frozen", "learned-from-log-p"),
}


def demo(out: Path, seeds: int) -> CompareResult:
    """Train three arms on MovieTweetings 100K, print the table, write out/report.html."""
    log = fastpop.data.bundled_log()
    print(log)
    result = compare(log, seeds=seeds, name="MovieTweetings 100K", out=out, **OPTIONS)
    print(result.table())
    print(f"\nopen {out / 'report.html'}")
    return result
