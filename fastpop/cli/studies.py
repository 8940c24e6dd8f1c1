"""Options of experiments on the command line: --frontier.dice 40 10 3."""

from collections.abc import Sequence

from fastpop import checks, registry
from fastpop.cli import parts
from fastpop.components import Component

KIND = "experiment"


def of_words(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, list[str]]]]:
    """(words without options of experiments, those by experiment and option, as text). Raises ValueError."""
    found = registry.all_of(KIND)
    known = {name.replace("-", "_"): name for name in found}
    kept: list[str] = []
    given: dict[str, dict[str, list[str]]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, sign, value = word.partition("=")
        name, dot, option = flag.removeprefix("--").replace("-", "_").partition(".")
        if not word.startswith("--") or not dot or name not in known:
            kept.append(word)
            continue
        values = [value] if sign else parts.values_of(rest, parts.most_words([found[known[name]]], option))
        if not sign:
            del rest[: len(values)]
        if option in given.setdefault(known[name], {}):
            raise checks.wrong(flag, "an option once", word)
        given[known[name]][option] = values
    return kept, given


def made(asked: str, given: dict[str, dict[str, list[str]]]) -> dict[str, Component]:
    """The experiments that were given options for, by name. Raises ValueError, TypeError."""
    from fastpop.cli.experiment import ALL

    for name, options in given.items():
        if asked not in (name, ALL):
            raise checks.wrong(
                f"{name}.{next(iter(options))}", f"an option of {asked}, which is asked", text=name
            )
    return {name: parts.part_of(KIND, name, options, name, {}) for name, options in given.items()}


def told(words: Sequence[str]) -> str:
    """What --help says of the experiments that the words name, or of all: their options."""
    found = {name: part for name, part in registry.all_of(KIND).items() if isinstance(part, type)}
    lines = ["options of experiments (--NAME.OPTION; --plugin MODULE imports more)"]
    for name in [one for one in found if one in words] or found:
        lines += parts.options_told(found[name], name, "")
    return "\n".join(lines)
