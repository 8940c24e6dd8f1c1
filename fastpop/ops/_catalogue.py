"""Checks that the ops on a whole catalogue of scores share: top_items and target_ranks."""

from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import _door


def check_scored(query: Any, items: Any, bias: Any, scale: Any) -> None:
    """scale * query @ items.T + bias can be made of these."""
    _check_float("query", query, ("B", "D"))
    _check_float("items", items, ("V", query.shape[1]))
    checks.number("scale", scale)
    others = {"items": items}
    if bias is not None:
        _check_float("bias", bias, (items.shape[0],))
        others["bias"] = bias
    for name, value in others.items():
        if value.device != query.device:
            raise checks.wrong(name, f"a tensor on {query.device}", f"={value.device}")


def check_lists(
    names: tuple[str, str], offsets: Any, item: Any, query: Tensor, num_items: int
) -> tuple[Tensor, Tensor]:
    """int64 (offsets [B+1], item [M]) on query's device: row b lists item[offsets[b]:offsets[b+1]]."""
    offsets, item = _ids(names[0], offsets, query.device), _ids(names[1], item, query.device)
    checks.shape(names[0], offsets, (query.shape[0] + 1,))
    if (
        int(offsets[0]) != 0
        or int(offsets[-1]) != item.shape[0]
        or bool((offsets.diff() < 0).any())
    ):
        raise checks.wrong(names[0], f"non-decreasing from 0 to {item.shape[0]}", offsets)
    checks.ids_in_range(names[1], item, num_items)
    return offsets, item


def check_exclusions(
    offsets: Any, item: Any, query: Tensor, num_items: int
) -> tuple[Tensor | None, Tensor | None]:
    names = ("exclude_offsets", "exclude_item")
    if (offsets is None) != (item is None):
        raise checks.wrong(", ".join(names), "both or neither", "=only one of them")
    if offsets is None:
        return None, None
    return check_lists(names, offsets, item, query, num_items)


def _check_float(argument: str, value: Any, expected: tuple[int | str, ...]) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise checks.wrong_type(argument, "a floating point torch tensor", value)
    _door.strided_here(argument, value)
    checks.shape(argument, value, expected)


def _ids(argument: str, value: Any, device: torch.device) -> Tensor:
    tensor = torch.as_tensor(value)
    if tensor.dtype.is_floating_point or tensor.dtype == torch.bool or tensor.ndim != 1:
        raise checks.wrong_type(argument, "a 1-d array of int64", tensor)
    return tensor.to(device=device, dtype=torch.int64)
