"""Names of the ops' inputs: an op's `Inputs` lists them once, with shapes, for torch, C++ and Triton."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_SHAPE = re.compile(r"_(?:[A-Z0-9]+|n[A-Z]*)$")


# Not functools.cache, which torch.compile warns of where it traces as far as here.
_kinds: dict[Any, tuple[tuple[str, bool], ...]] = {}


def names(structure: Any) -> tuple[str, ...]:
    """The fields of a NamedTuple without their shapes: query_BD is query."""
    return tuple(_SHAPE.sub("", field) for field in structure._fields)


def kinds(structure: Any) -> tuple[tuple[str, bool], ...]:
    """(name, whether it is rows of D numbers, which kernels read by strides, as they lie) of each field."""
    if structure not in _kinds:
        is_rows = (field.endswith("D") for field in structure._fields)
        _kinds[structure] = tuple(zip(names(structure), is_rows))
    return _kinds[structure]


def named(
    inputs: Any,
    matrix: Callable[[Tensor], Any],
    vector: Callable[[Tensor], Any],
    number: Callable[[Tensor], Any],
) -> tuple[dict[str, Any], list[Tensor]]:
    """(name -> what a binding takes, tensors to hold until the kernel has them).

    Matrices, other tensors and those of one number become what these functions make of them, contiguous
    but for matrices; None becomes 0, other values stay.
    """
    structure: Any = type(inputs)
    made: dict[str, Any] = {}
    held = []
    for (name, is_rows), one in zip(kinds(structure), inputs):
        if one is None:
            made[name] = 0
        elif not isinstance(one, Tensor):
            made[name] = one
        elif is_rows:
            made[name] = matrix(one)
        elif one.ndim == 0:
            made[name] = number(one)
        else:
            if not one.is_contiguous():
                one = one.contiguous()
                held.append(one)
            made[name] = vector(one)
    return made, held


def written(*tensors: Tensor | None) -> None:
    """Tells torch what was written behind its back: without it autograd would not see that a saved table
    changed."""
    for one in tensors:
        if one is not None and not one.is_inference():
            torch.autograd.graph.increment_version(one)
