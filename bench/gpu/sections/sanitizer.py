"""compute-sanitizer on tests marked gpu: accesses out of bounds, and races in shared memory."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from gpu import testing
from gpu.context import Context, Skip

SECONDS = 20  # each at least
TOOLS = ("memcheck", "racecheck")
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
# Small shapes of every kernel: a kernel runs ten to a hundred times slower under it.
FILES = [
    "tests/ops/test_row_update_on_device.py",
    "tests/kernels/test_alias_draw.py",
    "tests/ops/test_triton.py",
    "tests/ops/test_sampled_softmax_on_device.py",
]


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    for tool in TOOLS:
        yield tool, partial(sanitized, context, tool)


def find_tool() -> Path | None:
    home = os.environ.get("CUDA_HOME")
    places = [*([f"{home}/bin", f"{home}/compute-sanitizer"] if home else []), *PLACES]
    found = shutil.which("compute-sanitizer") or next(
        (f"{place}/compute-sanitizer" for place in places if Path(place, "compute-sanitizer").exists()), None
    )
    return Path(found) if found else None


def sanitized(context: Context, tool: str) -> None:
    """Torch's own cache of memory is off: within one of its blocks nothing is out of bounds."""
    program = find_tool()
    if program is None and context.cuda:
        raise Skip("compute-sanitizer is neither on PATH nor under CUDA_HOME")
    words = testing.pytest_words(FILES if context.cuda else FILES[:1])
    if program is not None and context.cuda:
        words = [str(program), "--tool", tool, "--target-processes", "all", "--print-limit", "20", *words]
    since = testing.now()
    seconds = min(max(SECONDS, context.left / len(TOOLS) - 8), 3 * SECONDS) if context.cuda else 5
    status, said = testing.run(context, words, seconds, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    if program is None:
        raise Skip("compute-sanitizer is not installed; the tests were run without it")
    summary = re.findall(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): .*", said)
    hazards = re.findall(r"========= (Invalid|Error|Warning|Race|Misaligned|Uninitialized)[^\n]*", said)
    found = testing.counts(context, since)
    clean = not hazards and all(re.search(r": 0 (errors|hazards)", line) for line in summary)
    context.check(
        f"{tool}, {sum(found.values())} tests",
        clean and sum(found.values()) > 0,
        summary=summary[-1] if summary else f"cut off after {seconds:.0f} s",
        hazards=len(hazards),
        status=status,
        version=version(program),
        **found,
    )


def version(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    return " ".join(done.stdout.split())[-40:]
