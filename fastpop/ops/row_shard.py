"""Which rows of a catalogue a process has, where several processes share it."""

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import collectives


@dataclass(frozen=True)
class RowShard:
    """Rows [first, first + n) of a catalogue, n those of the table that stands beside it.

    Processes have parts of any sizes, none too, which cover the catalogue once. The first op with a shard
    compares what all processes say of it; from then on nothing is asked.

    first: the first of this process's rows.
    num_items: V, of the whole catalogue, in which ids count.
    group: the process group that shares it; None: all processes.
    queries: "same": all processes bring the same queries and targets, and the gradients of these come back
        whole on each (tensor parallelism). "each": every process brings rows of its own, of any number, and
        gets their losses (data parallelism): the ops then are those on all processes' rows, in order of rank.
    gradients: with "each", those of the table are of the "sum" of the processes' losses, or of their "mean",
        as DDP and FSDP take it of everything else.
    """

    first: int
    num_items: int
    group: Any = None
    queries: Literal["same", "each"] = "same"
    gradients: Literal["sum", "mean"] = "sum"
    # What compare() found: by this process's number of rows, (first, rows) of every process.
    _parts: dict[int, list[tuple[int, int]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        checks.number("num_items", self.num_items, ge=1, integer=True)
        checks.number("first", self.first, ge=0, le=self.num_items, integer=True)
        checks.one_of("queries", self.queries, ("same", "each"))
        checks.one_of("gradients", self.gradients, ("sum", "mean"))
        if not collectives.is_running():
            raise checks.wrong("group", "processes (torch.distributed.init_process_group)", text="none")

    @classmethod
    def even(cls, num_items: int, group: Any = None, **options: Any) -> "RowShard":
        """This process's part of equal ones, as DTensor cuts: ceil(V / N) rows, fewer or none at the end."""
        first, _ = even_rows(num_items, collectives.size_of(group), collectives.rank_in(group))
        return cls(first, num_items, group, **options)

    @property
    def size(self) -> int:
        """Of the group."""
        return collectives.size_of(self.group)

    @property
    def share(self) -> float:
        """What a table's gradient is multiplied with."""
        return 1 / self.size if self.gradients == "mean" and self.queries == "each" else 1.0

    def holds(self, ids: Tensor, num_rows: int) -> Tensor:
        """Which ids are of this process's rows."""
        return (ids >= self.first) & (ids < self.first + num_rows)

    def owner_of(self, ids: Tensor, num_rows: int) -> Tensor:
        """Which process has each id, once the parts were compared."""
        parts = sorted((first, rank) for rank, (first, rows) in enumerate(self._parts[num_rows]) if rows)
        starts, ranks = torch.tensor(parts, device=ids.device).T
        return ranks[torch.searchsorted(starts.contiguous(), ids.contiguous(), right=True) - 1]

    def place_of(self, item: int | None, num_rows: int) -> int | None:
        """Where an item stands among this process's rows; None: elsewhere."""
        if item is None or not self.first <= item < self.first + num_rows:
            return None
        return item - self.first

    def slice_of(self, num_rows: int) -> slice:
        """This process's rows."""
        return slice(self.first, self.first + num_rows)

    def place_among(self, num_rows: int, device: Any = "cpu") -> tuple[int, int]:
        """(first, total): where rows of this process stand among those that all bring, in order of rank."""
        sizes = collectives.counts(num_rows, self.group, device)
        return sum(sizes[: collectives.rank_in(self.group)]), sum(sizes)

    def compare(self, num_rows: int, device: Any = "cpu") -> None:
        """Raises ValueError, on every process, where the parts do not cover the catalogue once."""
        if num_rows in self._parts:
            return
        mine = torch.tensor([[self.first, num_rows, self.num_items]], device=device)
        parts = collectives.gathered(mine, None, self.group).tolist()
        reached = 0
        for first, rows, num_items in sorted(parts):
            if (first != reached and rows) or num_items != self.num_items:
                break
            reached += rows
        else:
            if reached == self.num_items:
                self._parts[num_rows] = [(first, rows) for first, rows, _ in parts]
                return
        said = ", ".join(
            f"[{first}, {first + rows}) of {num_items}" for first, rows, num_items in sorted(parts)
        )
        raise checks.wrong("shard", "parts that cover one catalogue once", text=said)


def even_rows(num_items: int, world: int, rank: int) -> tuple[int, int]:
    """[first, last) of the rows that DTensor's Shard(0) gives a process."""
    step = -(-num_items // world)
    return min(rank * step, num_items), min((rank + 1) * step, num_items)


def is_dtensor(value: Any) -> bool:
    # Without importing torch.distributed.tensor, which takes a while: where there is one, it is imported.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def part_of(
    items: Any, shard: Any, queries: Literal["same", "each"], name: str = "items"
) -> tuple[Any, RowShard | None]:
    """(this process's rows, which they are): of a DTensor that is sharded by rows, of rows with their shard;
    or (items, None), a table in one piece. queries: what stands beside a DTensor."""
    if not is_dtensor(items):
        if shard is None:
            return items, None
        if not isinstance(shard, RowShard):
            raise checks.wrong_type("shard", "a fastpop.ops.RowShard or None", shard)
        _outside_compile("shard")
        checks.shape(name, items, ("n", "D"))
        if shard.first + len(items) > shard.num_items:
            expected = f"at most {shard.num_items - shard.first} rows from {shard.first} on"
            raise checks.wrong(name, expected, items)
        on_device = isinstance(items, Tensor) and items.is_cuda
        shard.compare(len(items), items.device if on_device else "cpu")
        return _with_share(items, shard), shard
    if shard is not None:
        raise checks.wrong("shard", f"None beside a DTensor, {name}, which knows its rows", text=f"{shard}")
    _outside_compile(name)
    group = _group_of(items, name)
    num_items = items.shape[0]
    found = RowShard.even(num_items, group, queries=queries, gradients="mean" if queries == "each" else "sum")
    local = items.to_local()
    cuts = [even_rows(num_items, found.size, rank) for rank in range(found.size)]
    found._parts[len(local)] = [(first, last - first) for first, last in cuts]
    return _with_share(local, found), found


def vector_of(name: str, value: Any, shard: RowShard, num_rows: int) -> Any:
    """This process's part of a vector over items, of which the whole is given, or the part itself."""
    if value is None:
        return None
    if is_dtensor(value):
        _group_of(value, name)
        value = value.to_local()
    if not isinstance(value, Tensor) or value.ndim != 1 or len(value) not in (num_rows, shard.num_items):
        expected = f"[{num_rows}], of this process's rows, or [{shard.num_items}], of all"
        raise checks.wrong(name, expected, value)
    if len(value) != num_rows:
        value = value[shard.slice_of(num_rows)]
    return _with_share(value, shard)


def _group_of(value: Any, name: str) -> Any:
    """The process group over which a DTensor is cut into rows, and nothing else is."""
    mesh = value.device_mesh
    cut = [dim for dim, placement in enumerate(value.placements) if mesh.size(dim) > 1]
    if not cut and value.placements[0].is_shard(0):
        cut = [0]
    if len(cut) != 1 or not value.placements[cut[0]].is_shard(0):
        raise checks.wrong(
            name,
            "a DTensor that is sharded by rows, Shard(0), over one dimension of its mesh",
            text=f"{value.placements} (full_tensor() is the whole)",
        )
    return mesh.get_group(cut[0])


def _outside_compile(name: str) -> None:
    if torch.compiler.is_compiling():
        raise NotImplementedError(f"{name}: expected a table in one piece under torch.compile; got a part")


class _Share(torch.autograd.Function):
    """The table, its gradient times a number."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, share: float) -> Tensor:
        ctx.share = share
        return table.view_as(table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return grad * ctx.share, None


def _with_share(table: Tensor, shard: RowShard) -> Tensor:
    if shard.share == 1 or not (isinstance(table, Tensor) and table.requires_grad):
        return table
    return _Share.apply(table, shard.share)
