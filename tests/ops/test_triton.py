"""The Triton kernels: the contract suite and their laws, in processes that have the interpreter.

TRITON_INTERPRET=1 must be set before triton is imported, so this process never has it. What the
interpreter hides (races, real matrix instructions) is left to tests/kernels/test_triton_compile.py and
to the tests marked gpu.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastpop import ops
from fastpop.ops import _dispatch

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton", reason="triton is not installed")


def interpreted(file: str) -> dict[str, int]:
    """pytest's counts of outcomes for the Triton tests of a file."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("pytest")), "--import-mode=importlib", "-q", "-p",
         "no:cacheprovider", "-k", "triton", f"tests/ops/{file}"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped|failed)", done.stdout)}


# Skipped: a set for each row, drawn or given; 2000 dimensions.
@pytest.mark.parametrize(("file", "skipped"), [
    ("test_sampled_softmax.py", 9), ("test_full_softmax.py", 3), ("interpreted_triton.py", 0)])
def test_under_the_interpreter(file, skipped):
    counts = interpreted(file)
    assert counts["passed"] > 20
    assert counts.get("skipped", 0) == skipped


def test_without_the_interpreter_the_cpu_is_refused_by_name():
    query, items, ids = torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, 1])
    with pytest.raises(NotImplementedError, match="triton: the tensors are on cpu"):
        ops.sampled_softmax(query, items, ids, ids, logq="none", impl="triton")
    with pytest.raises(NotImplementedError, match="triton: the tensors are on cpu"):
        ops.full_softmax(query, items, ids, impl="triton")


def test_a_machine_without_triton_is_told_so(monkeypatch):
    def missing(op, impl):
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(_dispatch, "load", missing)
    with pytest.raises(NotImplementedError, match="triton: the package triton is not installed"):
        _dispatch.choose("sampled_softmax", "triton", "cuda", None)
