"""From words to a verb with its options."""

import dataclasses
import difflib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from fastpop.cli import messages, parts, studies, toml, values
from fastpop.cli.audit import Audit
from fastpop.cli.experiment import Experiment
from fastpop.cli.export import Export
from fastpop.cli.options import expanded
from fastpop.cli.prepare import Prepare
from fastpop.cli.serve import Evaluate, FitServing, Recommend
from fastpop.cli.tools import Bench, Doctor, ShowRecipe, Version
from fastpop.cli.train import Compare, Demo, Train

VERBS: dict[str, Any] = {
    "prepare": Prepare,
    "train": Train,
    "compare": Compare,
    "experiment": Experiment,
    "recipe": ShowRecipe,
    "audit": Audit,
    "recommend": Recommend,
    "evaluate": Evaluate,
    "fit-serving": FitServing,
    "export": Export,
    "doctor": Doctor,
    "demo": Demo,
    "bench": Bench,
}
ABOUT = "Recommenders with popularity outside the dot product, and its audit."
DASH = "\0"  # stands for the first dash of a value, which no word of a command line can hold


def parse(argv: Sequence[str]) -> Any:
    """The verb's object. Raises ValueError for an unknown verb or a bad value; SystemExit as tyro does."""
    words = parts.with_plugins(argv) or ["--help"]
    if words == ["--version"]:
        return Version()
    if words[0] in ("-h", "--help"):
        print(overview())
        raise SystemExit(0)
    if not words[0].startswith("-") and words[0] not in VERBS:
        near = difflib.get_close_matches(words[0].lower(), VERBS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"verb: expected one of {', '.join(VERBS)}; got {words[0]!r}{hint}")
    trains = words[0] in ("train", "compare")
    if trains:
        words = parts.current(words)
    config, recipe = toml.named_in(words) if trains else (None, None)
    given: parts.Given = {}
    asked = parts.named(words)
    union: Any = None
    for verb, kind in VERBS.items():
        made: Any = tyro.conf.subcommand(verb)
        if verb == words[0] and (config is not None or recipe is not None):
            default, in_file, named = toml.defaults(kind, config, tyro.MISSING, recipe)
            given = parts.without(in_file, asked)
            asked = asked | named
            made = tyro.conf.subcommand(verb, default=default)
        union = Annotated[kind, made] if union is None else union | Annotated[kind, made]
    more: parts.Given = {}
    if trains:
        words, more = parts.of_words(words)
    asks = words[0] == "experiment"
    of_studies: dict[str, dict[str, list[str]]] = {}
    if asks:
        words, of_studies = studies.of_words(words)
    if words[0] in VERBS:
        values.check(VERBS[words[0]], words[1:])
    try:
        parsed = tyro.cli(
            union,
            args=[_sheltered(word) for word in words],
            prog="fastpop",
            description=ABOUT,
            registry=_numbers(),
        )
    except SystemExit as stop:
        if stop.code in (0, None):
            if trains:
                print(parts.told(words))
            if asks:
                print(studies.told(words))
            print(textwrap.fill(messages.ABOUT, 80))
        raise
    parsed = expanded(_bared(parsed))
    for key, options in more.items():  # words win over the file
        given[key] = given.get(key, {}) | options
    if asks:
        return dataclasses.replace(parsed, studies=studies.made(parsed.name, of_studies))
    if not trains:
        return parsed
    return dataclasses.replace(parsed, training=parts.filled(parsed.training, given, asked))


def overview() -> str:
    """What `fastpop --help` shows, 80 columns wide."""
    lines = ["usage: fastpop VERB ...   (fastpop VERB --help says more)", "", ABOUT, ""]
    for verb, kind in VERBS.items():
        said = (kind.__doc__ or "").split("\n\n")[0].split()
        lines += textwrap.wrap(" ".join(said), 80, initial_indent=f"  {verb:12}", subsequent_indent=" " * 14)
    lines += textwrap.wrap("The version.", 80, initial_indent=f"  {'--version':12}")
    lines += ["", *textwrap.wrap(messages.ABOUT, 80)]
    return "\n".join(lines)


def _sheltered(word: str) -> str:
    """A value that begins with one dash (an id, a column, a name) is no option: there are none of
    one letter but -h. Numbers are told from options by the parser."""
    if len(word) < 2 or word[0] != "-" or word[1] == "-" or word == "-h" or _is_number(word):
        return word
    return DASH + word[1:]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _bared(value: Any) -> Any:
    """Undoes `_sheltered` in all that was parsed."""
    if isinstance(value, str):
        return value.replace(DASH, "-")
    if isinstance(value, Path):
        return Path(str(value).replace(DASH, "-"))
    if isinstance(value, tuple):
        return tuple(map(_bared, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{field.name: _bared(getattr(value, field.name)) for field in dataclasses.fields(value)}
        )
    return value


def _numbers() -> ConstructorRegistry:
    """Numbers, shown as we show them; `values.check` has seen that they are some."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        kind: Any = info.type
        if kind not in values.NOUNS:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="N" if kind is int else "X",
            instance_from_str=lambda words: kind(words[0]),
            is_instance=lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
            str_from_instance=lambda value: [f"{value:g}" if kind is float else str(value)],
        )

    return registry
