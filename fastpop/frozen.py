"""What a result hands out does not change under its readers: arrays, and the dicts of its facts."""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np


def frozen_array(array: np.ndarray) -> np.ndarray:
    """A read-only view; the array itself stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def _refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise TypeError("results are read-only: change a copy (thawed(x), dict(x), list(x))")


class FrozenDict(dict):
    """A dict that cannot be changed; json, pickle, copy, `==` and `|` treat it as a dict."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]
    update = setdefault = pop = popitem = clear = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple:
        return FrozenDict, (dict(self),)

    def __copy__(self) -> "FrozenDict":
        return self

    def __deepcopy__(self, memo: dict) -> "FrozenDict":
        return self


class FrozenList(list):
    """A list that cannot be changed; json, pickle, copy, `==` and `+` treat it as a list."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse  # type: ignore[assignment]
    append = extend = insert = remove = pop = clear = sort = reverse = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple:
        return FrozenList, (list(self),)

    def __copy__(self) -> "FrozenList":
        return self

    def __deepcopy__(self, memo: dict) -> "FrozenList":
        return self


def deep_frozen(value: Any) -> Any:
    """Copies of nested dicts and lists, and views of arrays, in which nothing can be changed."""
    if isinstance(value, (FrozenDict, FrozenList)):
        return value
    if isinstance(value, Mapping):
        return FrozenDict((key, deep_frozen(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return FrozenList(deep_frozen(inner) for inner in value)
    if type(value) is tuple:
        return tuple(deep_frozen(inner) for inner in value)
    if isinstance(value, np.ndarray):
        return frozen_array(value)
    return value


def thawed(value: Any) -> Any:
    """A copy of nested dicts and lists that can be changed."""
    if isinstance(value, Mapping):
        return {key: thawed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [thawed(inner) for inner in value]
    return value


def freeze(result: Any, *names: str) -> None:
    """Deep-freeze these attributes of a frozen dataclass; for its `__post_init__`."""
    for name in names:
        object.__setattr__(result, name, deep_frozen(getattr(result, name)))
