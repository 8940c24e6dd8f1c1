"""docs/notebooks with what their cells print and show.

    python docs/run_notebooks.py [NAME ...]    # run them, and keep what comes

A cell's numbers are those of the machine it ran on; a test runs them all, and holds what is kept to the
same words.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"
SECONDS = 120  # of a cell
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook, its cells run anew in a kernel that starts in `folder`. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def kept(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what another run would not have: the time of day, and bars, which show on a slow machine."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined([one for one in cell.outputs if WIDGET not in one.get("data", {})])
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    return notebook


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What was printed in one piece, wherever a bar stood between."""
    found: list[nbformat.NotebookNode] = []
    for one in outputs:
        if found and "text" in one and found[-1].get("name") == one.name:
            found[-1].text += one.text
        else:
            found.append(one)
    return found


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if path.stem in sys.argv[1:] or not sys.argv[1:]:
            nbformat.write(kept(run(path, path.parent)), path)
            print(f"wrote {path}")
