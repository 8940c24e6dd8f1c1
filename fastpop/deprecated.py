"""Old names of arguments, options, attributes and modules. They work for one release and warn.

A class with renamed options says so in `RENAMED`, old name to new; whatever reads options from a file or
from words passes them through `current` with it.
"""

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastpop import checks

F = TypeVar("F", bound=Callable[..., Any])


def warn(old: str, new: str) -> None:
    """The one warning, of the line outside this package that has the old name."""
    warnings.warn(
        f"{old}: expected its new name, {new}; the old one works for one release",
        DeprecationWarning,
        stacklevel=checks.level_outside(),
    )


# torch.compile(fullgraph=True) refuses warnings.warn: it calls this while it traces, once.
# What torch.compiler.assume_constant_result does, without importing torch here.
warn._dynamo_marked_constant = True  # type: ignore[attr-defined]


def current(
    given: Mapping[str, Any], renamed: Mapping[str, str], *, prefix: str = "", silent: bool = False
) -> dict[str, Any]:
    """What was given, under the new names. prefix: before the old one in messages. silent: for files that
    nobody wrote by hand. Raises ValueError where the old name and the new one are both given."""
    found = dict(given)
    for old, new in renamed.items():
        if old not in found:
            continue
        if new in found:
            raise checks.wrong(prefix + new, f"one value, under this name or as {old}", text="both")
        if not silent:
            warn(prefix + old, new)
        found[new] = found.pop(old)
    return found


def arguments(**renamed: str) -> Callable[[F], F]:
    """A decorator: the function takes keywords under their old names, too."""

    def of(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            for old in renamed:  # a loop that torch.compile unrolls
                if old in given:
                    return function(*args, **current(given, renamed))
            return function(*args, **given)

        return call  # type: ignore[return-value]

    return of


def options(cls: Any) -> Any:
    """A class decorator, above @dataclass: options in `RENAMED` are taken, and read, by their old names."""
    renamed: dict[str, str] = getattr(cls, "RENAMED")  # noqa: B009
    setattr(cls, "__init__", arguments(**renamed)(cls.__init__))  # noqa: B010
    for old, new in renamed.items():
        setattr(cls, old, attribute(old, new))
    return cls


def attribute(old: str, new: str) -> Any:
    """A property that reads another attribute."""

    def read(self: Any) -> Any:
        kind = type(self).__name__
        warn(f"{kind}.{old}", f"{kind}.{new}")
        return getattr(self, new)

    return property(read, doc=f"The old name of `{new}`.")


def names(module: str, moved: Mapping[str, tuple[str, str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a module. moved: old name -> (module that has it, its name there)."""

    def find(name: str) -> Any:
        if name not in moved:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        where, new = moved[name]
        warn(f"{module}.{name}", f"{where}.{new}")
        return getattr(importlib.import_module(where), new)

    return find
