"""The architecture: imports go one way, `import fastpop` is light, nothing but the project is tracked."""

import ast
import functools
import importlib.metadata as metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastpop

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "types",
    "checks",
    "stats",
    "text",
    "deprecated",
    "components",
    "registry",
    "frozen",
    "files",
    "bars",
    "blas",
    "pages",
    "kernels",
    "ops",
    "data",
    "popularity",
    "folding",
    "propensity",
    "tables",
    "optim",
    "table_optimizers",
    "item_towers",
    "encoders",
    "priors",
    "decoder",
    "objectives",
    "regularizers",
    "nn",
    "model",
    "evaluation",
    "diagnostics",
    "recipes",
    "training",
    "judge",
    "exporting",
    "synthetic",
    "report",
    "experiments",
    "studies",
    "testing",
    "benchmark",
    "doctor",
    "demo",
    "cli",
    "__main__",
)
OF_NAMED_TUPLES = {"_fields", "_make", "_replace"}
FILES = sorted([*ROOT.glob("fastpop/**/*.py"), *ROOT.glob("kernels/**/*.py")])


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "kernels" if parts[0] == "kernels" else parts[1].removesuffix(".py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("fastpop", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def statements(tree: ast.AST, typing_too: bool = True) -> list[ast.AST]:
    """All nodes; without what stands under `if TYPE_CHECKING`, which never runs."""
    found = [tree]
    for node in ast.iter_child_nodes(tree):
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if typing_too or not is_typing:
            found += statements(node, typing_too)
    return found


def imports_of(path: Path, typing_too: bool = True) -> list[tuple[str, str, str]]:
    """(what is imported, the name that it gets, what that stands for) of everything of ours, with the names
    of `from` imports: `import fastpop.ops` gives the name fastpop."""
    found = []
    for node in statements(tree_of(path), typing_too):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                found.append((alias.name, bound, alias.name if alias.asname else bound))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.append((name, alias.asname or alias.name, name))
    return [one for one in found if one[0].split(".")[0] == "fastpop"]


def names_of(path: Path, typing_too: bool = True) -> set[str]:
    """Everything of ours that a file imports, or reaches for through what it imported; `fastpop.train` as
    what it stands for, fastpop.training.train."""
    imported = imports_of(path, typing_too)
    stands_for = {bound: name for _, bound, name in imported}
    found = {name for name, _, _ in imported}
    for node in statements(tree_of(path), typing_too):
        words = []
        while isinstance(node, ast.Attribute):
            words.append(node.attr)
            node = node.value
        if words and isinstance(node, ast.Name) and node.id in stands_for:
            found.add(".".join([stands_for[node.id], *reversed(words)]))
    return {at_home(name) for name in found}


def texts_of(path: Path) -> list[str]:
    return [
        node.value
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def at_home(name: str) -> str:
    first, _, rest = name.partition(".")[2].partition(".")
    home = fastpop._FUNCTIONS.get(first)
    return ".".join(filter(None, (home, first, rest))) if home else name


def module_with(name: str) -> str:
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def package_named(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from fastpop import train", "fastpop.training.train"),
        ("import fastpop\nprint(fastpop.load)", "fastpop.training.load"),
        ("import fastpop.ops\nfastpop.ops._dispatch.choose", "fastpop.ops._dispatch.choose"),
        ("from fastpop import ops as mine\nmine._dispatch", "fastpop.ops._dispatch"),
        ("def late():\n    import fastpop.ops as mine\n    mine._dispatch", "fastpop.ops._dispatch"),
    ],
)
def test_what_a_file_reaches_for_is_seen(code, name, tmp_path):
    (tmp_path / "file.py").write_text(code)
    assert name in names_of(tmp_path / "file.py")


@pytest.mark.parametrize(
    "path",
    [f for f in FILES if f != ROOT / "fastpop" / "__init__.py"],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_go_one_way(path):
    own = PACKAGES.index(package_of(path))
    for name in names_of(path):
        package = package_named(name)
        if package == "_C":
            assert package_of(path) == "kernels", f"{path} imports fastpop._C"
        elif package in PACKAGES:
            assert PACKAGES.index(package) <= own, f"{path} imports {name}, a later package"
        if package == "kernels":
            assert package_of(path) in ("kernels", "ops"), f"{path} imports {name}, which is for ops alone"


@pytest.mark.parametrize(
    "path",
    [f for f in FILES if package_of(f) not in ("kernels", "ops")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_kernels_are_not_imported_by_their_names_in_text(path):
    assert not [text for text in texts_of(path) if text.startswith("fastpop.kernels")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_private_stays_in_its_package(path):
    """Neither a module nor a name that begins with an underscore: imported, reached for, or in a text."""
    dotted = {text for text in texts_of(path) if re.fullmatch(r"fastpop(\.\w+)+", text)}
    for name in names_of(path) | dotted:
        if package_named(name) not in (package_of(path), "_C"):
            words = [one for one in name.split(".") if one.startswith("_") and not one.startswith("__")]
            assert not set(words) - OF_NAMED_TUPLES, f"{path} reaches for {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_itself_in_a_circle(package):
    graph = {}
    for path in FILES:
        if package_of(path) == package:
            found = {module_with(name) for name in names_of(path, typing_too=False)}
            graph[module_of(path)] = {one for one in found if package_named(one) == package}
    assert graph
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in sorted(graph.get(module, ())):
                walk(other, (*way, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())


@pytest.mark.parametrize("path", sorted(ROOT.glob("kernels/*/reference.py")), ids=lambda p: p.parent.name)
def test_a_reference_is_read_alone(path):
    assert imports_of(path) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path):
    docstring = ast.get_docstring(tree_of(path))
    assert docstring or path.read_text() == "", f"{path} has no docstring"


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.name != "files.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_are_written_in_one_place(path):
    """Drafts, flushes and renames are made in files.py; only prepared.py renames inside its draft."""
    names = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    own = {"fsync", "mkstemp", "NamedTemporaryFile", "rename", "renames", "move"}
    own -= {"rename"} if path.name == "prepared.py" else set()
    assert not names & own, f"{path} uses {names & own}"
    assert "os.replace" not in path.read_text()


def writes_of(path: Path) -> list[str]:
    """Calls that put bytes in a file themselves, rather than ask files.py, or who asks it, to."""
    found = []
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        of, _, name = ast.unparse(node.func).rpartition(".")
        words = [str(one.value) for one in ast.walk(node) if isinstance(one, ast.Constant)]
        in_open_file = bool(node.args) and ast.unparse(node.args[0]) == "file"
        if (
            (name in ("write_text", "write_bytes") and of.rpartition(".")[2] not in ASK_FILES)
            or (name == "open" and any(re.fullmatch("[wax][b+]*|rb?[+]b?", word) for word in words))
            or (name in ("savez", "savez_compressed", "tofile", "to_csv", "save_file") and not in_open_file)
            or (name, of) in (("save", "np"), ("save", "torch"), ("dump", "json"))
        ):
            found.append(ast.unparse(node))
    return found


ASK_FILES = ("", "files", "report", "tables", "checkpoint")
# Inside the draft of an atomic folder, in scratch folders that go, or of a test; and of a closed terminal.
IN_DRAFTS = ("prepared.py", "cases.py", "checkpoint.py", "draft.py", "item_index.py")
IN_SCRATCH = ("staging.py", "scan.py", "events.py")


@pytest.mark.parametrize(
    "path",
    [
        f
        for f in FILES
        if f.name not in ("files.py", "terminal.py", *IN_DRAFTS, *IN_SCRATCH) and f.parent.name != "testing"
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_what_stays_is_written_whole(path):
    assert not writes_of(path)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_light():
    code = (
        "import torch, sys, time; start = time.perf_counter(); import fastpop; "
        "print(time.perf_counter() - start); "
        "heavy = {'duckdb','numba','triton','matplotlib','pandas','polars','pyarrow','scipy'}; "
        "print(sorted(heavy & (set(sys.modules))))"
    )
    light = (
        "import torch, sys; print(sorted({'duckdb','numba','triton','matplotlib','pandas',"
        "'polars','pyarrow','scipy'} & set(sys.modules)))"
    )
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


@pytest.mark.parametrize(
    "code",
    [
        "import torch, fastpop.ops",
        "import fastpop.ops; fastpop.ops.full_softmax",
        "from fastpop.popularity import uniform; uniform(3).table_on('cpu'); import fastpop.nn",
    ],
)
def test_operators_are_there_for_exported_programs(code):
    """At once beside torch, otherwise with the first op that needs it."""
    names = ("alias_draw", "checked", "full_softmax_forward", "row_adam", "sampled_softmax_loss")
    assert (
        python(f"{code}; import torch\nprint(all(hasattr(torch.ops.fastpop, name) for name in {names}))")
        == "True"
    )


def test_public_names_exist():
    for name in fastpop.__all__:
        assert getattr(fastpop, name) is not None
    assert fastpop.ops.sampled_softmax is fastpop.ops.sampled_softmax
    assert callable(fastpop.ops.sampled_softmax)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fastpop.nothing


def test_available_names_and_unknown_kinds():
    assert fastpop.available("encoders")[:3] == ("factor", "bag", "sasrec")
    assert "movietweetings" in fastpop.available("presets")
    with pytest.raises(ValueError, match="kind: expected one of 'rows', 'splits'"):
        fastpop.available("colours")


def test_the_top_level_kernels_folder_explains_itself():
    done = subprocess.run([sys.executable, "-c", "import kernels"], cwd=ROOT, capture_output=True, text=True)
    assert "this folder is installed as fastpop.kernels, not kernels" in done.stderr


def test_the_version_stands_in_one_place_and_types_are_told():
    assert metadata.version("fastpop") == fastpop.__version__
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "fastpop" / "py.typed").exists()


def test_constraints_pin_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    asked = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        asked += extra
    asked += [
        line
        for line in (ROOT / "bench" / "peers.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    names = {re.split(r"[\[<>=; ]", one)[0].lower() for one in asked} - {"fastpop"}
    assert names <= pinned, names - pinned


def test_no_test_room_is_empty():
    for package in (
        "data",
        "popularity",
        "ops",
        "encoders",
        "evaluation",
        "diagnostics",
        "training",
        "exporting",
        "synthetic",
        "report",
        "experiments",
        "studies",
        "kernels",
        "cli",
    ):
        assert list((ROOT / "tests" / package).glob("test_*.py")), f"tests/{package} has no test"
