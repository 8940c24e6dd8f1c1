"""Where an implementation runs in a test: here, on a GPU, or as the host emulation of CUDA kernels, whose
lanes are a loop."""

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch
from helpers_softmax import implementations_here

from fastpop.kernels import device
from fastpop.ops import _dispatch

GPU = pytest.param("gpu", marks=pytest.mark.gpu)
HOST_AND_GPU = ["host emulation", GPU]
CPU_AND_GPU = ["cpu", GPU]
HALF_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]


def want_gpu() -> None:
    """What a test marked gpu begins with, by tests/conftest.py: a skip where there is none; with
    FASTPOP_REQUIRE_GPU=1, where nothing may be skipped, a failure."""
    if torch.cuda.is_available():
        return
    if os.environ.get("FASTPOP_REQUIRE_GPU") == "1":
        pytest.fail("FASTPOP_REQUIRE_GPU=1, and torch sees no CUDA device")
    pytest.skip("no CUDA device")


def gpu() -> str:
    """ "cuda", for a test marked gpu."""
    assert torch.cuda.is_available(), "a test that needs a GPU has to be marked gpu"
    return "cuda"


def device_of(where: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device for "cpu", "host emulation" or "gpu"."""
    if where == "gpu":
        return gpu()
    if where == "host emulation":
        monkeypatch.setattr(device, "where", "cpu")
    return "cpu"


def runs_of(op: str) -> list:
    """(implementation, dtype, where) of an op's contract: one set of cases is for all of them."""
    implementations = _dispatch.IMPLEMENTATIONS[op]
    runs = [("reference", torch.float64, "cpu")]  # which alone computes in float64
    runs += [(impl, dtype, "cpu") for impl in implementations_here(op) for dtype in HALF_AND_SINGLE]
    if os.environ.get("TRITON_INTERPRET") == "1":
        return runs
    if "cuda" in implementations:
        runs += [("cuda", dtype, "host emulation") for dtype in HALF_AND_SINGLE]
    on_gpu = [*(impl for impl in implementations if impl != "cpu"), "auto"]
    return [
        *runs,
        *(
            pytest.param(impl, dtype, "gpu", marks=pytest.mark.gpu)
            for impl in on_gpu
            for dtype in HALF_AND_SINGLE
        ),
    ]


@contextlib.contextmanager
def unsupported_is_skipped(op: str, impl: str) -> Iterator[None]:
    """A skip where the implementation's own `unsupported` gives a reason, and for no other error."""
    if impl == "auto":
        yield
        return
    module, reasons = _dispatch.load(op, impl), []

    def noted(inputs):
        reasons.append(asked(inputs))
        return reasons[-1]

    asked = module.unsupported
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "unsupported", noted)
        try:
            yield
        except NotImplementedError:
            if any(reasons):
                pytest.skip(f"{op}, {impl}: {next(filter(None, reasons))}")
            raise
