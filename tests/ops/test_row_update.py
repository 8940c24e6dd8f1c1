"""Row-wise optimiser steps: the touched rows move as they should, no other row at all.

The contract is rule x implementation x case x dtype against fp64; the rest are properties.
"""

import os
import subprocess
import sys
from functools import cache

import pytest
import torch
from helpers_device import HALF_AND_SINGLE, device_of, runs_of
from helpers_softmax import assert_as_exact_as_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop import ops, optim
from fastpop.ops._dispatch import IMPLEMENTATIONS

# Of "cuda" its host emulation, in the contract; its properties: test_row_update_on_device.py.
IMPLS = sorted(set(IMPLEMENTATIONS["row_update"]) - {"cuda"})
LR, BETAS, EPS = 0.3, (0.9, 0.999), 1e-8
STATE = {"sgd": (), "adagrad": ("square",), "adam": ("mean", "square", "step")}


def problem(items=50, dim=24, ids=(7, 3, 7, 49, 0, 3, 3), seed=0, size=1.0):
    """A table in use: moments of steps made before, of each row another number."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return size * torch.randn(shape, generator=generator, dtype=torch.float64)

    ids = torch.as_tensor(ids, dtype=torch.int64)
    step = torch.randint(1, 40, (items,), generator=generator)
    step[::3] = 0
    used = step > 0
    return {
        "table": normal(items, dim),
        "ids": ids,
        "rows": normal(len(ids), dim),
        "mean": 0.1 * normal(items, dim) * used[:, None],
        "square": 0.01 * normal(items).square() * used,
        "step": step,
    }


def many(num=3000, items=700, dim=24, seed=0):
    """Enough numbers to wake a team, with a run of equal ids across its boundaries."""
    ids = torch.randint(items, (num,), generator=torch.Generator().manual_seed(seed))
    ids[num // 4 : num // 2] = 5
    return problem(items, dim, ids)


def in_order(inputs):
    order = inputs["ids"].argsort(stable=True)
    return inputs | {"ids": inputs["ids"][order], "rows": inputs["rows"][order]}


def long_in_use():
    inputs = problem(items=8, ids=range(8))
    inputs["step"] = torch.tensor([0, 62, 63, 64, 4095, 10**6, 2**24 - 1, 2**40])
    inputs["square"] += 0.01
    return inputs


def non_contiguous():
    """The table and the mean are columns of something wider; ids and gradients have strides."""
    inputs = problem(dim=20, ids=torch.arange(14).repeat_interleave(2)[::2] * 3)
    for name in ("table", "mean"):
        wide = inputs[name].new_full((50, 31), 9.0)
        wide[:, 4:24] = inputs[name]
        inputs[name] = wide[:, 4:24]
    inputs["rows"] = inputs["rows"].T.contiguous().T
    return inputs


CASES = {
    "whole vectors, ids in order": lambda: problem(64, 128, range(3, 60)),
    "ragged dimension, repeated ids out of order": problem,
    "more dimensions than a tile": lambda: problem(dim=131),
    "repeated ids in order": lambda: in_order(problem()),
    "distinct ids out of order": lambda: problem(ids=(9, 4, 31, 0)),
    "one row": lambda: problem(ids=(11,)),
    "no row": lambda: problem(ids=()),
    "one item, many gradients": lambda: problem(items=1, ids=[0] * 500),
    "one dimension": lambda: problem(dim=1),
    "a team": many,
    "a team, ids in order": lambda: in_order(many()),
    "rows of all ages": long_in_use,
    "gradients near 0": lambda: problem(size=1e-3),
    "one gradient for all rows": lambda: (lambda inputs: inputs | {"rows": inputs["rows"][:1].expand(7, -1)})(
        problem()
    ),
    "non-contiguous inputs": non_contiguous,
    "8 lanes, 16-byte loads, D 64": lambda: problem(dim=64),
    "8 lanes, 16-byte loads, D 256": lambda: problem(dim=256),
    "32 lanes, 16-byte loads, D 1024": lambda: problem(dim=1024),
    "32 lanes, number by number, D 333": lambda: problem(dim=333),
    "many chunks of the sum, D 256": lambda: many(dim=256),
}


def expected(rule, inputs, dtype):
    """(table, mean, square, step) after the step, every row written out at `dtype`."""
    table, rows, mean, square = (inputs[name].to(dtype) for name in ("table", "rows", "mean", "square"))
    ids, touched = inputs["ids"], torch.zeros(len(table), dtype=torch.bool)
    touched[ids] = True
    grad = torch.zeros_like(table).index_add(0, ids, rows)
    if rule == "sgd":
        return table - LR * grad, mean, square, inputs["step"]
    mean_square = grad.square().mean(1)
    if rule == "adagrad":
        square = square + mean_square
        moved = LR * grad / (square.sqrt() + EPS)[:, None]
        return torch.where(touched[:, None], table - moved, table), mean, square, inputs["step"]
    step = inputs["step"] + touched
    mean = torch.where(touched[:, None], BETAS[0] * mean + (1 - BETAS[0]) * grad, mean)
    square = torch.where(touched, BETAS[1] * square + (1 - BETAS[1]) * mean_square, square)
    first, second = (1 - beta ** step.to(torch.float64) for beta in BETAS)
    root = (square / second.to(dtype)).sqrt() + EPS
    moved = LR * (mean / first.to(dtype)[:, None]) / root[:, None]
    return torch.where(touched[:, None], table - moved, table), mean, square, step


def run(rule, inputs, impl="auto", device="cpu"):
    """The step, on `device`; what it changes there is changed here."""
    if device != "cpu":
        there = {name: value.to(device) for name, value in inputs.items()}
        run(rule, there, impl, "cpu")
        for name in ("table", "mean", "square", "step"):
            inputs[name].copy_(there[name])
        return
    state = [inputs[name] for name in STATE[rule]]
    options = {"sgd": {}, "adagrad": {"eps": EPS}, "adam": {"eps": EPS, "betas": BETAS}}[rule]
    op = {"sgd": ops.row_sgd_, "adagrad": ops.row_adagrad_, "adam": ops.row_adam_}[rule]
    op(inputs["table"], inputs["ids"], inputs["rows"], *state, lr=LR, impl=impl, **options)


def fresh(inputs, dtype):
    """Copies, in the layout they came in; floats of the table and gradients at `dtype`."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    copies = {}
    for name, value in inputs.items():
        kind = {"table": dtype, "rows": dtype, "mean": wide, "square": wide}.get(name, value.dtype)
        copy = torch.empty(max(1, value.untyped_storage().nbytes() // value.element_size()), dtype=kind)
        copies[name] = copy.fill_(9).as_strided(value.shape, value.stride(), value.storage_offset())
        if 0 in value.stride():
            copies[name] = value.to(kind)[:1].expand(value.shape)
        else:
            copies[name].copy_(value)
    return copies


@cache
def question(case):
    """A case's inputs, which nobody changes: `fresh` copies them."""
    return CASES[case]()


@cache
def answers(rule, dtype, case):
    """What a step has to come to, in float64 and in plain torch, once for all implementations, paths and
    numbers of threads."""
    inputs = fresh(question(case), dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return expected(rule, inputs, torch.float64), expected(rule, inputs, wide)


def check_contract(rule, impl, dtype, case, device="cpu"):
    inputs = fresh(question(case), dtype)
    truth, plain = answers(rule, dtype, case)
    before = {name: value.clone() for name, value in inputs.items()}
    run(rule, inputs, impl, device)
    for at, name in enumerate(("table", "mean", "square")):
        out_dtype = inputs[name].dtype
        assert_as_exact_as_reference(
            inputs[name], plain[at].to(out_dtype), truth[at], out_dtype, f"{rule} {name}"
        )
    assert torch.equal(inputs["step"], truth[3])
    rest = torch.ones(len(inputs["table"]), dtype=torch.bool)
    rest[inputs["ids"]] = False
    for name in ("table", "mean", "square"):
        assert torch.equal(inputs[name][rest], before[name][rest]), f"an untouched row of {name} moved"
    for name in {"mean", "square", "step"} - set(STATE[rule]) | {"ids", "rows"}:
        assert torch.equal(inputs[name], before[name])
    if inputs["table"].shape[1] == 20:  # a view: what stands around it stays
        around = inputs["table"].as_strided((50, 31), (31, 1), 0)
        assert (around[:, :4] == 9).all()
        assert (around[:, 24:] == 9).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("impl", "dtype", "where"), runs_of("row_update"), ids=str)
@pytest.mark.parametrize("rule", STATE)
def test_a_step_against_fp64(monkeypatch, rule, impl, dtype, where, case):
    check_contract(rule, impl, dtype, case, device_of(where, monkeypatch))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_path_of_the_processor_on_any_number_of_threads(path, threads, number):
    threads(number)
    for rule in STATE:
        for case in CASES:
            for dtype in HALF_AND_SINGLE:
                check_contract(rule, "cpu", dtype, case)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("rule", STATE)
def test_threads_change_no_bit(threads, rule, impl):
    results = []
    for number in (1, 2, 3, 3):
        threads(number)
        inputs = fresh(many(), torch.float32)
        run(rule, inputs, impl)
        results.append(inputs)
    for other in results[1:]:
        assert all(torch.equal(other[name], results[0][name]) for name in other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_rounded_as_torch_rounds_them(path, dtype):
    """A step of 0 from a table of 0 by gradients g at lr 1 stores -g."""
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0))
    edges = torch.tensor(
        [
            0.0,
            65519.0,
            65520.0,
            65504.0,
            2.0**-24,
            2.0**-25,
            1.5 * 2.0**-25,
            2.0**-14 - 2.0**-26,
            1 + 2.0**-11,
            1 + 3 * 2.0**-11,
            1 + 2.0**-8,
            1 + 3 * 2.0**-8,
            3.4e38,
            torch.inf,
            torch.nan,
        ]
    )
    small = torch.randn(50_000, generator=torch.Generator().manual_seed(1)) * 2.0**-15
    number = torch.cat([bits.to(torch.int32).view(torch.float32), edges, -edges, small])
    for dim in (number.numel(), 1):  # whole vectors, and the scalar path of a last column
        table = torch.zeros(number.numel() // dim, dim, dtype=dtype)
        ops.row_sgd_(table, torch.arange(len(table)), number.view(table.shape), lr=1.0, impl="cpu")
        torch.testing.assert_close(table.view(-1), (0 - number).to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("impl", IMPLS)
def test_ids_above_2_to_the_24(impl):
    last = 2**24 + 9
    table, square = torch.ones(last + 1, 1), torch.zeros(last + 1)
    ids = torch.tensor([last, 2**24 + 1, last])
    ops.row_adagrad_(table, ids, torch.tensor([[1.0], [3.0], [1.0]]), square, lr=0.5, impl=impl)
    assert (table != 1).nonzero()[:, 0].tolist() == [2**24 + 1, last]
    assert square[[2**24 + 1, last]].tolist() == [9, 4]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    num=st.integers(0, 60),
    dim=st.integers(1, 70),
    rule=st.sampled_from(sorted(STATE)),
    impl=st.sampled_from(IMPLS),
)
def test_the_order_of_distinct_ids_and_where_they_are_split_change_no_bit(seed, num, dim, rule, impl):
    generator = torch.Generator().manual_seed(seed)
    given_ids = torch.randperm(60, generator=generator)[:num]
    whole = fresh(problem(60, dim, given_ids, seed), torch.float32)
    ordered, parts = fresh(in_order(whole), torch.float32), fresh(whole, torch.float32)
    run(rule, whole, impl)
    run(rule, ordered, impl)
    for part in (slice(None, num // 2), slice(num // 2, None)):
        run(rule, parts | {"ids": parts["ids"][part], "rows": parts["rows"][part]}, impl)
    for name in ("table", "mean", "square", "step"):
        assert torch.equal(whole[name], ordered[name])
        assert torch.equal(whole[name], parts[name])


def test_a_bad_id_changes_nothing():
    for impl in IMPLS:
        for ids in ([3, 1, 50], [0, 1, 50], [-1, 2, 3], [2, -7, 50]):
            inputs = fresh(problem(ids=ids), torch.float32)
            before = {name: value.clone() for name, value in inputs.items()}
            bad = next(i for i, id in enumerate(ids) if not 0 <= id < 50)
            with pytest.raises(
                ValueError,
                match=rf"ids: expected ids in \[0, 50\); got {ids[bad]} at "
                rf"position {bad}",
            ):
                run("adam", inputs, impl)
            assert all(torch.equal(inputs[name], before[name]) for name in inputs)


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "reference"])
def test_what_is_refused_is_named(impl):
    with pytest.raises(NotImplementedError, match=f"{impl}: table is float64"):
        run("sgd", problem(), impl)
    inputs = fresh(problem(), torch.float32)
    across = inputs | {"table": inputs["table"].T.contiguous().T}
    with pytest.raises(NotImplementedError, match=rf"{impl}: table has strides \[1, 50\]"):
        run("sgd", across, impl)
    with pytest.raises(NotImplementedError, match=f"{impl}: square is not contiguous"):
        run("adagrad", inputs | {"square": torch.zeros(100)[::2]}, impl)
    run("sgd", across)  # auto goes on to the reference
    run("sgd", inputs)
    torch.testing.assert_close(across["table"], inputs["table"])


@pytest.mark.parametrize("impl", IMPLS)
def test_autograd_sees_that_a_saved_table_changed(impl):
    table = torch.randn(20, 6, requires_grad=True)
    loss = (table * table).sum()
    ops.row_sgd_(table, torch.tensor([1]), torch.ones(1, 6), lr=0.1, impl=impl)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_fresh_memory_is_not_read():
    """The same bits where malloc returns bytes of 0x7f, 3e38 as numbers."""
    code = """
import hashlib, torch, test_row_update as t
digest = hashlib.sha256()
for case in t.CASES:
    for rule in t.STATE:
        for dtype in t.HALF_AND_SINGLE:
            inputs = t.fresh(t.CASES[case](), dtype)
            t.run(rule, inputs, "cpu")
            for name in ("table", "mean", "square", "step"):
                digest.update(inputs[name].double().contiguous().numpy().tobytes())
print(digest.hexdigest())
"""
    folder = os.path.dirname(__file__)
    path = os.pathsep.join(filter(None, [folder, os.path.dirname(folder), os.environ.get("PYTHONPATH")]))
    seen = {
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            env=os.environ | more | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for more in ({}, {"MALLOC_PERTURB_": "128"})
    }
    assert len(seen) == 1


@pytest.mark.parametrize("rule", STATE)
def test_as_torch_operators(rule):
    """opcheck, and torch.compile without a graph break."""
    inputs = fresh(many(num=200), torch.float32)
    numbers = {"sgd": (), "adagrad": (EPS,), "adam": (*BETAS, EPS)}[rule]
    state = [inputs[name] for name in STATE[rule]]
    operator = getattr(torch.ops.fastpop, f"row_{rule}").default
    torch.library.opcheck(
        operator, (inputs["table"], inputs["ids"], inputs["rows"], *state, LR, *numbers, "auto")
    )

    def step(inputs):
        run(rule, inputs | {"rows": 2 * inputs["rows"]})
        return inputs["table"].sum()

    plain, traced = (fresh(many(num=200), torch.float32) for _ in range(2))
    want, got = step(plain), torch.compile(step, fullgraph=True)(traced)
    torch.testing.assert_close(got, want)
    assert all(torch.equal(plain[name], traced[name]) for name in plain)


def table_and_rows(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(20, 6, generator=generator, dtype=dtype)
    ids = torch.tensor([4, 9, 4, 0, 9, 9])
    rows = torch.randn(6, 6, generator=generator, dtype=dtype)
    return table, ids, rows


def summed(ids, rows):
    dense = torch.zeros(20, rows.shape[1], dtype=rows.dtype).index_add(0, ids, rows)
    return dense, torch.tensor([0, 4, 9])


def test_sgd_is_index_add():
    table, ids, rows = table_and_rows()
    expected = table.index_add(0, ids, rows, alpha=-0.3)
    ops.row_sgd_(table, ids, rows, lr=0.3)
    torch.testing.assert_close(table, expected)


def test_adagrad_squares_the_sum_of_duplicates():
    table, ids, rows = table_and_rows()
    before, square = table.clone(), torch.zeros(20)
    dense, touched = summed(ids, rows)
    for _ in range(3):
        ops.row_adagrad_(table, ids, rows, square, lr=0.1)
    expected_square = 3 * dense.square().mean(1)
    torch.testing.assert_close(square, expected_square)
    steps = sum((k * dense.square().mean(1)).rsqrt() for k in (1, 2, 3))
    expected = before[touched] - 0.1 * steps[touched, None] * dense[touched]
    torch.testing.assert_close(table[touched], expected)
    rest = [i for i in range(20) if i not in touched.tolist()]
    assert torch.equal(table[rest], before[rest])


def test_adam_with_equal_columns_is_adam():
    """Where all columns of a row have the same gradient, one second moment a row is Adam's."""
    table, ids, _ = table_and_rows(dtype=torch.float64)
    rows = torch.randn(6, 1, dtype=torch.float64).expand(6, 6).contiguous()
    dense, touched = summed(ids, rows)
    twin = table.clone().requires_grad_()
    adam = torch.optim.Adam([twin], lr=0.01)
    mean, square = torch.zeros(20, 6, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
    step = torch.zeros(20, dtype=torch.int64)
    for _ in range(5):
        ops.row_adam_(table, ids, rows, mean, square, step, lr=0.01)
        twin.grad = dense.clone()
        adam.step()
    torch.testing.assert_close(table[touched], twin.detach()[touched])
    assert step[touched].tolist() == [5, 5, 5]
    assert step.sum() == 15


@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
@pytest.mark.parametrize("shape", [(20, 6), (20,)])
def test_sparse_and_dense_gradients_agree_where_they_touch(kind, shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    sparse, dense = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [kind([sparse], lr=0.1), kind([dense], lr=0.1)]
    for _ in range(3):
        ids = torch.tensor([3, 7, 3])
        rows = torch.randn((3, *shape[1:]), generator=generator)
        sparse.grad = torch.sparse_coo_tensor(ids[None], rows, shape)
        dense.grad = torch.zeros(shape).index_add(0, ids, rows)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(sparse[[3, 7]], dense[[3, 7]])
    rest = [i for i in range(20) if i not in (3, 7)]
    assert torch.equal(sparse[rest].detach(), start[rest])


def test_a_gradient_in_order_is_not_sorted_again(monkeypatch):
    """Autograd drops the coalesced flag of a sparse gradient: no optimiser asks for it."""

    def refuse(*_):
        raise AssertionError("coalesced")

    monkeypatch.setattr(torch.Tensor, "coalesce", refuse)
    table = torch.nn.Parameter(torch.ones(20, 6))
    table.grad = torch.sparse_coo_tensor([[3, 7, 7]], torch.ones(3, 6), (20, 6))
    optim.RowAdagrad([table], lr=0.1).step()
    torch.testing.assert_close(table[[3, 7]].detach(), torch.full((2, 6), 0.9))


@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
def test_optimizers_learn(kind):
    target = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    table = torch.nn.Parameter(torch.zeros(20, 6))
    optimizer = kind([table], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (table - target).square().sum().backward()
        optimizer.step()
    assert (table - target).square().mean() < 1e-2


def test_state_survives_a_state_dict():
    start = torch.randn(20, 6)
    one, two = (torch.nn.Parameter(start.clone()) for _ in range(2))
    first, second = optim.RowAdam([one], lr=0.1), optim.RowAdam([two], lr=0.1)
    one.grad = torch.randn(20, 6)
    two.grad = one.grad.clone()
    first.step()
    second.step()
    third = optim.RowAdam([two], lr=0.1)
    third.load_state_dict(second.state_dict())
    first.step()
    third.step()
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"ids": torch.tensor([20])}, ValueError, "ids: expected ids in [0, 20); got 20"),
        ({"ids": torch.tensor([1.0])}, TypeError, "ids: expected an int64 tensor"),
        ({"rows": torch.zeros(1, 5)}, ValueError, "rows: expected shape [1, 6]"),
        ({"rows": torch.zeros(1, 6, dtype=torch.int64)}, TypeError, "rows: expected a [n, D] float tensor"),
        ({"impl": "cublas"}, ValueError, "impl: expected one of 'auto'"),
        ({"lr": -1.0}, ValueError, "lr: expected a finite number >= 0; got -1.0"),
        ({"table": torch.zeros(3)}, ValueError, "table: expected shape [V, D]"),
    ],
)
def test_bad_input_gets_one_clear_error(change, kind, message):
    given = {
        "table": torch.zeros(20, 6),
        "ids": torch.tensor([1]),
        "rows": torch.zeros(1, 6),
        "lr": 0.1,
    } | change
    with pytest.raises(kind) as caught:
        ops.row_sgd_(**given)
    assert message in str(caught.value)
