"""A TOML file that holds a whole run: its log, how to read it, how to train, where to write."""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any

from fastpop import checks, deprecated, recipes
from fastpop.cli import parts
from fastpop.cli.options import LogOptions, TrainOptions
from fastpop.data.paths import local_path
from fastpop.training.config import LISTS, PARTS, TrainConfig, name_and_options, read_toml

TABLES = ("read", "train", "compare", "run")  # a file may sort its options under these
MISSING: Any = dataclasses.MISSING


def named_in(argv: list[str]) -> tuple[Path | None, str | None]:
    """The values of --config and --recipe."""
    path = _value_of("--config", argv)
    return None if path is None else local_path(path, "config"), _value_of("--recipe", argv)


def _value_of(flag: str, argv: list[str]) -> str | None:
    for n, word in enumerate(argv):
        if word == flag and n + 1 < len(argv):
            return argv[n + 1]
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def defaults(
    kind: Any, path: Path | None, missing: Any, recipe: str | None = None
) -> tuple[Any, parts.Given, set[str]]:
    """(a `kind`, Train or Compare, with what the file gives, over what its recipe or this one says, `missing`
    where it must be given yet; options of parts; names of the options given).

    Raises ValueError or TypeError, which names the file and the option.
    """
    own = {field.name for field in dataclasses.fields(kind)} - {"reading", "training", "config"}
    reading = {field.name for field in dataclasses.fields(LogOptions)}
    training = {field.name for field in dataclasses.fields(TrainOptions)}
    in_file = {} if path is None else _flat(path)
    if "recipe" in in_file:
        of_file = str(_value(f"{path}: recipe", in_file["recipe"], str))
        if recipe not in (None, of_file):
            raise checks.wrong("recipe", f"{of_file!r}, which {path} names, or none beside it", recipe)
        recipe = of_file
    given, of_parts = _parts_of(in_file, path)
    if recipe is not None:
        given, of_parts = _over(_parts_of(_of_recipe(kind, recipe), path), given, of_parts)
    for name in given:
        if name not in own | reading | training:
            if name in _of_any_verb():
                continue
            near = difflib.get_close_matches(name, sorted(own | reading | training), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"{path}: {name}: expected an option of `fastpop {kind.__name__.lower()}`; "
                f"got an unknown one{hint}"
            )
    options = {
        name: _value(f"{path}: {name}", value, _hint(kind, name))
        for name, value in given.items()
        if name in own
    }
    read = {
        name: _value(f"{path}: {name}", value, _hint(LogOptions, name))
        for name, value in given.items()
        if name in reading
    }
    train = {
        name: _value(f"{path}: {name}", value, _hint(TrainOptions, name))
        for name, value in given.items()
        if name in training
    }
    return (
        kind(
            reading=LogOptions(**{"log": missing, **read}),
            training=TrainOptions(**train),
            **{"out": missing, **options},
        ),
        of_parts,
        set(given),
    )


def _of_any_verb() -> set[str]:
    """Options that another verb takes: one file may serve `train` and `compare`."""
    from fastpop.cli.train import Compare, Train

    return {field.name for kind in (Train, Compare) for field in dataclasses.fields(kind)} - {
        "reading",
        "training",
        "config",
    }


def _of_recipe(kind: Any, recipe: str) -> dict[str, Any]:
    """The options of a recipe; of a comparison, whose arms have priors of their own, but for theirs."""
    from fastpop.cli.train import Compare
    from fastpop.experiments.question import OF_ARMS

    options = recipes.find(recipe).options
    TrainConfig.from_dict(dict(options))  # an error in it is told in its own words
    return {name: options[name] for name in options if kind is not Compare or name not in OF_ARMS}


def _over(
    recipe: tuple[dict[str, Any], parts.Given], given: dict[str, Any], of_parts: parts.Given
) -> tuple[dict[str, Any], parts.Given]:
    """What a file gives over what a recipe says: a part that the file names has no option of the recipe's."""
    said, said_of_parts = recipe
    kept = {
        key: options
        for key, options in parts.without(said_of_parts, set(given)).items()
        if options and key[0] not in given
    }
    return said | given, kept | {key: kept.get(key, {}) | options for key, options in of_parts.items()}


def _flat(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in read_toml(path).items():
        for key, inner in value.items() if name in TABLES and isinstance(value, dict) else [(name, value)]:
            key = key.replace("-", "_")
            if key in found:
                raise checks.wrong(f"{path}: {key}", "an option once", text=f"{found[key]!r} and {inner!r}")
            found[key] = inner
    return deprecated.current(found, TrainConfig.RENAMED, prefix=f"{path}: ")


def _parts_of(given: dict[str, Any], path: Path | None) -> tuple[dict[str, Any], parts.Given]:
    """(options with parts as names, options of parts)."""
    plain: dict[str, Any] = {}
    found: parts.Given = {}

    for field, value in given.items():
        if field in PARTS and isinstance(value, dict):
            name, options = name_and_options(f"{path}: {field}", value)
            if name is not None:
                plain[field] = name
            for option, said in options.items():
                own = parts.short_name(field, option)
                if own in given:
                    raise checks.wrong(f"{path}: {own}", "an option once", said)
            if options:
                found[field, ""] = options
        elif field in LISTS and isinstance(value, list):
            names = [one["name"] if isinstance(one, dict) and "name" in one else one for one in value]
            plain[field] = names
            for place, one in enumerate(value, 1):
                if isinstance(one, dict) and len(one) > 1:
                    name, options = name_and_options(f"{path}: {field}", one)
                    found[field, str(name) if names.count(name) == 1 else str(place)] = options
        else:
            plain[field] = value
    return plain, found


def _hint(kind: Any, name: str) -> Any:
    return typing.get_type_hints(kind)[name]


def _value(argument: str, value: Any, hint: Any) -> Any:
    """The value as the option has it: an array for several, a number for a column's position."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            value = [value]
        return tuple(_value(argument, one, inner[0]) for one in value)
    kinds = inner if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if typing.get_origin(hint) is typing.Literal:
        return value
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif any(isinstance(kind, type) and isinstance(value, kind) for kind in kinds):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if float in kinds:
            return float(value)
        if str in kinds:
            return str(value)  # a column by its position
    if Path in kinds and isinstance(value, str):
        return local_path(value, argument)
    nouns = {str: "a string", int: "an integer", float: "a number", bool: "true or false", Path: "a path"}
    expected = " or ".join(nouns[kind] for kind in kinds if kind in nouns)
    raise checks.wrong_type(argument, expected, value)
