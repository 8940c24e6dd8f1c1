"""Checks that the ops on a whole catalogue of scores share: top_items and target_ranks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import readable, validation


def check_scored(
    query: Any, items: Any, bias: Any, scale: Any, padding_idx: Any = None
) -> tuple[Tensor, torch.Size, Tensor | None]:
    """scale * query @ items.T + bias can be made of these: (query [B, D], its leading dimensions, the bias,
    its numbers as they lie in memory, -inf at a padding row)."""
    _check_float("query", query)
    rows, lead = validation.flat_rows("query", query)
    _check_float("items", items)
    checks.shape("items", items, ("V", query.shape[-1]))
    validation.same_device("items", items, query)
    checks.number("scale", scale)
    if query.dtype != torch.float64 and abs(scale) > torch.finfo(torch.float32).max:
        raise checks.wrong("scale", "a number that float32 holds", scale)
    num_items = items.shape[0]
    if bias is not None:
        _check_float("bias", bias)
        checks.shape("bias", bias, (num_items,))
        validation.same_device("bias", bias, query)
        bias = bias.resolve_neg()
    if padding_idx is not None:
        checks.number("padding_idx", padding_idx, ge=0, le=num_items - 1, integer=True)
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        zeros_V = torch.zeros(num_items, dtype=dtype, device=query.device)
        bias = zeros_V if bias is None else bias.detach().clone()
        bias[int(padding_idx)] = -torch.inf
    return rows, lead, bias


def check_lists(
    names: tuple[str, str], offsets: Any, item: Any, query: Tensor, num_items: int
) -> tuple[Tensor, Tensor]:
    """int64 (offsets [B+1], item [M]) on query's device: row b lists item[offsets[b]:offsets[b+1]]. Checked
    where they came from, so that lists of the host wait for no device."""
    offsets, item = _ids(names[0], offsets), _ids(names[1], item)
    checks.shape(names[0], offsets, (query.shape[0] + 1,))
    if int(offsets[0]) != 0 or int(offsets[-1]) != item.shape[0] or bool((offsets.diff() < 0).any()):
        raise checks.wrong(names[0], f"non-decreasing from 0 to {item.shape[0]}", offsets)
    checks.ids_in_range(names[1], item, num_items)
    return offsets.to(query.device), item.to(query.device)


def check_exclusions(
    offsets: Any, item: Any, query: Tensor, num_items: int
) -> tuple[Tensor | None, Tensor | None]:
    names = ("exclude_offsets", "exclude_item")
    if (offsets is None) != (item is None):
        raise checks.wrong(", ".join(names), "both or neither", text="only one of them")
    if offsets is None:
        return None, None
    return check_lists(names, offsets, item, query, num_items)


def _check_float(argument: str, value: Any) -> None:
    if readable.tensor(argument, value, "a floating point torch tensor").dtype not in validation.FLOATS:
        raise checks.wrong_type(argument, "a floating point torch tensor", value)


def _ids(argument: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        array: Any = readable.tensor(argument, value)
        is_integer = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    else:
        if not isinstance(value, (np.ndarray, list, tuple, range)):
            raise checks.wrong_type(argument, "a 1-d array of int64 (torch, numpy or a list)", value)
        array = np.asarray(value)
        if array.size == 0 and isinstance(value, (list, tuple)):
            array = array.astype(np.int64)  # numpy calls an empty list float64
        is_integer = array.dtype.kind in "iu"
    if not is_integer or array.ndim != 1:
        raise checks.wrong_type(argument, "a 1-d array of int64", array)
    if not isinstance(array, Tensor):
        array = torch.from_numpy(np.array(array, dtype=np.int64))  # a copy that torch can read
    return array.to(torch.int64).resolve_neg()
