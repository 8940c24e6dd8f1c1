"""What a process that os.fork made must know of the threads that stayed behind."""

import warnings

import torch

from fastpop import _C


def settle_after_fork() -> None:
    """One thread, torch's own included, in a process that os.fork made from one with threads: OpenMP's stayed
    behind, and the next parallel region would wait for them for ever."""
    if _C.has_lost_threads() and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(
            "this process was forked from one with threads, which a fork leaves behind: torch and fastpop "
            "use one thread here. Start processes with multiprocessing's 'spawn' for more.",
            RuntimeWarning,
            stacklevel=2,
        )
