"""Tables lie on huge pages where the system gives them, with the numbers that they had without."""

import re
from pathlib import Path

import helpers_poison
import pytest
import torch
from torch import nn

from fastpop import optim, pages, tables

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_bytes(tensor):
    """Bytes on huge pages of the mappings that hold a tensor."""
    first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    inside, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) < last and int(found[2], 16) > first
        elif inside and line.startswith("AnonHugePages:"):
            total += 1024 * int(line.split()[1])
    return total


def test_a_large_table_and_its_state_lie_on_huge_pages(monkeypatch):
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        pytest.skip("this system gives no huge pages")
    monkeypatch.setattr(torch, "empty", helpers_poison._torch_empty)  # tests write what is fresh at once
    table = tables.normal_table(200_000, 32)
    assert huge_bytes(table) >= table.nbytes - 2 * (2 << 20)
    table.grad = torch.sparse_coo_tensor(torch.tensor([[5]]), torch.ones(1, 32), table.shape)
    optimizer = optim.RowAdam([table])
    optimizer.step()
    mean = optimizer.state[table]["mean"]
    assert huge_bytes(mean) >= mean.nbytes - 2 * (2 << 20)
    assert mean.count_nonzero() == 32


def test_numbers_are_those_of_the_generator(monkeypatch):
    made = []
    for advised in (True, False):
        if not advised:
            monkeypatch.setattr(pages, "_madvise", lambda: None)
        torch.manual_seed(3)
        made.append(tables.normal_table(70_000, 16, 0.5))
    torch.manual_seed(3)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], nn.init.normal_(torch.empty(70_000, 16), std=0.5))


def test_what_is_small_or_elsewhere_is_left_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *given: asked.append(given))
    pages.on_huge_pages(torch.empty(1000))
    pages.on_huge_pages(torch.empty(1 << 22, device="meta"))
    assert asked == []
    large = torch.empty(pages.LEAST)
    pages.on_huge_pages(large)
    first, size, _ = asked[0]
    assert first % 4096 == 0
    assert large.data_ptr() <= first < first + size == large.data_ptr() + large.nbytes
