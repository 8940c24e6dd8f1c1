"""Tables lie on huge pages where the system gives them, with the numbers that they had without."""

import re
from pathlib import Path

import helpers_poison
import pytest
import torch
from torch import nn

from fastpop import ops, optim, pages, tables
from fastpop.data import columns

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def advised_bytes(tensor):
    """Bytes of a tensor for which huge pages are asked; the system may have none left."""
    first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    inside, total = 0, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = max(0, min(int(found[2], 16), last) - max(int(found[1], 16), first))
        elif inside and line.startswith("VmFlags:") and "hg" in line.split():
            total += inside
    return total


def test_huge_pages_are_asked_for_a_large_table_and_its_state(monkeypatch):
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        pytest.skip("this system gives no huge pages")
    monkeypatch.setattr(torch, "empty", helpers_poison._torch_empty)  # tests write what is fresh at once
    table = tables.normal_table(200_000, 32)
    assert advised_bytes(table) >= table.nbytes - 2 * (2 << 20)
    table.grad = torch.sparse_coo_tensor(torch.tensor([[5]]), torch.ones(1, 32), table.shape)
    optimizer = optim.RowAdam([table])
    optimizer.step()
    mean = optimizer.state[table]["mean"]
    assert advised_bytes(mean) >= mean.nbytes - 2 * (2 << 20)
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


def test_tables_of_every_kind_start_with_the_same_numbers(monkeypatch):
    monkeypatch.setattr(columns, "ON_DISK", 1000)
    made = {}
    for dtype in ("float32", "bfloat16"):
        for storage in ("memory", "disk"):
            torch.manual_seed(3)
            made[dtype, storage] = tables.normal_table(70_000, 16, 0.5, tables.TableKind(dtype, storage))
    first = made["float32", "memory"]
    assert torch.equal(first, made["float32", "disk"])
    assert torch.equal(first.bfloat16(), made["bfloat16", "memory"])
    assert torch.equal(first.bfloat16(), made["bfloat16", "disk"])
    assert made["bfloat16", "disk"].dtype == torch.bfloat16


@pytest.mark.parametrize("over", [0, 5, 16])  # numbers of the last piece beyond whole ones
def test_rows_of_a_table_have_the_numbers_of_the_whole(monkeypatch, over):
    monkeypatch.setattr(tables, "PIECE", 1 << 12)
    num_rows = (3 << 12) + over
    for kind in (tables.PLAIN, tables.TableKind("bfloat16")):
        torch.manual_seed(3)
        whole = tables.normal_table(num_rows, 1, 0.5, kind)
        after = torch.get_rng_state()
        for rows in (slice(0, 7), slice(4000, 9000), slice(num_rows - 3, num_rows), slice(9, 9)):
            torch.manual_seed(3)
            part = tables.normal_table(num_rows, 1, 0.5, kind, rows)
            assert torch.equal(part, whole[rows])
            assert part.untyped_storage().nbytes() == part.nbytes
            assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(3)
    few = tables.normal_table(3, 5)
    torch.manual_seed(3)
    assert torch.equal(tables.normal_table(3, 5, rows=slice(1, 3)), few[1:3])


def test_state_of_a_table_on_disk_is_there_too(monkeypatch):
    monkeypatch.setattr(columns, "ON_DISK", 1000)
    table = tables.normal_table(5000, 8, kind=tables.TableKind(storage="disk"))
    file = re.compile(r"^\S+ rw-s .*\(deleted\)$", re.MULTILINE)
    before = len(file.findall(Path("/proc/self/maps").read_text()))
    plain = tables.normal_table(5000, 8)
    optimizer = optim.RowAdam([table, plain])
    for one in (table, plain):
        one.grad = torch.sparse_coo_tensor(torch.tensor([[5, 9]]), torch.ones(2, 8), table.shape)
    with torch.no_grad():
        plain.copy_(table)
    optimizer.step()
    assert torch.equal(table, plain)
    assert (optimizer.state[table]["mean"] == optimizer.state[plain]["mean"]).all()
    assert len(file.findall(Path("/proc/self/maps").read_text())) > before
    assert not hasattr(plain, "storage_kind")


