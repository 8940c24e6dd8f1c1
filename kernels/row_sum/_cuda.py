"""Sums of rows by id on a CUDA device (csrc/row_sum): sort, then one owner for each stretch of entries.

No float atomics and a cut that depends on the number of entries alone, hence bitwise repeatable. No
synchronisation: the results have a fixed number of rows, at least the number of different ids; rows
past those repeat the last id and carry zeros.

Cost of N entries: a 32-bit radix sort with 64-bit places, a running count, then each entry's row read
once. 28 N bytes of workspace, and a row for each chunk of 32 to 1,024 entries.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastpop.kernels import device, native

MIN_CHUNK, MAX_CHUNK = 32, 1024
# Chunks that keep a large device busy; more entries than that lengthen the chunks.
ENOUGH_CHUNKS = 65_536


class Sorted(NamedTuple):
    """Entries by item, equal ones in the order they came in."""

    key_N: Tensor  # int32
    place_N: Tensor  # int64: where each came from
    segment_N: Tensor  # int32: how many different ids stand before


def sort_ids(ids_N: Tensor, num_items: int) -> Sorted:
    """Of int64 ids; those that no table has come first or last, with keys -1 and num_items."""
    return sort(ids_N.clamp(-1, num_items).to(torch.int32))


def sort(key_N: Tensor) -> Sorted:
    key_N, place_N = torch.sort(key_N, stable=True)
    segment_N = torch.zeros_like(key_N)
    torch.cumsum(key_N[1:] != key_N[:-1], 0, dtype=torch.int32, out=segment_N[1:])
    return Sorted(key_N, place_N, segment_N)


def chunk_of(num_entries: int) -> int:
    """Entries in a chunk: a power of two."""
    wanted = -(-num_entries // ENOUGH_CHUNKS)
    return min(max(1 << max(wanted - 1, 0).bit_length(), MIN_CHUNK), MAX_CHUNK)


def sum_entries(
    entries: Sorted,
    rows: Tensor,
    num_rows: int,
    *,
    wants_rows: bool,
    wants_weights: bool,
    head_coef: Tensor | None = None,
    coef_BK: Tensor | None = None,
    group_size: int = 1,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(ids int64 [n], scale * sums of coefficient * row fp32 [n, D], sums of coefficients fp64 [n]).

    Entries 0 .. H - 1 are rows 0 .. H - 1 (times head_coef); entry H + g K + k is, for each row b of
    group g, coef_BK[b, k] times row b. n = num_rows must not be below the number of different ids.
    """
    id_n = torch.empty(num_rows, dtype=torch.int64, device=rows.device)
    return id_n, *_run(
        entries,
        rows,
        num_rows,
        wants_rows,
        wants_weights,
        id=native.address(id_n),
        K=1 if coef_BK is None else coef_BK.shape[1],
        group_size=group_size,
        only_repeats=False,
        head_coef=native.address(head_coef),
        coef=native.address(coef_BK),
        scale=native.address(scale),
    )


def sum_repeats(entries: Sorted, rows_nD: Tensor) -> Tensor:
    """fp32 [n, D] sums of the rows of each id that comes more than once, at its segment; what stands
    elsewhere is not written, and the rows of other ids are not read."""
    sum_nD, _ = _run(
        entries,
        rows_nD,
        len(rows_nD),
        True,
        False,
        id=0,
        K=1,
        group_size=1,
        only_repeats=True,
        head_coef=0,
        coef=0,
        scale=0,
    )
    assert sum_nD is not None
    return sum_nD


def _run(
    entries: Sorted, rows: Tensor, num_rows: int, wants_rows: bool, wants_weights: bool, **given: int
) -> tuple[Tensor | None, Tensor | None]:
    num_entries, dim = len(entries.key_N), rows.shape[1]
    chunk = chunk_of(num_entries)
    num_chunks = -(-num_entries // chunk)
    sum_nD = carry_cD = weight_n = carry_c = None
    if wants_rows:
        sum_nD = torch.empty(num_rows, dim, dtype=torch.float32, device=rows.device)
        carry_cD = torch.empty(num_chunks, dim, dtype=torch.float32, device=rows.device)
    if wants_weights:
        weight_n = torch.empty(num_rows, dtype=torch.float64, device=rows.device)
        carry_c = torch.empty(num_chunks, dtype=torch.float64, device=rows.device)
    device.run(
        "row_sum",
        rows.device,
        num_entries=num_entries,
        num_rows=num_rows,
        D=dim,
        chunk=chunk,
        key=native.address(entries.key_N),
        place=native.address(entries.place_N),
        segment=native.address(entries.segment_N),
        rows=native.matrix(rows),
        num_heads=rows.shape[0],
        B=rows.shape[0],
        sum=native.address(sum_nD),
        weight=native.address(weight_n),
        carry=native.address(carry_cD),
        carry_weight=native.address(carry_c),
        **given,
    )
    return sum_nD, weight_n
