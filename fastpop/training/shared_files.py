"""Tensors of several processes in files: safetensors, read as pages, so that nobody holds rows of others.

A checkpoint has a file of each process, with its rows of what is shared; the first one's has what is whole
everywhere, too. Any number of processes reads them again, each its own rows; one process alone reads them
whole. A finished model is one file, of which the first process is sent the rows piece by piece.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fastpop.data.paths import engine_name
from fastpop.ops.row_shard import even_rows
from fastpop.training.ranks import Ranks

GLOB = "shard-*.safetensors"
# The names of dtypes in the format, whose header is: 8 bytes of its length, and JSON of each tensor's place.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, eq=False)
class Part:
    """This process's rows of a tensor that processes share."""

    rows: Tensor


def file_name(ranks: Ranks) -> str:
    """Of this process's file; names are in order of rank."""
    return f"shard-{ranks.rank:05d}-of-{ranks.world:05d}.safetensors"


def own_of(tensors: dict[str, dict[str, Any]], ranks: Ranks) -> dict[str, Tensor]:
    """What goes into this process's file, by group/name."""
    flat = {f"{group}/{name}": value for group, some in tensors.items() for name, value in some.items()}
    return {
        name: (value.rows if isinstance(value, Part) else value).detach().contiguous().cpu()
        for name, value in flat.items()
        if ranks.leads or isinstance(value, Part)
    }


def names_of_parts(tensors: dict[str, dict[str, Any]]) -> list[str]:
    """group/name of what each process has rows of."""
    return [
        f"{group}/{name}"
        for group, some in tensors.items()
        for name, value in some.items()
        if isinstance(value, Part)
    ]


def read(folder: Path, names: tuple[str, ...], shared: list[str], ranks: Ranks | None) -> Any:
    """The groups `names` of a folder: of what is shared this process's rows, everything where there is one.

    shared: as `names_of_parts` gave it.
    """
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    with ExitStack() as held:
        opened = [
            held.enter_context(safe_open(engine_name(path), framework="pt"))
            for path in sorted(folder.glob(GLOB))
        ]
        for key in opened[0].keys():  # noqa: SIM118 (it is no dict)
            group, _, name = key.partition("/")
            if group in groups:
                groups[group][name] = (
                    _rows(opened, key, ranks) if key in shared else opened[0].get_tensor(key)
                )
    return groups


def _rows(opened: list[Any], key: str, ranks: Ranks | None) -> Tensor:
    slices = [one.get_slice(key) for one in opened]
    sizes = [one.get_shape()[0] for one in slices]
    first, last = (0, sum(sizes)) if ranks is None else even_rows(sum(sizes), ranks.world, ranks.rank)
    found, before = [slices[0][:0]], 0
    for one, size in zip(slices, sizes):
        low, high = max(first - before, 0), min(last - before, size)
        if low < high:
            found.append(one[low:high])
        before += size
    return torch.cat(found)


def write_whole(file: Any, tensors: dict[str, Any], ranks: Ranks) -> None:
    """One safetensors file of all processes' rows, as one process would write it; all of them together.

    file: an open one with the first process, None with the others, which send their rows.
    """
    local = {name: value.rows if isinstance(value, Part) else value for name, value in tensors.items()}
    order = sorted(tensors, key=lambda name: (-local[name].element_size(), name))  # so that all are aligned
    if file is not None:
        places, end = {}, 0
        for name in order:
            shape = list(local[name].shape)
            if isinstance(tensors[name], Part):
                shape[0] = ranks.shard.num_items
            start, end = end, end + torch.Size(shape).numel() * local[name].element_size()
            places[name] = {"dtype": DTYPES[local[name].dtype], "shape": shape, "data_offsets": [start, end]}
        header = json.dumps(places, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        file.write(len(header).to_bytes(8, "little") + header)
    for name in order:
        is_part = isinstance(tensors[name], Part)
        for piece in ranks.at_first(local[name]) if is_part else [local[name]]:
            if file is not None:
                file.write(_bytes_of(piece))


def _bytes_of(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data
