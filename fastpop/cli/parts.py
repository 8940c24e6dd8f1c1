"""Options of parts on the command line and in TOML: --encoder.hidden 128, [encoder] hidden = 128.

They are kept as they were given until the part's name is known.
"""

import dataclasses
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from fastpop import checks, deprecated, registry
from fastpop.components import Component, checked, hints_of, is_union
from fastpop.training.config import AUTO, LISTS, PARTS, SHORT, TrainConfig, name_and_options

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# (part's field, in a list the part's name or its place from 1, else "") -> option -> value
Given = dict[tuple[str, str], dict[str, Any]]


def with_plugins(words: Sequence[str]) -> list[str]:
    """The words without --plugin MODULE, whose modules are imported, as Python's -m does from the folder
    that the command is given in, too. Raises ValueError."""
    import importlib
    import os
    import sys

    kept, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        if name != "--plugin":
            kept.append(word)
            continue
        if not sign:
            value = rest.pop(0) if rest else ""
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # the program's own folder stands there, where Python has this one
        try:
            importlib.import_module(value)
        except Exception as error:
            raise checks.wrong(
                "plugin", "a module that can be imported", text=f"{value!r}: {type(error).__name__}: {error}"
            ) from error
    registry.load_entry_points()
    return kept


def of_words(words: Sequence[str]) -> tuple[list[str], Given]:
    """(words without options of parts, those options as text)."""
    kept: list[str] = []
    given: Given = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        field = word.removeprefix("--").partition(".")[0].replace("-", "_")
        if not word.startswith("--") or "." not in word.partition("=")[0] or field not in (*PARTS, *LISTS):
            kept.append(word)
            continue
        path, sign, value = word.removeprefix("--").partition("=")
        names = path.split(".")[1:]
        inner = names.pop(0) if field in LISTS and len(names) > 1 else ""
        values = [value] if sign else []
        if not sign:
            values = values_of(rest, _most(field, inner, names[0].replace("-", "_") if names else ""))
            del rest[: len(values)]
        if len(names) != 1 or (field in LISTS) != bool(inner):
            form = (
                f"--{field}.NAME.OPTION or --{field}.PLACE.OPTION" if field in LISTS else f"--{field}.OPTION"
            )
            raise checks.wrong(word.partition("=")[0], form, word)
        options, option = given.setdefault((field, inner), {}), names[0].replace("-", "_")
        if option in options:
            raise checks.wrong(word.partition("=")[0], "an option once", word)
        options[option] = values
    for (field, _), options in given.items():
        for option in options:
            own = short_name(field, option)
            if own in named(kept):
                same = own.replace("_", "-")
                raise checks.wrong(
                    f"{field}.{option}",
                    f"nothing beside --{same}, which is the same",
                    text=" ".join(options[option]),
                )
    return kept, given


def current(words: Sequence[str]) -> list[str]:
    """The words with old names of options of training under the new ones; warns. Raises ValueError where both
    stand there."""
    found = list(words)
    for old, new in TrainConfig.RENAMED.items():
        flags = (f"--{old.replace('_', '-')}", f"--{old}")
        for at, word in enumerate(found):
            name, sign, value = word.partition("=")
            if name not in flags:
                continue
            if new in named(words):
                raise checks.wrong(new, f"one value, under this name or as {old}", text="both")
            flag = f"--{new.replace('_', '-')}"
            deprecated.warn(name, flag)
            found[at] = flag + sign + value
    return found


def short_name(field: str, option: str) -> str | None:
    """The field of TrainConfig that says the same as this option of a part, by either of its names."""
    short = SHORT.get(field, {})
    return short.get(option) or short.get(TrainConfig.RENAMED.get(option, ""))


