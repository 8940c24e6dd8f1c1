"""Embedding tables, and what optimisers keep beside them: how their numbers are held, and where."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fastpop import checks
from fastpop.data import columns
from fastpop.pages import on_huge_pages

Dtype = Literal["float32", "bfloat16"]
Storage = Literal["memory", "disk"]
PIECE = 1 << 22  # numbers that are drawn at once
BLOCK = 16  # numbers that torch's normal_ makes together; a piece is a multiple of it


@dataclass(frozen=True)
class TableKind:
    """dtype: of the numbers; bfloat16 halves a table, and optimisers round it at random. storage: "memory",
    or "disk": files without a name in the system's folder for temporary files, mapped, which go with the
    tables; the system keeps in memory what it has room for."""

    dtype: Dtype = "float32"
    storage: Storage = "memory"

    def __post_init__(self) -> None:
        checks.one_of("table_dtype", self.dtype, ("float32", "bfloat16"))
        checks.one_of("table_storage", self.storage, ("memory", "disk"))

    @property
    def bytes_a_number(self) -> int:
        return 2 if self.dtype == "bfloat16" else 4


PLAIN = TableKind()


def normal_table(
    num_rows: int, dim: int, std: float = 0.02, kind: TableKind = PLAIN, rows: slice | None = None
) -> nn.Parameter:
    """[num_rows, dim] normal numbers of torch's generator, on huge pages where it is large and in memory.

    rows: of the table these alone, with the numbers that they have in the whole one, and the generator left
    where that leaves it; numbers of other rows are drawn and let go, `PIECE` of them at once.
    Raises OSError where there is no room on disk.
    """
    if kind == PLAIN and rows is None:
        return nn.Parameter(on_huge_pages(torch.empty(num_rows, dim)).normal_(std=std))
    low, high = (0, num_rows) if rows is None else (rows.start, rows.stop)
    table = _empty((high - low, dim), getattr(torch, kind.dtype), kind.storage)
    flat, before = table.view(-1), low * dim
    for at in _drawn_pieces(num_rows * dim):
        drawn = torch.empty(at.stop - at.start).normal_(std=std)
        first, last = max(at.start, before), min(at.stop, high * dim)
        if first < last:
            flat[first - before : last - before] = drawn[first - at.start : last - at.start]
    made = nn.Parameter(table)
    if kind != PLAIN:
        made.storage_kind = kind.storage  # type: ignore[attr-defined]
    return made


def _drawn_pieces(size: int) -> list[slice]:
    """Pieces whose normal numbers are those of one draw: torch makes them in blocks of 16, and fewer than 16
    in another way."""
    found = list(columns.pieces(size, PIECE))
    if len(found) > 1 and size - found[-1].start < BLOCK:
        found[-2:] = [slice(found[-2].start, size)]
    return found


def zeros_beside(table: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros on the table's device: on disk where it is, on huge pages where they are many."""
    if getattr(table, "storage_kind", "memory") == "disk" and table.device.type == "cpu":
        return _empty(shape, dtype, "disk", zeros=True)
    return on_huge_pages(torch.empty(shape, dtype=dtype, device=table.device)).zero_()


def _empty(shape: tuple[int, ...], dtype: torch.dtype, storage: str, *, zeros: bool = False) -> Tensor:
    if storage == "memory":
        return on_huge_pages(torch.empty(shape, dtype=dtype))
    size = torch.empty((), dtype=dtype).element_size()
    raw = columns.DISK.empty(size * int(torch.Size(shape).numel()), "uint8")
    found = torch.from_numpy(raw).view(dtype).view(shape)
    if zeros and found.nbytes < columns.ON_DISK:  # a file that was just made is zeros
        found.zero_()
    return found
