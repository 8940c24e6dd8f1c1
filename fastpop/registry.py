"""Names for parts: `fastpop.register` adds one, `fastpop.available` lists them.

A kind of part has a module, which registers ours when it is imported, and a base class there, which says
what one does. Installed packages add theirs through entry points: group `fastpop.encoders`, name, object.
"""

import contextlib
import dataclasses
import difflib
import importlib
import importlib.metadata
import re
import typing
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from fastpop import checks, deprecated
from fastpop.components import Component, checked, hints_of, is_option


@dataclass(frozen=True)
class Kind:
    """plural: as `available` takes it, and `fastpop.<plural>` the group of entry points. module: the module
    that registers ours. base: the class there that a part is of. methods: a part has one of its own. asked:
    a module and its function, which is given what is registered and raises where that cannot be used."""

    plural: str
    module: str
    base: str
    methods: tuple[str, ...] = ()
    asked: tuple[str, str] | None = None


KINDS = {
    "rows": Kind("rows", "fastpop.data", "Rows", ("batches",)),
    "split": Kind("splits", "fastpop.data", "SplitRule", ("part", "cut")),
    "preset": Kind("presets", "fastpop.data.presets", "Preset"),
    "encoder": Kind("encoders", "fastpop.encoders", "EncoderOptions", ("build",)),
    "item_tower": Kind("item_towers", "fastpop.item_towers", "ItemTowerOptions", ("build",)),
    "loss": Kind("losses", "fastpop.objectives", "Objective", ("build",)),
    "regularizer": Kind("regularizers", "fastpop.regularizers", "RegularizerOptions", ("build",)),
    "proposal": Kind("proposals", "fastpop.popularity", "ProposalOptions", ("build",)),
    "prior": Kind("priors", "fastpop.priors", "Prior"),
    "table_optimizer": Kind("table_optimizers", "fastpop.table_optimizers", "TableOptimizer", ("build",)),
    "logger": Kind("loggers", "fastpop.training.loggers", "Logger", ("open",)),
    "metric": Kind("metrics", "fastpop.evaluation", "Metric", ("value",)),
    "null": Kind("nulls", "fastpop.diagnostics", "Null", ("draw",)),
    "diagnostic": Kind("diagnostics", "fastpop.diagnostics", "Diagnostic", ("measure",)),
    "reference": Kind("references", "fastpop.evaluation", "Reference", ("fit", "shared")),
    "recipe": Kind("recipes", "fastpop.recipes", "Recipe", asked=("fastpop.training.config", "check_recipe")),
    "arm": Kind("arms", "fastpop.experiments", "Arm"),
    "experiment": Kind("experiments", "fastpop.studies", "Study", ("run",)),
}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_parts: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_ours: set[tuple[str, str]] = set()  # kinds and names of what comes with this package
_sound: set[tuple[str, type]] = set()  # kinds and classes that `check_class` found right
_loaded: set[str] = set()  # kinds whose entry points were loaded


class Missing(ValueError):
    """A part that something saved was made with is not registered here."""


