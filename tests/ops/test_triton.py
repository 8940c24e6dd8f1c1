"""The Triton kernels: the contract suite and their properties, in processes that have the interpreter.

TRITON_INTERPRET=1 must be set before triton is imported, so this process never has it. What the
interpreter hides (races, real matrix instructions) is left to tests/kernels/test_triton_compile.py and
to the tests marked gpu.
"""

from pathlib import Path

import pytest
import torch
from helpers_device import HALF_AND_SINGLE, gpu
from helpers_interpreted import interpreted
from helpers_softmax import loss_and_gradients
from ops import test_sampled_softmax

from fastpop import ops
from fastpop.ops import _dispatch

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton", reason="triton is not installed")


# Skipped: 2000 dimensions. (The sampled softmax, which takes longest, is test_triton_sampled.py.)
@pytest.mark.parametrize(
    ("file", "skipped"),
    [
        ("test_full_softmax.py", 3),
        ("test_top_items.py", 0),
        ("test_target_ranks.py", 3),
        ("interpreted_triton.py", 0),
        ("interpreted_triton_merged.py", 0),
    ],
)
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
    with pytest.raises(NotImplementedError, match="triton: the tensors are on cpu"):
        ops.top_items(query, items, 1, impl="triton")
    with pytest.raises(NotImplementedError, match="triton: the tensors are on cpu"):
        ops.target_ranks(query, items, [0, 1, 2], ids, impl="triton")


def test_a_machine_without_triton_is_told_so(monkeypatch):
    def missing(op, impl):
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(_dispatch, "load", missing)
    with pytest.raises(NotImplementedError, match="triton: the package triton is not installed"):
        _dispatch.choose("sampled_softmax", "triton", "cuda", None)


@pytest.mark.gpu
@pytest.mark.parametrize("group_size", [None, 128])
def test_on_a_gpu_it_repeats_bit_for_bit_and_never_waits(group_size):
    gpu()
    wanted = ("query", "items", "log_prior", "scale", "prior_weight")
    made = test_sampled_softmax.with_draw(group_size, rows=4099, items=50_000, dim=128, negatives=1031)
    made |= {"accidental_hits": "drop", "sparse_grad": True}
    inputs = {
        name: value.float().cuda()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value.cuda()
        if isinstance(value, torch.Tensor)
        else value
        for name, value in made.items()
    }
    first = loss_and_gradients(lambda **given: ops.sampled_softmax(**given, impl="triton"), inputs, wanted)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = ops.sampled_softmax(
            **inputs | {name: inputs[name].requires_grad_() for name in wanted}, impl="triton"
        )
        (loss * torch.arange(1, 4100, device="cuda") / (4099 * 2050)).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(loss, first[0])
    second = loss_and_gradients(lambda **given: ops.sampled_softmax(**given, impl="triton"), inputs, wanted)
    assert all(torch.equal(first[1][name], second[1][name]) for name in wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF_AND_SINGLE, ids=str)
def test_on_a_gpu_top_items_repeat_bit_for_bit_whatever_the_neighbours_and_never_wait(dtype):
    """That both kernels make a score of the same bits shows in duplicates: they stay in order of id."""
    gpu()
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(rows, 96, generator=generator).to("cuda", dtype) for rows in (3001, 40_000))
    items = items.repeat(2, 1)
    triton = _dispatch.load("top_items", "triton")
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, second = (triton.forward(triton.Inputs(query, items, 60, None, 0.3)) for _ in range(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    parts = [
        torch.cat(part)
        for part in zip(
            *(ops.top_items(some, items, 60, scale=0.3, impl="triton") for some in query.split(700))
        )
    ]
    for item_id, score in (second, parts):
        assert torch.equal(item_id, first[0])
        assert torch.equal(score, first[1])
    assert (first[0][:, 0::2] + 40_000 == first[0][:, 1::2]).all()
    assert torch.equal(first[1][:, 0::2], first[1][:, 1::2])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF_AND_SINGLE, ids=str)
def test_on_a_gpu_ranks_never_wait_and_stand_where_top_items_lists_them(dtype):
    gpu()
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(rows, 96, generator=generator).to("cuda", dtype) for rows in (301, 20_000))
    items = items.repeat(2, 1)
    listed, score = ops.top_items(query, items, 50, scale=0.3, impl="triton")
    offsets, seen = torch.arange(302, device="cuda"), torch.arange(301, device="cuda")
    inputs = (query, items, 50 * offsets, listed.reshape(-1), None, 0.3, offsets, seen)
    triton = _dispatch.load("target_ranks", "triton")
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, second = (triton.forward(triton.Inputs(*inputs)) for _ in range(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(one, other) for one, other in zip(first, second))
    assert torch.equal(first[2].view(301, 50), score)
    place = torch.arange(50, device="cuda").repeat(301)
    # An excluded item stood before some.
    assert (first[0] <= place).all()
    assert (place <= first[0] + first[1] + 1).all()