def values_of(rest: Sequence[str], most: int | None) -> list[str]:
    """The words that are an option's, of those behind it: so many at most, as far as the next option. 0: of a
    switch, which takes true or false and nothing else."""
    if most == 0:
        return list(rest[:1]) if rest and rest[0].lower() in (*TRUE, *FALSE) else []
    reach = next((at for at, word in enumerate(rest) if word.startswith("--")), len(rest))
    return list(rest[: reach if most is None else min(reach, most)])


def _most(field: str, inner: str, option: str) -> int | None:
    """How many words an option takes, whichever part is meant: 1, or 0 of a switch; None: any number, where a
    part declares it as a tuple or none has it."""
    found = registry.all_of(LISTS.get(field, field))
    return most_words(
        (part for name, part in found.items() if inner in ("", name) or inner.isdecimal()),
        TrainConfig.RENAMED.get(option, option),
    )


def most_words(found: Iterable[Any], option: str) -> int | None:
    """The same of these parts."""
    hints = [
        hints_of(part)[option]
        for part in found
        if isinstance(part, type) and option in registry.defaults(part)
    ]
    if not hints or any(_holds_tuple(hint) for hint in hints):
        return None
    return 0 if all(hint is bool for hint in hints) else 1


def _holds_tuple(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple or (
        is_union(hint) and any(map(_holds_tuple, typing.get_args(hint)))
    )


def named(words: Sequence[str]) -> set[str]:
    """The options that stand in the words."""
    flags = {word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    return {flag.removeprefix(no).replace("-", "_") for flag in flags for no in ("", "no-")}


def without(given: Given, asked: set[str]) -> Given:
    """Options of parts in a file but for those that stand in the words under a name of their own."""
    return {
        (field, inner): {
            option: value for option, value in options.items() if short_name(field, option) not in asked
        }
        for (field, inner), options in given.items()
    }


def filled(training: Any, given: Given, asked: set[str]) -> Any:
    """The options of training with the parts that were given options for. asked: options that were given,
    which a part that is not ours takes where it has them, too. Raises ValueError, TypeError."""
    changed: dict[str, Any] = {}
    for field, short in SHORT.items():
        name = getattr(training, field)
        if (
            asked.intersection(short.values())
            and name in registry.all_of(field)
            and not registry.is_ours(field, name)
        ):
            given.setdefault((field, ""), {})
    for (field, inner), options in given.items():
        if field in LISTS:
            names = [str(part) for part in getattr(training, field)]
            parts = list(changed.get(field, getattr(training, field)))
            at = _place(field, inner, names)
            parts[at] = part_of(LISTS[field], parts[at], options, f"{field}.{inner}", {})
            changed[field] = tuple(parts)
            continue
        name = getattr(training, field)
        if field == "table_optimizer" and name == AUTO:
            raise checks.wrong(field, "a name beside its options", name)
        ours = registry.is_ours(field, name)
        short = {
            option: getattr(training, own)
            for option, own in SHORT.get(field, {}).items()
            if ours or own in asked
        }
        changed[field] = part = part_of(field, name, options, field, short)
        for option, own in SHORT.get(field, {}).items():
            if option in part.options():  # says it from here on
                changed[own] = part.options()[option] if ours else getattr(TrainConfig, own)
    return dataclasses.replace(training, **changed) if changed else training


def _place(field: str, inner: str, names: list[str]) -> int:
    """Where in a list of parts the one stands that an option is of: by its name, or by its place from 1."""
    if inner.isdecimal() and 1 <= int(inner) <= len(names):
        return int(inner) - 1
    known = ", ".join(names) or "none"
    if names.count(inner) > 1:
        places = " or ".join(str(at) for at, name in enumerate(names, 1) if name == inner)
        raise checks.wrong(
            f"{field}.{inner}", f"its place ({places}) instead of a name that several have ({known})", inner
        )
    if inner not in names:
        raise checks.wrong(
            f"{field}.{inner}", f"one of those asked for, or its place from 1 ({known})", inner
        )
    return names.index(inner)


def part_of(kind: str, name: Any, options: dict[str, Any], where: str, short: dict[str, Any]) -> Component:
    found = type(name) if isinstance(name, Component) else registry.find(kind, name, where)
    hints = (
        {field.name: hints_of(found)[field.name] for field in dataclasses.fields(found)}
        if isinstance(found, type)
        else {}
    )
    options = deprecated.current(options, registry.renamed(found), prefix=f"{where}.")
    made = {
        option: _value(f"{where}.{option}", value, hints[option]) if option in hints else value
        for option, value in options.items()
    }
    return registry.with_options(
        found, {option: value for option, value in short.items() if option in hints} | made, where
    )


def _value(argument: str, given: Any, hint: Any) -> Any:
    """Words (a list of text) or a TOML value, as the option has it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        several = given if isinstance(given, list) else [given]
        each = inner[:1] * len(several) if inner[-1] is ... else inner
        if len(each) != len(several):
            raise checks.wrong(argument, f"{len(each)} values", text=" ".join(map(str, several)))
        return tuple(
            _value(argument, [one] if isinstance(one, str) else one, kind) for one, kind in zip(several, each)
        )
    if is_union(hint):
        return _of_several(argument, given, inner)
    if isinstance(hint, type) and issubclass(hint, Component):
        one = given[0] if isinstance(given, list) and len(given) == 1 else given
        if isinstance(one, dict):
            name, options = name_and_options(argument, one)
            return part_of(hint.kind, name, options, argument, {})
        return registry.made(hint.kind, one, argument)
    if not isinstance(given, list):
        whole = isinstance(given, int) and not isinstance(given, bool)
        return float(given) if hint is float and whole else given
    if hint is bool:
        text = given[0].lower() if given else "true"
        if len(given) > 1 or text not in (*TRUE, *FALSE):
            raise checks.wrong(argument, "true or false", text=" ".join(given))
        return text in TRUE
    if len(given) != 1:
        raise checks.wrong(argument, "one value", text=" ".join(given) or "none")
    if hint in (int, float):
        try:
            return hint(given[0])
        except ValueError:
            noun = "an integer" if hint is int else "a number"
            raise checks.wrong(argument, noun, given[0]) from None
    if origin is typing.Literal:
        return next((one for one in inner if str(one) == given[0]), given[0])
    return given[0]


def _of_several(argument: str, given: Any, hints: tuple[Any, ...]) -> Any:
    """As the first of the types that it can be; the word none is None, where that is one of them."""
    if type(None) in hints and given == ["none"]:
        return None
    for hint in (one for one in hints if one is not type(None)):
        try:
            return checked(argument, _value(argument, given, hint), hint)
        except (TypeError, ValueError) as error:
            last = error
    raise last


def told(words: Sequence[str]) -> str:
    """What --help says of parts: the names there are, and options of those that the words choose."""
    lines = ["parts (a name; options as --PART.OPTION; --plugin MODULE imports more)"]
    for field in (*PARTS, *LISTS):
        kind = LISTS.get(field, field)
        names = ([AUTO] if field == "table_optimizer" else []) + list(registry.all_of(kind))
        lines += _wrapped(f"  --{field.replace('_', '-')}: {', '.join(names)}")
        for name, found in registry.all_of(kind).items():
            if name in words and isinstance(found, type):
                lines += options_told(found, field, f".{name}" if field in LISTS else "")
    return "\n".join(lines)


def options_told(part: type, field: str, inner: str) -> list[str]:
    lines = []
    for option in dataclasses.fields(part):
        if option.name not in SHORT.get(field, {}):
            flag = f"--{field}{inner}.{option.name}".replace("_", "-")
            default = registry.defaults(part)[option.name]
            told = "must be given" if default is dataclasses.MISSING else f"default: {default!r}"
            lines += _wrapped(f"    {flag}  ({told})")
    return lines


def _wrapped(line: str) -> list[str]:
    import textwrap

    return textwrap.wrap(line, 80, subsequent_indent="      ")
