"""The Triton kernels of the sampled softmax under the interpreter: minutes, so a file of their own."""

import pytest
from helpers_interpreted import interpreted

pytest.importorskip("triton", reason="triton is not installed")


def test_under_the_interpreter():
    """Of float16 in make test-triton36. Skipped: a set for each row, drawn or given; 2000 dimensions."""
    counts = interpreted("test_sampled_softmax.py", "triton and not torch.float16")
    assert counts["passed"] > 20
    assert counts.get("skipped", 0) == 100
