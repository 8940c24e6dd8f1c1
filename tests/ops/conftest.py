"""What all tests of the ops need."""

import os

import pytest
import torch

from fastpop.kernels import native

if os.environ.get("TRITON_INTERPRET") == "1":
    import helpers_interpreter

    helpers_interpreter.mend_index()
    helpers_interpreter.mend_bfloat16()
    helpers_interpreter.mend_speed()


@pytest.fixture(autouse=True)
def threads_at_any_size(monkeypatch):
    """Small shapes would run on one thread; here every size uses all of torch's."""
    monkeypatch.setattr(native, "WORK_A_THREAD", 1)


@pytest.fixture
def threads():
    """torch.set_num_threads, whose effect ends with the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=native.PATHS)
def path(request, monkeypatch):
    """Each path of the CPU kernels in turn; those that the processor lacks are skipped by name."""
    if not native.has_path(request.param):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setattr(native, "path", request.param)
    return request.param
