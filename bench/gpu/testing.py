"""pytest in a process of its own, a line of the record for each test."""

import importlib.util
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from gpu.context import Context

ROOT = Path(__file__).resolve().parents[2]


def files_for_a_gpu() -> list[str]:
    """Test files that have tests marked gpu: others may need packages that a card's machine lacks."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("tests/**/test_*.py"))
        if "helpers_device" in (text := path.read_text()) or "mark.gpu" in text
    ]


def pytest_words(files: list[str], *, keyword: str = "", marker: str = "gpu", workers: int = 0) -> list[str]:
    """-P: under plain python -m, the root would shadow the package."""
    words = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "--override-ini=addopts=",
        "--continue-on-collection-errors",
        "-q",
        "-p",
        "gpu.plugin",
    ]
    if marker:
        words += ["-m", marker]
    if keyword:
        words += ["-k", keyword]
    if workers > 1 and importlib.util.find_spec("xdist"):
        words += ["-n", str(workers), "--dist", "worksteal"]
    return [*words, *files]


def run(
    context: Context, words: list[str], seconds: float, *, required: bool = True, **environment: str
) -> tuple[int, str]:
    """(status, the end of what it printed). Stops itself after `seconds`, and is stopped soon after."""
    own = {"GPU_DAY_SECTION": context.section, "GPU_DAY_SECONDS": str(seconds)}
    if required and context.cuda:
        own["FASTPOP_REQUIRE_GPU"] = "1"
    log = context.out / f"gpu-day-{context.section}.log"
    with open(log, "ab") as out:
        out.write(f"\n{' '.join(words)}\n".encode())
        out.flush()
        process = subprocess.Popen(
            words, cwd=ROOT, env=os.environ | own | environment, stdout=out, stderr=out
        )
        try:
            status = process.wait(seconds + 6)
        except subprocess.TimeoutExpired:
            process.kill()
            status = -1
    return status, log.read_text(errors="replace")[-20_000:]


def counts(context: Context, since: float) -> Counter:
    """Of the outcomes of tests after that time."""
    found: Counter = Counter()
    for line in context.record.lines():
        if line.get("test") and line["section"] == context.section and line["at"] >= since:
            kind = line["kind"] if line["kind"] == "skipped" else "passed" if line["ok"] else "failed"
            found[kind] += 1
    return found


def now() -> float:
    return round(time.time(), 3)
