"""The floor plan: imports go one way, the front door is light, nothing but the house is tracked."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastpop

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    "types", "checks", "text", "frozen", "files", "bars", "kernels", "data", "popularity", "ops", "optim",
    "encoders", "decoder", "objectives", "nn", "model", "evaluation", "diagnostics", "training",
    "synthetic", "report", "experiments", "adapters", "benchmark", "registry", "doctor", "demo", "cli",
    "__main__",
)
FILES = sorted([*ROOT.glob("fastpop/**/*.py"), *ROOT.glob("kernels/**/*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "kernels" if parts[0] == "kernels" else parts[1].removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
            if node.module == "fastpop":
                names += [f"fastpop.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", [f for f in FILES if f != ROOT / "fastpop" / "__init__.py"],
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = ROOMS.index(room_of(path))
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] != "fastpop" or len(parts) == 1 or parts[1].startswith("__"):
            continue
        if parts[1] == "_C":
            assert room_of(path) == "kernels", f"{path} imports fastpop._C"
        elif parts[1] in ROOMS:
            assert ROOMS.index(parts[1]) <= own, f"{path} imports {name}, a later room"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring or path.read_text() == "", f"{path} has no docstring"


@pytest.mark.parametrize("path", [f for f in FILES if f.name != "files.py"],
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_written_in_one_place(path):
    """Drafts, flushes and renames are made in files.py; only prepared.py renames inside its draft."""
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    own = {"fsync", "mkstemp", "NamedTemporaryFile", "rename", "renames", "move"}
    own -= {"rename"} if path.name == "prepared.py" else set()
    assert not names & own, f"{path} uses {names & own}"
    assert "os.replace" not in path.read_text()


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_light():
    code = ("import torch, sys, time; start = time.perf_counter(); import fastpop; "
            "print(time.perf_counter() - start); "
            "heavy = {'duckdb','numba','triton','matplotlib','pandas','polars','pyarrow','scipy'}; "
            "print(sorted(heavy & (set(sys.modules))))")
    light = "import torch, sys; print(sorted({'duckdb','numba','triton','matplotlib','pandas'," \
            "'polars','pyarrow','scipy'} & set(sys.modules)))"
    already = ast.literal_eval(python(light))
    seconds = []
    for _ in range(3):
        took, heavy = python(code).splitlines()
        seconds.append(float(took))
        assert set(ast.literal_eval(heavy)) <= set(already)
    assert sorted(seconds)[1] < 0.150


def test_training_on_arrays_needs_no_log_reader():
    """What a machine without duckdb, tyro, polars, pandas, pyarrow and matplotlib can do."""
    code = """
import sys
for name in ('duckdb', 'tyro', 'polars', 'pandas', 'pyarrow', 'matplotlib'):
    sys.modules[name] = None
import numpy as np, fastpop
rng = np.random.default_rng(0)
log = fastpop.Interactions.from_arrays(rng.integers(0, 20, 300), rng.integers(0, 30, 300))
result = fastpop.train(log, epochs=1, dim=4, num_negatives=8, progress=False)
print(result.audit(permutations=20).energy_total > 0)
try:
    fastpop.read_log({'a': [1], 'b': [1]}, user='a', item='b')
except ImportError as error:
    print(error)
sys.stderr = sys.stdout
import fastpop.cli
try:
    fastpop.cli.main(['doctor'])
except SystemExit as stop:
    print(stop.code)
"""
    lines = python(code).splitlines()
    assert lines[0] == "True"
    assert "'duckdb'" in lines[1]
    assert lines[2].startswith("fastpop: the command line needs the package 'tyro'")
    assert lines[3] == "1"


def test_public_names_exist():
    for name in fastpop.__all__:
        assert getattr(fastpop, name) is not None
    assert fastpop.ops.sampled_softmax is fastpop.ops.sampled_softmax
    assert callable(fastpop.ops.sampled_softmax)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fastpop.nothing


def test_available_names_and_unknown_kinds():
    assert fastpop.available("encoders") == ("factor", "bag", "sasrec")
    assert "movietweetings" in fastpop.available("presets")
    with pytest.raises(ValueError, match="kind: expected one of 'encoders'"):
        fastpop.available("colours")


def test_the_top_level_kernels_folder_explains_itself():
    done = subprocess.run([sys.executable, "-c", "import kernels"], cwd=ROOT, capture_output=True,
                          text=True)
    assert "this folder is installed as fastpop.kernels, not kernels" in done.stderr


def test_constraints_pin_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0].lower().replace("_", "-")
              for line in (ROOT / "constraints.txt").read_text().splitlines()
              if line and not line.startswith("#")}
    asked = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        asked += extra
    asked += [line for line in (ROOT / "bench" / "peers.txt").read_text().splitlines()
              if line and not line.startswith("#")]
    names = {re.split(r"[\[<>=; ]", one)[0].lower() for one in asked} - {"fastpop"}
    assert names <= pinned, names - pinned


def test_no_test_room_is_empty():
    for room in ("data", "popularity", "ops", "encoders", "evaluation", "diagnostics", "training",
                 "synthetic", "report", "experiments", "kernels", "cli"):
        assert list((ROOT / "tests" / room).glob("test_*.py")), f"tests/{room} has no test"
