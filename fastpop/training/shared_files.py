"""Tensors of several processes in one folder: torch.distributed.checkpoint, in safetensors files.

Each process writes its rows of what is shared, and one writes what is whole everywhere. Any number of
processes reads them again, each its own rows; one process alone reads them whole.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from fastpop.ops.row_shard import even_rows, is_dtensor
from fastpop.training.ranks import Ranks

GLOB = "shard-*.safetensors"
logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)


def rows_of(part: Tensor, ranks: Ranks) -> Tensor:
    """A DTensor of the rows that processes have."""
    shape = torch.Size((ranks.shard.num_items, *part.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    mesh = init_device_mesh(part.device.type, (ranks.world,))
    return DTensor.from_local(part.detach(), mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)


def write(folder: Path, tensors: dict[str, dict[str, Tensor]]) -> list[str]:
    """All processes together, into a folder that is there. Returns the names of what has rows on each."""
    flat = {f"{group}/{name}": value for group, some in tensors.items() for name, value in some.items()}
    # A number is one row: what is written by slices has a dimension.
    state = {
        name: value if is_dtensor(value) else value.detach().reshape(value.shape or (1,)).contiguous()
        for name, value in flat.items()
    }
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    dcp.save(state, storage_writer=writer)
    return [name for name, value in flat.items() if is_dtensor(value)]


def read(folder: Path, names: tuple[str, ...], about: dict[str, Any], ranks: Ranks | None) -> Any:
    """The groups `names` of a folder: what is shared as this process's rows, everything where there are none.

    about: "shared", as `write` gave it, and "numbers", the names of those without a dimension.
    """
    reader = dcp.HuggingFaceStorageReader(str(folder))
    wanted: dict[str, Tensor] = {}
    stored: dict[str, Any] = reader.read_metadata().state_dict_metadata
    for name, found in stored.items():
        if name.split("/")[0] not in names:
            continue
        shape = tuple(found.size)
        if ranks is None or name not in about["shared"]:
            wanted[name] = torch.empty(shape, dtype=found.properties.dtype)
            continue
        first, last = even_rows(shape[0], ranks.world, ranks.rank)
        part = torch.empty((last - first, *shape[1:]), dtype=found.properties.dtype)
        wanted[name] = rows_of(part, ranks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # so it is: one process reads
        dcp.load(wanted, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=ranks is None)
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    value: Any
    for name, value in wanted.items():
        group, _, key = name.partition("/")
        plain = value.to_local() if is_dtensor(value) else value
        groups[group][key] = plain.reshape(()) if name in about["numbers"] else plain
    return groups
