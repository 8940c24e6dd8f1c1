"""Where a CUDA implementation runs in a test: on a GPU, or its host twin, lanes in a loop."""

import os

import pytest
import torch

from fastpop.kernels import device

HOST_AND_GPU = ["host twin", "gpu"]


def gpu() -> str:
    """"cuda", or a skip; with FASTPOP_REQUIRE_GPU=1, where nothing may be skipped, a failure."""
    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get("FASTPOP_REQUIRE_GPU") == "1":
        pytest.fail("FASTPOP_REQUIRE_GPU=1, and torch sees no CUDA device")
    pytest.skip("no CUDA device")


def device_of(where: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device for one of HOST_AND_GPU."""
    if where == "gpu":
        return gpu()
    monkeypatch.setattr(device, "where", "cpu")
    return "cpu"
