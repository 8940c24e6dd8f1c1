"""What can be plugged in: a frozen dataclass whose fields are its options, checked when it is made."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastpop import checks


@dataclass(frozen=True)
class Component:
    """The base of every kind of part that `fastpop.register` takes.

    kind: "encoder", "loss", ...; the base class of a kind sets it. name: how it is asked for; `register`
    may give another. version: of its options and of what it saves; raise it where an older one would be
    read wrong. Fields are options: int, float, bool, str, Literal, and Components.

    Prints as the line of code that makes it; str() is its name.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_options(self, f"{self.kind or type(self).__name__}.")

    def __repr__(self) -> str:
        given = [f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self)
                 if getattr(self, field.name) != field.default]
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
    """Every field of a dataclass has the type that it is declared with; int stands for float, too.

    Raises TypeError or ValueError that names prefix + field.
    """
    hints = hints_of(type(options))
    for field in dataclasses.fields(options):
        value, hint, name = getattr(options, field.name), hints[field.name], prefix + field.name
        if hint is int:
            checks.number(name, value, integer=True)
        elif hint is float:
            checks.number(name, value)
        elif hint is bool:
            if not isinstance(value, bool):
                raise checks.wrong_type(name, "true or false", value)
        elif hint is str:
            if not isinstance(value, str):
                raise checks.wrong_type(name, "a string", value)
        elif typing.get_origin(hint) is Literal:
            checks.one_of(name, value, typing.get_args(hint))


def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(kind)
