"""What processes that share a catalogue tell each other: every collective of ours, counted.

Sums of 16-bit numbers are made in float32. Rows of processes need not be equally many: they travel padded
to the most that one has, and come out in order of rank.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

PIECE = 1 << 22  # bytes that are sent at once where rows of all go to one
_open: list["Traffic"] = []


class Traffic:
    """Of one process: calls, and the bytes that it sends, by the name of the collective.

    Bytes are those of ring algorithms, whatever the backend does: 2 (N - 1) / N n for the sum of n bytes
    over N processes, (N - 1) n for gathering n bytes of each, (N - 1) / N n for sums of n bytes of which each
    process keeps its part, and what goes to others where every process has something for every other, or the
    first is sent what all have. Of n bytes that all get of one process each passes all on, but the last.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    @property
    def sent(self) -> int:
        return sum(self.bytes.values())


@contextlib.contextmanager
def counted() -> Iterator[Traffic]:
    """Counts what this process sends within: `with counted() as traffic: step()`."""
    traffic = Traffic()
    _open.append(traffic)
    try:
        yield traffic
    finally:
        _open.remove(traffic)


def _count(name: str, sent: float) -> None:
    for traffic in _open:
        traffic.calls[name] += 1
        traffic.bytes[name] += round(sent)


def is_running() -> bool:
    return dist.is_available() and dist.is_initialized()


def size_of(group: Any) -> int:
    return dist.get_world_size(group)


def rank_in(group: Any) -> int:
    return dist.get_rank(group)


def largest(value: Tensor, group: Any) -> Tensor:
    """The largest of each entry over processes."""
    return _reduced(value, dist.ReduceOp.MAX, "max", group)


def total(value: Tensor, group: Any) -> Tensor:
    """The sum of each entry over processes."""
    return _reduced(_wide(value), dist.ReduceOp.SUM, "sum", group).to(value.dtype)


def _reduced(value: Tensor, op: Any, name: str, group: Any) -> Tensor:
    value = value.contiguous().clone()
    world = size_of(group)
    _count(name, 2 * (world - 1) / world * value.nbytes)
    if world > 1:
        dist.all_reduce(value, op, group=group)
    return value


def counts(number: int, group: Any, device: Any = "cpu") -> list[int]:
    """A number of each process, in order of rank."""
    return [int(one) for one in gathered(torch.tensor([number], device=device), None, group)]


def gathered(rows: Tensor, sizes: list[int] | None, group: Any) -> Tensor:
    """[sum of sizes, ...]: the rows of all processes in order of rank. sizes: of each; None: all equal."""
    world = size_of(group)
    most = len(rows) if sizes is None else max(sizes)
    mine = _padded(rows, most)
    _count("gather", (world - 1) * mine.nbytes)
    if world == 1:
        return mine.clone()
    # One contiguous run of numbers a process: not every backend takes more dimensions.
    whole = mine.new_empty(world * mine.numel())
    _named("all_gather_single", "all_gather_into_tensor")(whole, mine.reshape(-1), group=group)
    whole = whole.view(world, most, *rows.shape[1:])
    if sizes is None or min(sizes) == most:
        return whole.flatten(0, 1)
    return torch.cat([part[:size] for part, size in zip(whole, sizes)])


def own_sums(rows: Tensor, sizes: list[int], group: Any) -> Tensor:
    """Of [sum of sizes, ...] on every process: the sums over processes of this one's rows."""
    world, rank = size_of(group), rank_in(group)
    wide = _wide(rows)
    if world == 1:
        _count("own sums", 0)
        return wide.to(rows.dtype)
    most = max(sizes)
    if min(sizes) != most:
        wide = torch.cat([_padded(part, most) for part in wide.split(sizes)])
    wide = wide.contiguous()
    _count("own sums", (world - 1) / world * wide.nbytes)
    mine = wide.new_empty(wide.numel() // world)
    _named("reduce_scatter_single", "reduce_scatter_tensor")(mine, wide.reshape(-1), group=group)
    return mine.view(most, *rows.shape[1:])[: sizes[rank]].to(rows.dtype)


def at_first(rows: Tensor, sizes: list[int], group: Any) -> Iterator[Tensor]:
    """Rows of all processes at the first of them, in order of rank and `PIECE` bytes at a time; the others
    send theirs, and are given nothing. Every process goes through it to its end. sizes: of each."""
    rank = rank_in(group)
    step = max(1, PIECE // max(rows.element_size() * rows.shape[1:].numel(), 1))
    for owner, size in enumerate(sizes):
        for low in range(0, size, step):
            number = min(step, size - low)
            if rank == owner:
                piece = rows[low : low + number].contiguous()
                if rank == 0:
                    yield piece
                else:
                    _count("to first", piece.nbytes)
                    dist.send(piece, group=group, group_dst=0)
            elif rank == 0:
                piece = rows.new_empty(number, *rows.shape[1:])
                dist.recv(piece, group=group, group_src=owner)
                yield piece


def everywhere(rows: Tensor, sizes: list[int], group: Any) -> Tensor:
    """`gathered`, of rows of which there are many: in the memory of the result alone."""
    world, rank = size_of(group), rank_in(group)
    whole, first = rows.new_empty(sum(sizes), *rows.shape[1:]), 0
    for owner, size in enumerate(sizes):
        part = whole[first : first + size]
        if rank == owner:
            part.copy_(rows)
        _count("from one", part.nbytes if (rank - owner) % world < world - 1 else 0)
        if size:
            dist.broadcast(part, group=group, group_src=owner)
        first += size
    return whole


def total_of_array(array: np.ndarray, group: Any) -> np.ndarray:
    """`total` of a numpy array, float64."""
    told = torch.as_tensor(np.asarray(array, np.float64), device=home(group))
    return total(told, group).cpu().numpy()


def gathered_arrays(array: np.ndarray, group: Any) -> np.ndarray:
    """[processes, ...] of float64 arrays of one shape."""
    told = torch.as_tensor(np.asarray(array, np.float64), device=home(group))
    return gathered(told[None], None, group).cpu().numpy()


def home(group: Any) -> str:
    """Where numbers of the host have to be to be told."""
    return "cuda" if dist.get_backend(group) == "nccl" else "cpu"


def exchanged(rows: Tensor, to: list[int], come: list[int], group: Any) -> Tensor:
    """rows [sum of to, ...], the first to[0] for rank 0, and so on -> those that came, [sum of come, ...]."""
    rank = rank_in(group)
    number = rows[:1].numel()
    _count("exchange", (sum(to) - to[rank]) * number * rows.element_size())
    out = rows.new_empty(sum(come), *rows.shape[1:])
    if size_of(group) == 1:
        return out.copy_(rows)
    dist.all_to_all_single(out, rows.contiguous(), list(come), list(to), group=group)
    return out


def exchanged_counts(to: list[int], group: Any, device: Any) -> list[int]:
    """How many each process has for this one, of how many this one has for each."""
    ones = [1] * len(to)
    return exchanged(torch.tensor(to, device=device), ones, ones, group).tolist()


def _named(name: str, before: str) -> Any:
    """A function of torch.distributed by the name that it has since torch 2.13, or the one before."""
    return getattr(dist, name, None) or getattr(dist, before)


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _padded(rows: Tensor, most: int) -> Tensor:
    missing = most - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows.contiguous()