def register(kind: str, part: Any, *, name: str | None = None) -> Any:
    """Make a part known by name: afterwards `train(encoder="mine")`, the command line, TOML files,
    `compare`, `available` and `doctor` know it.

    Args:
        kind: "encoder", "item_tower", "loss", "regularizer", "proposal", "prior", "rows",
            "table_optimizer", "split", "preset", "logger", "metric", "null", "diagnostic", "reference",
            "recipe", "arm" or "experiment".
        part: a class derived from the kind's base (`fastpop.encoders.EncoderOptions`, ...), made with its
            defaults where only the name is given; or, where there are no options, an object of it.
        name: letters, digits, - and _. None takes the part's own.
    Returns:
        part, so that `register` can stand above a class, too: `functools.partial(register, "encoder")`.
    Raises:
        ValueError: an unknown kind, a name that is no name, one that another part has, or a second one for a
        class. TypeError: a part of another kind, a class without what its base leaves to it, or with an
        option of a type that no file can hold. Either of a recipe whose options are none of a run: register
        the parts that it names before it.
    """
    checks.one_of("kind", kind, KINDS)
    base = getattr(importlib.import_module(KINDS[kind].module), KINDS[kind].base)
    is_class = isinstance(part, type)
    if not (issubclass(part, base) if is_class else isinstance(part, base)):
        raise checks.wrong_type(
            "part",
            f"a {KINDS[kind].module}.{base.__name__}, its class or an object",
            text=f"{getattr(part, '__name__', type(part).__name__)}",
        )
    own = getattr(part, "name", "")
    name = own if name is None else name
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise checks.wrong("name", "letters, digits, - and _, a letter first", name)
    check_class(kind, part if is_class else type(part))
    asked = KINDS[kind].asked
    if asked is not None:
        getattr(importlib.import_module(asked[0]), asked[1])(part)
    if not is_class and own not in ("", name):
        raise checks.wrong("name", f"{own!r}, as the object is called", name)
    before = _parts[kind].get(name)
    if before is not None and not _same(before, part):
        raise checks.wrong(
            "name", f"one that no other {kind} has", text=f"{name!r}, which is {_origin(before)}"
        )
    known_as = [other for other, one in _parts[kind].items() if is_class and one is part and other != name]
    if known_as:
        raise checks.wrong("name", f"{known_as[0]!r}, as this {kind} is registered already", name)
    if is_class and part.name != name:
        part.name = name
    elif own == "" and isinstance(part, Component):
        object.__setattr__(part, "name", name)
    _parts[kind][name] = part
    return part


def check_class(kind: str, part: type) -> None:
    """Raises TypeError or ValueError for a class whose options no file can hold, that lacks what its base
    leaves to it, or whose class variables are not of the base's types."""
    if not issubclass(part, Component) or (kind, part) in _sound:
        return
    base = getattr(importlib.import_module(KINDS[kind].module), KINDS[kind].base)
    name, fields = part.__name__, {field.name for field in dataclasses.fields(part)}
    for option, hint in hints_of(part).items():
        if option in fields and not is_option(hint):
            raise checks.wrong_type(
                f"{name}.{option}",
                "an int, float, bool, str, Literal, a part or a tuple of these",
                text=f"{hint}",
            )
        if option not in fields and typing.get_origin(hint) is not ClassVar and hint is not ClassVar:
            raise checks.wrong_type(
                "part",
                "a frozen dataclass",
                text=f"{name}, whose {option} is no field: put @dataclass(frozen=True) above it",
            )
    for variable, hint in hints_of(base).items():
        value, inner = getattr(part, variable), typing.get_args(hint)[:1]
        if (
            typing.get_origin(hint) is ClassVar
            and not isinstance(value, property)
            and float not in typing.get_args(inner[0])
        ):  # bounds may be infinite
            checked(f"{name}.{variable}", value, inner[0])
    own = KINDS[kind].methods
    if own and part is not base and all(getattr(part, one) is getattr(base, one) for one in own):
        raise checks.wrong_type(f"{name}.{' or '.join(own)}", "a method of its own", text="none")
    _sound.add((kind, part))


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
    """How a module registers its own parts while it is imported."""
    for number, part in enumerate(parts):
        name = names[number] if names else part.name
        _parts[kind][name] = part
        _ours.add((kind, name))


def is_ours(kind: str, name: str) -> bool:
    """Whether the part of that name comes with this package."""
    return (kind, name) in _ours


def available(kind: str) -> tuple[str, ...]:
    """Names that can be passed where `kind` is asked for, ours first.

    kind: "encoders", "losses", "priors", "proposals", "presets", "experiments", "metrics", "nulls", ...:
    every kind that `register` takes, in the plural.
    """
    plurals = {known.plural: name for name, known in KINDS.items()}
    checks.one_of("kind", kind, tuple(plurals))
    return tuple(all_of(plurals[kind]))


