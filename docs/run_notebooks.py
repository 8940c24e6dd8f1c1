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


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook, its cells run anew in a kernel that starts in `folder`. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the time of day
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)  # the state of bars that are gone
    return notebook


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if path.stem in sys.argv[1:] or not sys.argv[1:]:
            nbformat.write(run(path, path.parent), path)
            print(f"wrote {path}")
