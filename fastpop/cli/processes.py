"""Several processes that torchrun started: who speaks, and how they end together.

The first of them writes to standard output, and warns. The message that ends the command comes from whichever
has one first: a process that fails says why before its connections close, and what the others then say
of a lost connection is not said. torchrun itself reports which process failed, too, and is given the message.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
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
    _store.set(f"process/{rank}", f"{os.getpid()} {socket.gethostname()}")
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
        return killed() or f"another of the {number()} processes ended"
    return None


def killed() -> str | None:
    """Which processes of this host are gone, in words; None: none of them is, or this one is alone.

    To be said by the process that has the word: one that failed or was stopped would have taken it first, so
    those that are gone were killed.
    """
    if _store is None:
        return None
    ranks = [rank for rank in range(number()) if str(rank) != os.environ["RANK"] and _is_gone(rank)]
    if not ranks:
        return None
    named = ", ".join(map(str, ranks))
    return f"rank {named} of {number()} processes ended without a word: it was killed, or out of memory"


def _is_gone(rank: int) -> bool:
    with contextlib.suppress(Exception):  # where they meet may be gone, or it never came there
        if not _store.check([f"process/{rank}"]):
            return False
        pid, _, host = _store.get(f"process/{rank}").decode().partition(" ")
        if host != socket.gethostname():
            return False
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat") as file:  # ended, and its parent has not looked yet
            return file.read().rpartition(")")[2].split()[0] == "Z"
    return False


def report(message: str) -> None:
    """What torchrun, which tells of a process that failed in a box of its own, is to show there."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        from fastpop import files

        more = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError):
            files.write_text(Path(path), json.dumps({"message": {"message": message, "extraInfo": more}}))