@pytest.mark.parametrize("impl", ["cpu", "reference"])
@pytest.mark.parametrize("rule", ["sgd", "adagrad", "adam"])
def test_rounding_at_random_has_the_bits_of_the_specification(rule, impl):
    generator = torch.Generator().manual_seed(0)
    num_items, dim = 90, 21
    table = torch.randn(num_items, dim, generator=generator).bfloat16()
    ids = torch.tensor([3, 88, 3, 7, 0])
    rows = torch.randn(5, dim, generator=generator)
    state = {"sgd": (), "adagrad": (torch.ones(num_items),)}.get(
        rule, (torch.zeros(num_items, dim), torch.zeros(num_items), torch.zeros(num_items, dtype=torch.int64))
    )
    run = getattr(ops, f"row_{rule}_")

    def stepped(**options):
        changed = table.clone()
        run(changed, ids, rows, *(one.clone() for one in state), lr=0.01, impl=impl, **options)
        return changed

    wide = table.float()
    run(wide, ids, rows, *(one.clone() for one in state), lr=0.01, impl=impl)
    nearest, drawn = stepped(), stepped(rounding=(5, 2**33 + 1))
    assert torch.equal(drawn, stepped(rounding=(5, 2**33 + 1)))
    assert not torch.equal(drawn, stepped(rounding=(5, 1)))
    assert not torch.equal(drawn, stepped(rounding=(6, 2**33 + 1)))
    low = (wide.view(torch.int32) & -0x10000).view(torch.float32)
    high = ((wide.view(torch.int32) & -0x10000) + 0x10000).view(torch.float32)
    assert ((drawn == low.bfloat16()) | (drawn == high.bfloat16())).all()
    assert not torch.equal(drawn, nearest)
    untouched = torch.ones(num_items, dtype=torch.bool)
    untouched[ids] = False
    assert torch.equal(drawn[untouched], table[untouched])
    if impl == "cpu":  # the same words; numbers may differ in the last bit of float32
        other = table.clone()
        options = {"lr": 0.01, "impl": "reference", "rounding": (5, 2**33 + 1)}
        run(other, ids, rows, *(one.clone() for one in state), **options)
        assert (other != drawn).sum() <= 1


def test_rounding_at_random_is_right_on_average_where_nearest_stands_still():
    value, step = 1.0, 2.0**-12  # bfloat16 has 2^-7 or 2^-8 beside 1
    drawn, nearest = (torch.full((1, 4096), value, dtype=torch.bfloat16) for _ in range(2))
    id_1, row_1D = torch.zeros(1, dtype=torch.int64), torch.full((1, 4096), -1.0)
    for number in range(64):
        ops.row_sgd_(drawn, id_1, row_1D, lr=step, rounding=(1, number))
        ops.row_sgd_(nearest, id_1, row_1D, lr=step)
    assert (nearest == value).all()
    error = drawn.float().std().item() / 4096**0.5
    assert abs(drawn.float().mean().item() - (value + 64 * step)) < 4 * error


def test_what_is_no_number_stays_what_it_is():
    table = torch.tensor([[torch.inf, -torch.inf, torch.nan, 0.0]]).bfloat16()
    before = table.clone()
    zero = torch.zeros(1, 4)
    for impl in ("cpu", "reference"):
        ops.row_sgd_(table, torch.zeros(1, dtype=torch.int64), zero, lr=1.0, rounding=(0, 0), impl=impl)
        assert torch.equal(table.nan_to_num(9.0), before.nan_to_num(9.0))


@pytest.mark.parametrize(
    ("rounding", "message"),
    [((1,), "rounding: expected"), ((-1, 0), "rounding seed"), ((0, 0.5), "rounding step"), (3, "rounding")],
)
def test_bad_rounding_is_named(rounding, message):
    half, id_1 = torch.zeros(2, 4, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int64)
    with pytest.raises((TypeError, ValueError), match=message):
        ops.row_sgd_(half, id_1, torch.zeros(1, 4), lr=1.0, rounding=rounding)
    with pytest.raises(ValueError, match="a bfloat16 table; got one of float32"):
        ops.row_sgd_(torch.zeros(2, 4), id_1, torch.zeros(1, 4), lr=1.0, rounding=(0, 0))
