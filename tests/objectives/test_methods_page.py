"""docs/methods.md has a row for every loss and regulariser of ours, with the defaults that the parts have."""

import dataclasses
import re
from pathlib import Path

import pytest

from fastpop import registry

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
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
