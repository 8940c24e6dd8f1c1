"""What happens to work that is disturbed, counted.

    python tests/faults.py --times 50 --record bench/records/faults.json   # all of them
    python tests/faults.py --times 5 "kill train" "full disk"              # some
    python tests/faults.py "kill train" --only 17                          # one trial again

A trial does one fault to one command at a moment, a place or a size that its number draws, gives the same
command again, and compares what is left with what the command leaves undisturbed: every byte, less what a
clock says (helpers_faults.py). It is lost where anything differs, or where the fault was passed over in
silence. `python docs/reliability.py` writes docs/reliability.md of the record.
"""

import argparse
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import faults_of_disks
import faults_of_processes
import torch
from helpers_faults import FAULTS, Bench, CannotBeDone

import fastpop

MODULES = (faults_of_processes, faults_of_disks)  # which register what they do


def tried(bench: Bench, name: str, numbers: list[int]) -> dict[str, Any]:
    """One fault, so many times: how the trials went, and what was lost."""
    words, trial = FAULTS[name]
    went: Counter[str] = Counter()
    lost: list[str] = []
    started = time.monotonic()
    for number in numbers:
        with bench.swept():
            try:
                went[trial(bench, random.Random(f"{name}/{number}"))] += 1
            except CannotBeDone as error:
                return {"name": name, "what": words, "times": 0, "cannot": str(error)}
            except Exception as error:
                lost.append(f"{number}: {type(error).__name__}: {error}")
                print(f"LOST {name} {lost[-1]}", file=sys.stderr, flush=True)
    return {
        "name": name,
        "what": words,
        "times": len(numbers),
        "lost": lost,
        "went": dict(sorted(went.items())),
        "seconds": round(time.monotonic() - started, 1),
    }


def record(found: dict[str, Any]) -> dict[str, Any]:
    made_by = {
        "fastpop": fastpop.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "cpu_count": os.cpu_count(),
    }
    return {"made_by": made_by, "faults": [found[name] for name in FAULTS if name in found]}


def main() -> int:
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FAULTS)}; all where none is given")
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--only", type=int, help="this trial alone")
    parser.add_argument("--record", type=Path, help="a JSON file; other faults that it has are kept")
    given = parser.parse_args()
    unknown = set(given.names) - set(FAULTS)
    if unknown:
        parser.error(f"{unknown.pop()!r} is none of {', '.join(FAULTS)}")
    names = given.names or list(FAULTS)
    numbers = list(range(given.times)) if given.only is None else [given.only]
    found: dict[str, Any] = {}
    if given.record and given.record.exists():
        found = {one["name"]: one for one in json.loads(given.record.read_text())["faults"]}
    with Bench() as bench:
        for name in names:
            found[name] = tried(bench, name, numbers)
            print(json.dumps(found[name]), flush=True)
            if given.record:
                given.record.write_text(json.dumps(record(found), indent=1) + "\n")
    return int(any(found[name].get("lost") for name in names))


if __name__ == "__main__":
    sys.exit(main())