def all_of(kind: str) -> dict[str, Any]:
    """name → part of a kind: ours, those that were registered, those of installed packages."""
    importlib.import_module(KINDS[kind].module)
    _load_entry_points_of(kind)
    return dict(_parts[kind])


def find(kind: str, name: Any, argument: str = "") -> Any:
    """The part of that name. Raises ValueError with the names that there are."""
    importlib.import_module(KINDS[kind].module)
    if isinstance(name, str) and name in _parts[kind]:
        return _parts[kind][name]
    known = all_of(kind)
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise checks.wrong(argument or kind, "one of " + ", ".join(map(repr, known)) + hint, name)


def made(
    kind: str,
    given: Any,
    argument: str = "",
    options: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
) -> Any:
    """A part from its name, with those of the options that it has, or from itself.

    defaults: of the options, at which they say nothing to a part that is not ours and has its own.
    Raises ValueError, TypeError.
    """
    if isinstance(given, str) and defaults and not is_ours(kind, given):
        options = {name: value for name, value in (options or {}).items() if value != defaults[name]}
    base = getattr(importlib.import_module(KINDS[kind].module), KINDS[kind].base)
    if isinstance(given, base):
        check_class(kind, type(given))
        return given
    if isinstance(given, str):
        part = find(kind, given, argument)
        if not isinstance(part, type):
            return part
        known = {field.name for field in dataclasses.fields(part)}
        return with_options(
            part, {name: value for name, value in (options or {}).items() if name in known}, argument or kind
        )
    noun = f"a name or a {base.__name__}"
    if isinstance(given, type) and issubclass(given, base):
        raise checks.wrong_type(
            argument or kind, noun, text=f"the class {given.__name__}; make one: {given.__name__}()"
        )
    raise checks.wrong_type(argument or kind, noun, given)


def with_options(part: Any, options: dict[str, Any], argument: str) -> Any:
    """A part of this class with these options. Raises TypeError, ValueError that names the argument."""
    known = defaults(part) if isinstance(part, type) else {}
    options = deprecated.current(options, renamed(part), prefix=f"{argument}.")
    name = str(part.name)
    for option in options:
        if option not in known:
            raise TypeError(
                f"{argument}.{option}: expected an option of {name!r} "
                f"({', '.join(known) or 'it has none'}); got an unknown one"
            )
    for option, value in known.items():
        if value is dataclasses.MISSING and option not in options:
            raise TypeError(f"{argument}.{option}: expected a value, since {name!r} has no default; got none")
    if not isinstance(part, type):
        return part
    hints = hints_of(part)
    return part(
        **{
            option: _from_plain(value, hints[option], f"{argument}.{option}")
            for option, value in options.items()
        }
    )


