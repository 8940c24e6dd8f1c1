"""One section in its own process: python -m gpu.child SECTION ITEM_SECONDS, started by runner.py.

Its items run in order; an exception becomes a line, and the next one starts. An item that an earlier
process of this run began is not begun again. An item past its limit ends the process (SIGALRM, so that a
call which never returns to Python ends too); so does one that leaves the device unusable.
"""

import importlib
import os
import signal
import sys
import time
import traceback

from gpu.context import Context, Skip
from gpu.record import begun
from gpu.runner import LOST

# What torch says once a kernel has failed: every later call in this process fails too.
LOST_WORDS = (
    "CUDA error",
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "cudaErrorLaunch",
)


def main(name: str, item_seconds: float) -> int:
    context = Context(name)
    module = importlib.import_module(f"gpu.sections.{name}")
    done = set(begun(context.record.lines(), name))
    watch = context.watch_compiles()
    for item, function in module.items(context):
        if item in done:
            continue
        context.item = item
        context.add("begin", item)
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, item_seconds)
        try:
            function()
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if is_skip(error):
                context.add("skipped", item, reason=str(error))
                continue
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            traceback.print_exc()
            context.add("error", item, error=f"{type(error).__name__}: {error}"[:600])
            if context.cuda and any(word in str(error) for word in LOST_WORDS):
                return LOST
            continue
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        context.add("end", item, seconds=round(time.monotonic() - start, 3))
    if watch and sum(watch.values()):
        context.add("fact", "Triton kernels", **watch)
    return 0


def is_skip(error: BaseException) -> bool:
    """Ours, or pytest's, which a bench's own checks raise."""
    return isinstance(error, Skip) or type(error).__name__ == "Skipped"


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    code = main(sys.argv[1], float(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a device that hangs must not hang the end of the process
