"""What words give to options of a type (a number, one of several words), looked at before the parser of
options reads them: whatever the option, a bad value is told in the project's own form."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from fastpop import checks
from fastpop.cli import parts

NOUNS: dict[Any, str] = {int: "an integer", float: "a number"}
# Lists that mean nothing where they are empty, and of which a second one would take the place of the first.
LISTS = ("train",)
SHOWN = 20  # characters of a bad value: the message fits a line beside any option


def check(kind: Any, words: Sequence[str]) -> None:
    """Raises ValueError for the first option of a verb (`kind`, its dataclass) that has no value where it
    takes one, or one of another type."""
    hints, rest = hints_of(kind), list(words)
    for name in LISTS:
        if name in hints and sum(word.partition("=")[0] == f"--{name}" for word in words) > 1:
            raise checks.wrong(name, "the option once, with all of its values", text="it twice")
    while rest:
        flag, sign, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        hint = hints.get(name) if flag.startswith("--") else None
        if hint in (None, bool):
            continue
        several = typing.get_origin(hint) is tuple
        given = [value] if sign else parts.values_of(rest, None if several else 1)
        if not given and (not several or name in LISTS):
            raise checks.wrong(name, "a value", text="nothing")
        for one in given:
            _check(name, one, hint)


def hints_of(kind: Any) -> dict[str, Any]:
    """Option → its type, of a verb and of the options that it shares with others."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= hints_of(hint)
        elif name in {field.name for field in dataclasses.fields(kind)}:
            found[name] = hint
    return found


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The types that one value may have: int of `tuple[int, ...]`, int and None of `int | None`."""
    if typing.get_origin(hint) is tuple:
        return kinds_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _check(name: str, value: str, hint: Any) -> None:
    kinds = kinds_of(hint)
    if value == "None" and type(None) in kinds:
        return
    expected = []
    for one in kinds:
        if typing.get_origin(one) is Literal:
            choices = [str(choice) for choice in typing.get_args(one)]
            if value in choices:
                return
            expected.append("one of " + ", ".join(choice for choice in choices if choice))
        elif one in NOUNS:
            try:
                one(value)
            except ValueError:
                expected.append(NOUNS[one])
            else:
                return
        elif one is not type(None):
            return  # text, which a verb reads itself
    raise checks.wrong(
        name, " or ".join(expected), value if len(value) <= SHOWN else value[: SHOWN - 1] + "…"
    )
