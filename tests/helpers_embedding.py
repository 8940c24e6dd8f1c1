"""docs/embedding.md by sections: blocks that need another package name it after the language."""

import importlib.util
import os
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "embedding.md"
MOST_LINES = 8
IN_NO_REGISTRY = ("generative_recommenders",)  # tested where somebody has a copy of the repository


def blocks() -> list[tuple[list[str], str]]:
    """(words after "python", text) of each block."""
    found = re.findall(r"^```python([ \w-]*)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [(words.split(), text) for words, text in found]


def packages() -> list[str]:
    return list(dict.fromkeys(words[0] for words, _ in blocks() if words))


def lines_of(adapter: str) -> int:
    """Lines that somebody writes: blank ones and imports aside."""
    lines = [line.strip() for line in adapter.splitlines()]
    return sum(bool(line) and not line.startswith(("import ", "from ", "#")) for line in lines)


def want(package: str) -> None:
    """Skips by name where a package is absent; where the environment is made for it, that is a failure."""
    if importlib.util.find_spec(package) is None:
        is_pinned = package not in IN_NO_REGISTRY
        reason = f"no package {package!r} ({'make test-others has it' if is_pinned else 'in no registry'})"
        is_required = os.environ.get("FASTPOP_REQUIRE_OTHERS") and is_pinned
        pytest.fail(reason) if is_required else pytest.skip(reason)


def run(package: str) -> dict:
    """The names that a package's blocks leave behind, and before them the page's own at its beginning."""
    want(package)
    module = types.ModuleType(f"embedding_{package}")  # a class of it can be found again, as trainers save it
    sys.modules[module.__name__] = module
    first = next(number for number, (words, _) in enumerate(blocks(), 1) if words)
    for number, (words, text) in enumerate(blocks(), 1):
        if words[:1] == [package] or number < first:
            exec(compile(text, f"{PAGE.name}, block {number}", "exec"), module.__dict__)
    return module.__dict__
