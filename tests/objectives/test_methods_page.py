"""docs/methods.md has a row for every loss and regulariser of ours, with the defaults that the parts have."""

import dataclasses
import re
from pathlib import Path

import pytest

import fastpop
from fastpop import registry

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
PAGE, _, SOURCES = PAGE.partition("## Where the numbers are from")
ROWS = dict(re.findall(r"^\| `(\w+)` (\|.*\|)$", PAGE, re.M))


@pytest.mark.parametrize("kind", ["loss", "regularizer"])
def test_every_part_has_its_row(kind):
    ours = [name for name in registry.all_of(kind) if registry.is_ours(kind, name)]
    missing = [name for name in ours if name not in ROWS]
    assert not missing, f"no row in docs/methods.md: {missing}"


@pytest.mark.parametrize("kind", ["loss", "regularizer"])
def test_numbers_of_a_row_are_the_defaults(kind):
    """Of each option that a row names: `negatives 2048` there is 2048 here."""
    named = 0
    for name, part in registry.all_of(kind).items():
        if not registry.is_ours(kind, name):
            continue
        for field in dataclasses.fields(part):
            found = re.search(rf"\b{field.name}(?: [αβγλτεt])? (\d*\.?\d+(?:e-?\d+)?)\b", ROWS[name])
            if found:
                named += 1
                assert float(found[1]) == field.default, f"{name}: {field.name}"
    assert named >= 8


def numbers_of(config):
    """Every number of a configuration and of its parts, by name; those of the first regulariser win."""
    found = config.prior_part.options() | vars(config)
    for part in (config.encoder_part, config.loss_part, *reversed(config.regularizers)):
        found |= part.options()
    return found


@pytest.mark.parametrize("name", list(registry.all_of("recipe")))
def test_a_recipe_has_the_numbers_that_its_row_says_are_those_of_its_source(name):
    rows = re.findall(rf"^\| `{name}` \|([^|]*)\|([^|]*)\|([^|]*)\|$", SOURCES, re.M)
    assert len(rows) == 1, f"docs/methods.md: one row of {name} where the numbers are from"
    config = fastpop.TrainConfig.from_dict({"recipe": name})
    options = numbers_of(config)
    for option, number in re.findall(r"`(\w+)` (\d*\.?\d+)", rows[0][1]):
        assert float(number) == options[option], f"{name}: {option}"
    assert rows[0][2].strip()
