"""The suites of the ops under Triton's interpreter, in processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def interpreted(file: str, which: str = "triton") -> dict[str, int]:
    """pytest's counts of outcomes for the Triton tests of a file; which: pytest's -k."""
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "--import-mode=importlib",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            which,
            "-m",
            "not slow and not gpu",
            f"tests/ops/{file}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped|failed)", done.stdout)}
