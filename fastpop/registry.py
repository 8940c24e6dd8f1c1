"""Names for parts: `fastpop.register` adds one, `fastpop.available` lists them.

A kind of part has a room, which registers ours when it is imported, and a base class there, which says
what one does. Installed packages add theirs through entry points: group `fastpop.encoders`, name, object.
"""

import contextlib
import dataclasses
import difflib
import importlib
import importlib.metadata
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastpop import checks
from fastpop.components import Component


@dataclass(frozen=True)
class Kind:
    """plural: as `available` takes it, and `fastpop.<plural>` the group of entry points. room: the module
    that registers ours. base: the class there that a part is of. argument: under which it is asked for."""

    plural: str
    room: str
    base: str
    argument: str = ""


KINDS = {
    "rows": Kind("rows", "fastpop.data", "Rows"),
    "split": Kind("splits", "fastpop.data", "SplitRule"),
    "preset": Kind("presets", "fastpop.data.presets", "Preset"),
    "encoder": Kind("encoders", "fastpop.encoders", "EncoderOptions"),
    "item_tower": Kind("item_towers", "fastpop.item_towers", "ItemTowerOptions"),
    "loss": Kind("losses", "fastpop.objectives", "Objective"),
    "regularizer": Kind("regularizers", "fastpop.regularizers", "RegularizerOptions"),
    "proposal": Kind("proposals", "fastpop.popularity", "ProposalOptions"),
    "prior": Kind("priors", "fastpop.priors", "Prior"),
    "table_optimizer": Kind("table_optimizers", "fastpop.table_optimizers", "TableOptimizer"),
    "logger": Kind("loggers", "fastpop.training.loggers", "Logger"),
    "metric": Kind("metrics", "fastpop.evaluation", "Metric"),
    "null": Kind("nulls", "fastpop.diagnostics", "Null"),
    "diagnostic": Kind("diagnostics", "fastpop.diagnostics", "Diagnostic"),
    "arm": Kind("arms", "fastpop.experiments", "Arm"),
}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_parts: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_looked: set[str] = set()  # kinds whose entry points were looked at


class Missing(ValueError):
    """A part that something saved was made with is not registered here."""


def register(kind: str, part: Any, *, name: str | None = None) -> Any:
    """Make a part known by name: afterwards `train(encoder="mine")`, the command line, TOML files,
    `compare`, `available` and `doctor` know it.

    Args:
        kind: "encoder", "item_tower", "loss", "regularizer", "proposal", "prior", "rows",
            "table_optimizer", "split", "preset", "logger", "metric", "null", "diagnostic" or "arm".
        part: a class derived from the kind's base (`fastpop.encoders.EncoderOptions`, ...), made with its
            defaults where only the name is given; or, where there are no options, an object of it.
        name: letters, digits, - and _. None takes the part's own.
    Returns:
        part, so that `register` can stand above a class, too: `functools.partial(register, "encoder")`.
    Raises:
        ValueError: an unknown kind, a name that is no name, or one that another part has. TypeError: a part
        of another kind.
    """
    checks.one_of("kind", kind, KINDS)
    base = getattr(importlib.import_module(KINDS[kind].room), KINDS[kind].base)
    is_class = isinstance(part, type)
    if not (issubclass(part, base) if is_class else isinstance(part, base)):
        raise checks.wrong_type("part", f"a {KINDS[kind].room}.{base.__name__}, its class or an object",
                                f"={getattr(part, '__name__', type(part).__name__)}")
    own = getattr(part, "name", "")
    name = own if name is None else name
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise checks.wrong("name", "letters, digits, - and _, a letter first", name)
    if is_class and not dataclasses.is_dataclass(part):
        raise checks.wrong_type("part", "a frozen dataclass", f"={part.__name__}")
    if not is_class and own not in ("", name):
        raise checks.wrong("name", f"{own!r}, as the object is called", name)
    before = _parts[kind].get(name)
    if before is not None and not _same(before, part):
        raise checks.wrong("name", f"one that no other {kind} has", f"={name!r}, which is {_origin(before)}")
    if is_class and part.name != name:
        part.name = name
    elif own == "" and isinstance(part, Component):
        object.__setattr__(part, "name", name)
    _parts[kind][name] = part
    return part


@contextlib.contextmanager
def registered(kind: str, part: Any, *, name: str | None = None) -> Iterator[Any]:
    """Within it the part is known, as by `register`; afterwards no longer. For tests and notebooks."""
    before = dict(all_of(kind))
    register(kind, part, name=name)
    try:
        yield part
    finally:
        _parts[kind] = before


def _same(before: Any, part: Any) -> bool:
    """Whether one may take the other's place: a class that a notebook defined again, or an equal object."""
    return _origin(before) == _origin(part) and (isinstance(part, type) or before == part)


def ours(kind: str, *parts: Any, names: tuple[str, ...] = ()) -> None:
    """How a room registers its own parts while it is imported."""
    for number, part in enumerate(parts):
        _parts[kind][names[number] if names else part.name] = part


