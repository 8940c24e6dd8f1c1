"""Several processes that torchrun started: who speaks, and how they end together.

The first of them writes to standard output, and warns. The message that ends the command comes from whichever
has one first: a process that fails says why before its connections close, and what the others then say
of a lost connection is not said. torchrun itself reports which process failed, too.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from fastpop import bars

TOGETHER = ("compare", "train")
_store: Any = None  # where they meet; None: this one is alone


def number() -> int:
    """How many torchrun started."""
    words = os.environ.get("WORLD_SIZE", "")
    return int(words) if words.isdigit() and "RANK" in os.environ else 1


def refuse_others(verb: str) -> None:
    """Raises NotImplementedError for a verb that several processes cannot run together."""
    if number() > 1 and verb not in TOGETHER:
        raise NotImplementedError(f"{verb}: expected one process, as all but {', '.join(TOGETHER)} do")


@contextlib.contextmanager
def joined() -> Iterator[bool]:
    """Whether this process is the one that prints. Beside others, they run together within the block."""
    global _store
    if number() == 1:
        yield True
        return
    import torch
    import torch.distributed as dist

    rank, world = _meet()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=_store, rank=rank, world_size=world)
    with _one_voice(rank):
        yield rank == 0
    dist.destroy_process_group()
    _store = None


@contextlib.contextmanager
def beside() -> Iterator[Any]:
    """What is dealt to this process (`fastpop.experiments.Dealt`), which works alone; None: there is one."""
    global _store
    if number() == 1:
        yield None
        return
    from fastpop.experiments import Dealt

    rank, world = _meet()
    with _one_voice(rank):
        yield Dealt(rank, world, _store, int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    _store = None


def _meet() -> tuple[int, int]:
    """(rank, world) of this process, which has a card of its own, and where they meet in `_store`."""
    global _store
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, world = next(dist.rendezvous("env://"))
    # torchrun's store outlives a restart, and has the addresses of those that are gone.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    _store = dist.PrefixStore(f"fastpop/{attempt}", store)
    return rank, world


@contextlib.contextmanager
def _one_voice(rank: int) -> Iterator[None]:
    with contextlib.ExitStack() as silent:
        if rank:
            silent.enter_context(contextlib.redirect_stdout(None))  # print then writes nowhere
            silent.callback(setattr, bars, "silent", bars.silent)
            bars.silent = True
        yield


def warns() -> bool:
    """Whether this process is the one that passes warnings on."""
    return os.environ.get("RANK", "0") == "0" or number() == 1


def has_the_word() -> bool:
    """Whether this process is the first to say why the command ends."""
    if _store is None:
        return True
    with contextlib.suppress(Exception):  # where they meet may be gone
        return _store.add("said", 1) == 1
    return int(os.environ.get("RANK", "0")) <= 1


def lost(error: BaseException) -> str | None:
    """What to say of an error that comes of another process's end; None: it is another error."""
    if _store is None or "torch" not in sys.modules:
        return None
    import torch.distributed as dist

    if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
        return f"another of the {number()} processes ended"
    return None
