"""The step lists of CONTRIBUTING.md work: a block that names a file is that module, the others run."""

import importlib
import re
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("triton")

import fastpop
from fastpop import registry
from fastpop.ops import _dispatch

ROOT = Path(__file__).resolve().parents[1]
STEPS = re.split(r"^### ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)[1:]


def module_named(path):
    name = ".".join(Path(path).with_suffix("").parts)
    return name if name.startswith("fastpop.") else f"fastpop.{name}"


def make_module(path, code, monkeypatch):
    """As if the file were there; its folder too, where that is new."""
    name = module_named(path)
    package, _, last = name.rpartition(".")
    if importlib.util.find_spec(package.rpartition(".")[0]) and package not in sys.modules:
        folder = types.ModuleType(package)
        folder.__path__ = []
        monkeypatch.setitem(sys.modules, package, folder)
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules[package], last, module, raising=False)
    exec(compile(code, path, "exec"), module.__dict__)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.partition("\n")[0])
def test_a_step_list_works(step, monkeypatch, one_thread):
    monkeypatch.setattr(registry, "_parts", {kind: registry.all_of(kind) for kind in registry.KINDS})
    monkeypatch.setattr(_dispatch, "IMPLEMENTATIONS", dict(_dispatch.IMPLEMENTATIONS))
    names = {"fastpop": fastpop, "testing": importlib.import_module("fastpop.testing")}
    blocks = re.findall(r"```python\n(.*?)```", step, re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks, 1):
        file = re.match(r"# (\S+\.py)\n", block)
        if file:
            assert not (ROOT / file[1]).exists(), f"{file[1]} would be replaced"
            make_module(file[1], block, monkeypatch)
        else:
            exec(compile(block, f"{step.partition(chr(10))[0]}, block {number}", "exec"), names)


def test_the_lists_are_of_what_people_add():
    assert [step.partition("\n")[0] for step in STEPS] == [
        "Add an encoder",
        "Add an op",
        "Add a metric",
        "Add a GPU architecture",
    ]


@pytest.mark.parametrize(
    "place",
    sorted(set(re.findall(r"`((?:fastpop|kernels|tests|csrc)/[\w/.]+\.(?:py|cpp|h))`", "".join(STEPS)))),
)
def test_files_that_the_lists_name_are_there_or_are_the_ones_they_add(place):
    assert (ROOT / place).exists() or "row_norm" in place