def _from_plain(value: Any, hint: Any, argument: str) -> Any:
    """A value of JSON or TOML as an option of this type: parts by name, or as tables with their options."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        each = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(each) == len(value):
            return tuple(
                _from_plain(one, kind, f"{argument}[{at}]") for at, (one, kind) in enumerate(zip(value, each))
            )
    if not (isinstance(hint, type) and issubclass(hint, Component)):
        return value
    if not isinstance(value, dict):
        return made(hint.kind, value, argument)
    found = find(hint.kind, value.get("name"), argument)
    return with_options(found, {key: one for key, one in value.items() if key != "name"}, argument)


def renamed(part: Any) -> dict[str, str]:
    """Old names of the options of a part or its class, to the new ones."""
    return dict(getattr(part, "RENAMED", {}))


def defaults(part: Any) -> dict[str, Any]:
    """Default of every option of a part or its class; MISSING where it must be given."""
    return {field.name: _default(field) for field in dataclasses.fields(part)}


def _default(field: "dataclasses.Field[Any]") -> Any:
    made: Any = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def record(part: Component) -> dict[str, Any]:
    """What a run keeps of a part: its name, version and options, and where its class is, for words."""
    return {
        "kind": part.kind,
        "name": str(part),
        "version": part.version,
        "class": f"{type(part).__module__}:{type(part).__qualname__}",
        "options": {name: _kept(value) for name, value in part.options().items()},
    }


def is_plain(part: Component) -> bool:
    """Whether the name of the part stands for its class, so that name and options are all there is to it."""
    return _parts[part.kind].get(str(part)) is type(part)


def is_one_of_ours(part: Component) -> bool:
    """Whether the part is of a class that comes with this package, and can be asked for by its name."""
    return is_ours(part.kind, str(part)) and is_plain(part)


def is_known(part: Component) -> bool:
    """Whether a name finds this part, so that what is saved with it can be loaded."""
    found = _parts[part.kind].get(str(part))
    return found is type(part) or (not isinstance(found, type) and found == part)


def is_record(value: Any) -> bool:
    """Whether this is what `record` gives."""
    return isinstance(value, dict) and {"kind", "name", "version", "class", "options"} == set(value)


def renewed(kept: dict[str, Any]) -> dict[str, Any]:
    """What `record` gave in an earlier version, its options under the names that they have now."""
    known = renamed(_parts.get(kept["kind"], {}).get(kept["name"]))
    options = {name: renewed(one) if is_record(one) else one for name, one in kept["options"].items()}
    return {**kept, "options": deprecated.current(options, known, silent=True)}


def _kept(value: Any) -> Any:
    if isinstance(value, Component):
        return record(value)
    return [_kept(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def restored(kept: dict[str, Any]) -> Any:
    """The part that `record` was of. Nothing is imported for it but modules of this package and entry points
    of installed ones.

    Raises Missing where no part of that name and version is registered: it says what to import.
    """
    kind = kept["kind"]
    checks.one_of("kind", kind, KINDS)
    importlib.import_module(KINDS[kind].module)
    if kept["name"] not in _parts[kind]:
        _load_entry_points_of(kind)
    part = _parts[kind].get(kept["name"])
    if part is None:
        raise _missing(kind, kept["name"], f"; its class was {kept['class'].replace(':', '.')}")
    if part.version != kept["version"]:
        raise Missing(
            f"{kind}: expected version {kept['version']} of {kept['name']!r}, as where this was "
            f"made; got {part.version}, of {_origin(part)}"
        )
    return (
        with_options(part, {name: _back(value) for name, value in renewed(kept)["options"].items()}, kind)
        if isinstance(part, type)
        else part
    )


def require(kind: str, name: str) -> None:
    """Raises Missing where no part has this name, of which something saved holds nothing but that."""
    if name not in all_of(kind):
        raise _missing(kind, name)


def _missing(kind: str, name: str, more: str = "") -> Missing:
    return Missing(
        f"{kind}: expected {name!r} to be registered, as where this was made; got "
        f"none: first import what registers it (--plugin MODULE){more}"
    )


def _back(value: Any) -> Any:
    if is_record(value):
        return restored(value)
    return tuple(_back(inner) for inner in value) if isinstance(value, list) else value


def _origin(part: Any) -> str:
    kind = part if isinstance(part, type) else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"


def load_entry_points() -> None:
    """Register what installed packages offer, of every kind; imports nothing where they offer none."""
    groups = importlib.metadata.entry_points().groups
    for kind, about in KINDS.items():
        if f"fastpop.{about.plural}" in groups:
            all_of(kind)


def _load_entry_points_of(kind: str) -> None:
    """Register what installed packages offer under entry points; one that fails is warned of."""
    if kind in _loaded:
        return
    _loaded.add(kind)
    for point in importlib.metadata.entry_points(group=f"fastpop.{KINDS[kind].plural}"):
        try:
            register(kind, point.load(), name=point.name)
        except Exception as error:
            warnings.warn(
                f"{kind} {point.name!r} of the installed {point.value} cannot be used: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