def available(kind: str) -> tuple[str, ...]:
    """Names that can be passed where `kind` is asked for, ours first.

    kind: "encoders", "losses", "priors", "proposals", "presets", "experiments", "metrics", "nulls", ...:
    every kind that `register` takes, in the plural.
    """
    plurals = {known.plural: name for name, known in KINDS.items()}
    checks.one_of("kind", kind, (*plurals, "experiments"))
    if kind == "experiments":
        return importlib.import_module("fastpop.experiments").NAMES
    return tuple(all_of(plurals[kind]))


def all_of(kind: str) -> dict[str, Any]:
    """name → part of a kind: ours, those that were registered, those of installed packages."""
    importlib.import_module(KINDS[kind].room)
    _look_around(kind)
    return dict(_parts[kind])


def find(kind: str, name: Any, argument: str = "") -> Any:
    """The part of that name. Raises ValueError with the names that there are."""
    importlib.import_module(KINDS[kind].room)
    if isinstance(name, str) and name in _parts[kind]:
        return _parts[kind][name]
    known = all_of(kind)
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise checks.wrong(argument or kind, "one of " + ", ".join(map(repr, known)) + hint, name)


def made(kind: str, given: Any, argument: str = "", options: dict[str, Any] | None = None) -> Any:
    """A part from its name, with those of the options that it has and its defaults, or from itself. Raises
    ValueError, TypeError."""
    base = getattr(importlib.import_module(KINDS[kind].room), KINDS[kind].base)
    if isinstance(given, base):
        return given
    if isinstance(given, str):
        part = find(kind, given, argument)
        if not isinstance(part, type):
            return part
        known = {field.name for field in dataclasses.fields(part)}
        return part(**{name: value for name, value in (options or {}).items() if name in known})
    noun = f"a name or a {base.__name__}"
    if isinstance(given, type) and issubclass(given, base):
        raise checks.wrong_type(argument or kind, noun, f"=the class {given.__name__}; make one: "
                                f"{given.__name__}()")
    raise checks.wrong_type(argument or kind, noun, given)


def record(part: Component) -> dict[str, Any]:
    """What a run keeps of a part: its name, version and options, and where its class is, for words."""
    return {"kind": part.kind, "name": str(part), "version": part.version,
            "class": f"{type(part).__module__}:{type(part).__qualname__}",
            "options": {name: _kept(value) for name, value in part.options().items()}}


def is_plain(part: Component) -> bool:
    """Whether the name of the part stands for its class, so that name and options are all there is to it."""
    return _parts[part.kind].get(str(part)) is type(part)


def defaults(part: Component) -> dict[str, Any]:
    """Default of every option; one that must be given has none that anything equals."""
    return {field.name: field.default for field in dataclasses.fields(part)}


def is_record(value: Any) -> bool:
    """Whether this is what `record` gives."""
    return isinstance(value, dict) and {"kind", "name", "version", "class", "options"} == set(value)


def _kept(value: Any) -> Any:
    if isinstance(value, Component):
        return record(value)
    return [_kept(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def restored(kept: dict[str, Any]) -> Any:
    """The part that `record` was of. Nothing is imported for it but rooms of this package.

    Raises Missing where no part of that name and version is registered: it says what to import.
    """
    kind = kept["kind"]
    checks.one_of("kind", kind, KINDS)
    importlib.import_module(KINDS[kind].room)
    part = _parts[kind].get(kept["name"])
    if part is None:
        raise Missing(f"{kind}: expected {kept['name']!r} to be registered, as where this was made; got "
                      f"none: first import what registers it (--plugin MODULE); its class was "
                      f"{kept['class'].replace(':', '.')}")
    if part.version != kept["version"]:
        raise Missing(f"{kind}: expected version {kept['version']} of {kept['name']!r}, as where this was "
                      f"made; got {part.version}, of {_origin(part)}")
    if not isinstance(part, type):
        return part
    return part(**{name: _back(value) for name, value in kept["options"].items()})


def _back(value: Any) -> Any:
    if is_record(value):
        return restored(value)
    return tuple(_back(inner) for inner in value) if isinstance(value, list) else value


def _origin(part: Any) -> str:
    kind = part if isinstance(part, type) else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"


def look_everywhere() -> None:
    """Register what installed packages offer, of every kind; imports nothing where they offer none."""
    groups = importlib.metadata.entry_points().groups
    for kind, about in KINDS.items():
        if f"fastpop.{about.plural}" in groups:
            all_of(kind)


def _look_around(kind: str) -> None:
    """Register what installed packages offer under entry points; one that fails is warned of."""
    if kind in _looked:
        return
    _looked.add(kind)
    for point in importlib.metadata.entry_points(group=f"fastpop.{KINDS[kind].plural}"):
        try:
            register(kind, point.load(), name=point.name)
        except Exception as error:
            warnings.warn(f"{kind} {point.name!r} of the installed {point.value} cannot be used: {error}",
                          RuntimeWarning, stacklevel=3)
