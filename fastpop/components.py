"""What can be plugged in: a frozen dataclass whose fields are its options, checked when it is made."""

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from fastpop import checks


@dataclass(frozen=True)
class Component:
    """The base of every kind of part that `fastpop.register` takes.

    kind: "encoder", "loss", ...; the base class of a kind sets it. name: how it is asked for; `register`
    may give another. version: of its options and of what it saves; raise it where an older one would be
    read wrong. Fields are options: int, float, bool, str, Literal, Components, one of these or None, and
    tuples of them. Python's own numbers and tuples are kept, whatever came.

    Prints as the line of code that makes it; str() is its name.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_options(self, self._prefix())

    def _prefix(self) -> str:
        """What errors put before the names of its options."""
        return f"{self.kind or type(self).__name__}."

    def __repr__(self) -> str:
        given = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def __str__(self) -> str:
        return self.name or type(self).__name__

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__repr__" not in cls.__dict__:
            setattr(cls, "__repr__", cls.__repr__)  # dataclass() writes one where a class has none  # noqa: B010

    def options(self) -> dict[str, Any]:
        """Every option by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def check_options(options: Any, prefix: str = "") -> None:
    """Every field of a dataclass has the type that it is declared with; int stands for float, too. Numbers of
    numpy become Python's, lists tuples: what a file holds, and what comes back from it.

    Raises TypeError or ValueError that names prefix + field.
    """
    hints = hints_of(type(options))
    for field in dataclasses.fields(options):
        given = getattr(options, field.name)
        value = checked(prefix + field.name, given, hints[field.name])
        if value is not given:
            object.__setattr__(options, field.name, value)


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value as an option of this type holds it. Raises TypeError, ValueError."""
    inner = typing.get_args(hint)
    if hint in (int, float):
        plain = value.item() if isinstance(value, (np.integer, np.floating)) else value
        checks.number(name, plain, integer=hint is int)
        return plain
    if hint in (bool, str):
        if not isinstance(value, hint):
            raise checks.wrong_type(name, "true or false" if hint is bool else "a string", value)
    elif typing.get_origin(hint) is Literal:
        checks.one_of(name, value, inner)
    elif is_union(hint):
        return _one_of(name, value, inner)
    elif typing.get_origin(hint) is tuple:
        return _several(name, value, inner)
    elif (hint is type(None) or _is_kind(hint)) and not isinstance(value, hint):
        raise checks.wrong_type(name, _noun(hint), value)
    return value


def is_option(hint: Any) -> bool:
    """Whether an option may be declared so: what `checked` checks, and a file can hold."""
    inner = typing.get_args(hint)
    if is_union(hint):
        return all(map(is_option, inner))
    if typing.get_origin(hint) is tuple:
        return all(one is ... or is_option(one) for one in inner)
    return hint in (int, float, bool, str, type(None)) or typing.get_origin(hint) is Literal or _is_kind(hint)


def _is_kind(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Component)


def is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _one_of(name: str, value: Any, hints: tuple[Any, ...]) -> Any:
    of_that_type = None
    for hint in hints:
        try:
            return checked(name, value, hint)
        except ValueError as error:
            of_that_type = error
        except TypeError:
            continue
    raise of_that_type or checks.wrong_type(name, " or ".join(map(_noun, hints)), value)


def _several(name: str, value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise checks.wrong_type(name, "a tuple", value)
    each = hints[:1] * len(value) if len(hints) == 2 and hints[1] is ... else hints
    if len(each) != len(value):
        raise checks.wrong(name, f"{len(each)} values", value)
    return tuple(checked(f"{name}[{at}]", one, hint) for at, (one, hint) in enumerate(zip(value, each)))


def _noun(hint: Any) -> str:
    nouns = {
        int: "an integer",
        float: "a finite number",
        bool: "true or false",
        str: "a string",
        type(None): "None",
    }
    if hint in nouns:
        return nouns[hint]
    if _is_kind(hint):
        return f"a part of kind {hint.kind}"
    return "a tuple" if typing.get_origin(hint) is tuple else str(hint)


def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(kind)
