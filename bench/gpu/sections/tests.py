"""The tests marked gpu, a line each; they go on where one fails."""

import os
from collections.abc import Callable, Iterator
from functools import partial

from gpu import testing
from gpu.context import Context, Skip


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "tests marked gpu", partial(run, context)


def run(context: Context) -> None:
    """On eight workers where pytest-xdist is installed: most of the time is Triton's compiler's."""
    files = testing.files_for_a_gpu() if context.cuda else ["tests/ops/test_row_update_on_device.py"]
    workers = min(8, os.cpu_count() or 1) if context.cuda else 0
    since = testing.now()
    status, said = testing.run(
        context, testing.pytest_words(files, workers=workers), max(context.left - 10, 5)
    )
    found = testing.counts(context, since)
    # 0: all passed; 1: some failed, which their lines say; 2: the time was over.
    whole = status in (0, 1)
    if not context.cuda and whole and not found["failed"]:
        raise Skip(f"no CUDA device: {found['skipped']} tests were skipped")
    context.check(
        "tests marked gpu",
        whole and not found["failed"] and found["passed"] > 0,
        **found,
        whole=whole,
        said=" ".join(said.split())[-120:],
    )
