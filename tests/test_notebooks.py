"""The notebooks run, and what is kept of them says what they say today; bars are widgets there."""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d[\d.,]*(?:e-?\d+)?")
SMALL = {"seeds=3": "seeds=1", "max_epochs=3": "max_epochs=2", "max_cases=500": "max_cases=100"}

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # jupyter_client's and zmq's own


def script():
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "docs" / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(path, folder):
    return script().kept(script().run(path, folder))


def shown(notebook):
    """What each cell of code shows: its kinds of output, and its text without numbers."""
    found = []
    for cell in (one for one in notebook.cells if one.cell_type == "code"):
        for output in cell.outputs:
            data = output.get("data", {})
            text = data.get("text/plain", "") + output.get("text", "")
            assert output.output_type != "error"
            assert output.get("name") != "stderr", text
            found.append((cell.id, tuple(sorted(data)), NUMBER.sub("#", text).split()))
    return found


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem == "matched-comparison" else [])
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def test_a_notebook_says_what_is_kept_of_it(path, tmp_path):
    assert shown(run(path, tmp_path)) == shown(nbformat.read(path, as_version=4))


def test_the_comparison_runs_smaller(tmp_path):
    """A small form of the slow one: what it says of one seed is other words."""
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "matched-comparison.ipynb", as_version=4)
    cell = notebook.cells[1]
    for large, small in SMALL.items():
        assert large in cell.source
        cell.source = cell.source.replace(large, small)
    nbformat.write(notebook, tmp_path / "small.ipynb")
    found = run(tmp_path / "small.ipynb", tmp_path)
    assert [kinds for _, kinds, _ in shown(found)] == [kinds for _, kinds, _ in shown(notebook)]


def test_there_are_three_and_they_are_small():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        assert path.stat().st_size < 300_000
        assert "widgets" not in nbformat.read(path, as_version=4).metadata


def test_a_bar_is_a_widget_in_a_notebook(tmp_path):
    pytest.importorskip("ipywidgets")
    source = "from fastpop import bars\nbar = bars.progress_bar(4, 'epochs', show=True)\nbar.update(1)\nbar"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "bar.ipynb")
    found = script().run(tmp_path / "bar.ipynb", tmp_path)
    kinds = [set(output.get("data", {})) for output in found.cells[0].outputs]
    assert any(script().WIDGET in kind for kind in kinds), kinds
    assert not any(
        script().WIDGET in output.get("data", {}) for output in script().kept(found).cells[0].outputs
    )
