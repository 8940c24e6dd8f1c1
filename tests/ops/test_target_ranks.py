"""target_ranks against counting in fp64, and its properties."""

import numpy as np
import pytest
import torch
from helpers_device import device_of, runs_of, unsupported_is_skipped
from helpers_softmax import implementations_here, on
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.test_top_items import biased, csr, problem

from fastpop import ops
from fastpop.kernels.target_ranks import reference

IMPLS = implementations_here("target_ranks")


def by_counting(
    query, items, target_offsets, target_item, bias=None, scale=1.0, exclude_offsets=None, exclude_item=None
):
    """The definition, target by target."""
    score = scale * query.double() @ items.double().T
    if bias is not None:
        score = biased(score, bias)
    greater, equal, own = [], [], []
    for row, score_V in enumerate(score):
        counts = torch.ones(len(score_V), dtype=torch.bool)
        if exclude_offsets is not None:
            counts[exclude_item[exclude_offsets[row] : exclude_offsets[row + 1]]] = False
        for item in target_item[target_offsets[row] : target_offsets[row + 1]]:
            others = counts.clone()
            others[item] = False
            greater.append(int((score_V[others] > score_V[item]).sum()))
            equal.append(int((score_V[others] == score_V[item]).sum()))
            own.append(float(score_V[item]))
    return (
        torch.tensor(greater, dtype=torch.int64),
        torch.tensor(equal, dtype=torch.int64),
        torch.tensor(own, dtype=torch.float64),
        score.logsumexp(1),
    )


def exact(num_rows, num_items, dim, *, seed=0, levels=2, targets=1, seen=0, **options):
    """Integers: exact in every dtype, with ties, removed items whose rows are NaN, ids left out."""
    query, items, bias, _ = problem(seed, num_rows, num_items, dim, levels)
    items[bias == -torch.inf] = torch.nan
    rng = np.random.default_rng(seed)

    def lists(least, most):
        return csr([rng.integers(0, num_items, rng.integers(least, most + 1)) for _ in range(num_rows)])

    target_offsets, target_item = lists(min(targets, 1), targets)
    exclude_offsets, exclude_item = lists(0, seen)
    return {
        "query": query,
        "items": items,
        "target_offsets": target_offsets,
        "target_item": target_item,
        "bias": bias,
        "scale": 0.5,
        "exclude_offsets": exclude_offsets,
        "exclude_item": exclude_item,
    } | options


def without(inputs, *names):
    inputs["items"] = inputs["items"].nan_to_num(1.0)
    return inputs | dict.fromkeys(names)


def targets_left_out():
    inputs = exact(40, 300, 8, targets=3)
    return inputs | {"exclude_offsets": inputs["target_offsets"], "exclude_item": inputs["target_item"]}


def strided():
    inputs = exact(67, 900, 10, seen=5)
    inputs["query"] = inputs["query"].repeat(1, 2)[:, ::2]
    inputs["items"] = inputs["items"].T.contiguous().T
    inputs["bias"] = inputs["bias"].repeat_interleave(2)[::2]
    return inputs


CASES = {
    "whole tiles": lambda: exact(96, 1152, 64, seen=20),
    "ragged rows, items and dimension": lambda: exact(131, 1601, 37, seen=20),
    "more dimensions than a panel": lambda: exact(9, 700, 131),
    "one row": lambda: exact(1, 5000, 16, seen=50),
    "one row, one item, one dimension": lambda: without(exact(1, 1, 1), "bias"),
    "no row": lambda: exact(0, 50, 8),
    "no target": lambda: exact(7, 50, 8, targets=0),
    "rows with and without targets": lambda: (
        exact(70, 400, 8, targets=0)
        | dict(zip(("target_offsets", "target_item"), csr([[3] if row % 3 else [] for row in range(70)])))
    ),
    "fewer items than a tile": lambda: without(exact(70, 5, 8, seen=2), "bias"),
    "many targets a row": lambda: exact(10, 700, 8, targets=900, seen=30),
    "almost all excluded": lambda: exact(20, 300, 8, seen=1500),
    "targets left out themselves": targets_left_out,
    "all equal": lambda: exact(
        66, 4000, 3, levels=0, bias=torch.zeros(4000), seen=40, items=torch.ones(4000, 3)
    ),
    "no bias, nothing excluded": lambda: without(
        exact(65, 1000, 8), "bias", "exclude_offsets", "exclude_item"
    ),
    "everything removed": lambda: exact(5, 700, 4, bias=torch.full((700,), -torch.inf)),
    "rows in blocks: they pass 8 MiB": lambda: exact(1100, 61, 2000, levels=1),
    "non-contiguous inputs": strided,
}


def check_case(impl, dtype, case, device="cpu"):
    inputs = CASES[case]()
    want = by_counting(**inputs)
    for name in ("query", "items"):
        inputs[name] = inputs[name].to(dtype)
    with unsupported_is_skipped("target_ranks", impl):
        found = ops.target_ranks(**on(device, inputs), impl=impl)
    got = ops.TargetRanks(*(one.cpu() for one in found))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert (got.score.dtype, got.lse.dtype) == (wide, wide)
    assert torch.equal(got.greater, want[0]), case
    assert torch.equal(got.equal, want[1]), case
    assert torch.equal(got.score.double(), want[2]), case
    torch.testing.assert_close(got.lse.double(), want[3], rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("impl", "dtype", "where"), runs_of("target_ranks"), ids=str)
def test_small_integers_are_exact(monkeypatch, impl, dtype, where, case):
    check_case(impl, dtype, case, device_of(where, monkeypatch))


@pytest.mark.parametrize("number", [1, 3])
def test_every_path_of_the_processor_on_any_number_of_threads(path, threads, number):
    threads(number)
    for case in CASES:
        check_case("cpu", torch.float32, case)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 9),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(0, 5),
    st.integers(0, 9),
    st.sampled_from(IMPLS),
)
def test_any_shape(seed, num_rows, num_items, dim, targets, seen, impl):
    inputs = exact(num_rows, num_items, dim, seed=seed, targets=targets, seen=seen)
    got, want = ops.target_ranks(**inputs, impl=impl), by_counting(**inputs)
    assert all(torch.equal(one, other) for one, other in zip(got[:2], want[:2]))


def test_tiles_and_blocks_of_the_reference_do_not_show(monkeypatch):
    inputs = exact(30, 200, 4, targets=4, seen=9)
    want = by_counting(**inputs)
    names = (
        "query",
        "items",
        "target_offsets",
        "target_item",
        "bias",
        "scale",
        "exclude_offsets",
        "exclude_item",
    )
    tensors = [torch.as_tensor(inputs[name]) if name != "scale" else 0.5 for name in names]
    monkeypatch.setattr(reference, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(reference, "_TILE_ELEMENTS", 100)
    got = reference.forward(reference.Inputs(*tensors), tile_items=13)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 70])
def test_a_target_stands_where_top_items_lists_it(dtype, num_rows):
    """Real numbers: the same bits in both, else an item could stand above itself."""
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(n, 37, generator=generator).to(dtype) for n in (num_rows, 3000))
    items[1::2] = items[::2]  # every score twice, wherever its tile lies
    items[2500:] = items[:500]
    bias = torch.randn(1500, generator=generator).repeat_interleave(2)
    bias[2500:] = bias[:500]
    listed, score = ops.top_items(query, items, 3000, bias=bias, scale=0.3, impl="cpu")
    offsets = torch.arange(num_rows + 1) * 3000
    found = ops.target_ranks(query, items, offsets, listed.reshape(-1), bias=bias, scale=0.3, impl="cpu")
    assert torch.equal(found.score.view(num_rows, 3000), score)
    assert (found.equal >= 1).all()
    place = torch.arange(3000).repeat(num_rows)
    assert (found.greater <= place).all()
    assert (place <= found.greater + found.equal).all()


def test_threads_and_neighbours_change_no_bit(threads):
    generator = torch.Generator().manual_seed(0)
    query, items = torch.randn(300, 24, generator=generator), torch.randn(8005, 24, generator=generator)
    target = torch.randint(8005, (300,), generator=generator)

    def ranks(rows):
        return ops.target_ranks(
            query[rows], items, torch.arange(len(query[rows]) + 1), target[rows], impl="cpu"
        )

    threads(1)
    first = ranks(slice(None))
    parts = [ranks(slice(start, start + 17)) for start in range(0, 300, 17)]
    for one, *others in zip(first, *parts):
        assert torch.equal(torch.cat(others), one)
    threads(3)
    again = ranks(slice(None))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("impl", IMPLS)
def test_lse_less_score_is_the_loss_of_the_full_softmax(impl):
    generator = torch.Generator().manual_seed(0)
    query, items = torch.randn(50, 24, generator=generator), torch.randn(700, 24, generator=generator)
    bias, target = torch.randn(700, generator=generator), torch.randint(700, (50,), generator=generator)
    found = ops.target_ranks(query, items, torch.arange(51), target, bias=bias, scale=0.7, impl=impl)
    loss = ops.full_softmax(query, items, target, log_prior=bias, scale=0.7, impl="reference")
    torch.testing.assert_close(found.lse - found.score, loss, rtol=2e-6, atol=2e-6)


def test_lists_come_in_any_form():
    inputs = exact(40, 300, 8, targets=3, seen=4)
    want = by_counting(**inputs)
    negated = {
        name: torch._neg_view(torch.as_tensor(-inputs[name]))
        for name in ("bias", "target_offsets", "target_item", "exclude_offsets", "exclude_item")
    }
    read_only = {name: np.array(inputs[name][::-1])[::-1] for name in ("target_item", "exclude_item")}
    for array in read_only.values():
        array.flags.writeable = False
    small = {name: inputs[name].astype(">i4") for name in ("target_offsets", "target_item")}
    for change in (negated, read_only, small):
        got = ops.target_ranks(**inputs | change)
        assert torch.equal(got.greater, want[0])
        assert torch.equal(got.equal, want[1])
    ids, _ = ops.top_items(
        **{
            name: (inputs | negated)[name]
            for name in ("query", "items", "bias", "scale", "exclude_offsets", "exclude_item")
        },
        k=5,
    )
    want_ids, _ = ops.top_items(
        **{
            name: inputs[name]
            for name in ("query", "items", "bias", "scale", "exclude_offsets", "exclude_item")
        },
        k=5,
    )
    assert torch.equal(ids, want_ids)
    nothing = ops.target_ranks(inputs["query"], inputs["items"].nan_to_num(), [0] * 41, [])
    assert len(nothing.greater) == 0
    assert nothing.lse.isfinite().all()


@pytest.mark.parametrize("impl", IMPLS)
def test_no_dimension_leaves_the_bias(impl):
    found = ops.target_ranks(
        torch.ones(2, 0), torch.ones(6, 0), [0, 1, 2], [2, 5], bias=torch.arange(6.0), impl=impl
    )
    assert found.greater.tolist() == [3, 0]
    assert found.score.tolist() == [2.0, 5.0]


@pytest.mark.parametrize("impl", IMPLS)
def test_autocast_changes_nothing(impl):
    inputs = exact(40, 300, 8, targets=3)
    inputs["query"] = inputs["query"] + 2**-12  # what bfloat16 would round away
    want = ops.target_ranks(**inputs, impl=impl)
    listed = {name: inputs[name] for name in ("query", "items", "bias", "scale")} | {"k": 5, "impl": impl}
    want_list = ops.top_items(**listed)
    with torch.autocast("cpu", torch.bfloat16):
        got, got_list = ops.target_ranks(**inputs, impl=impl), ops.top_items(**listed)
    assert all(torch.equal(one, other) for one, other in zip((*got, *got_list), (*want, *want_list)))


@pytest.mark.parametrize("impl", IMPLS)
def test_nan_is_named_by_its_first_row(impl):
    query, items = torch.ones(100, 3), torch.ones(500, 3)
    offsets, target = torch.arange(101), torch.zeros(100, dtype=torch.int64)
    query[[71, 90], 1] = torch.nan
    with pytest.raises(ValueError, match="NaN in row 71"):
        ops.target_ranks(query, items, offsets, target, impl=impl)
    query[:] = 1
    items[13] = torch.nan
    with pytest.raises(ValueError, match="NaN in row 0"):
        ops.target_ranks(query, items, offsets, target, impl=impl)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": np.ones((3, 2))}, TypeError, "query: expected a floating point torch tensor; got numpy"),
        ({"query": torch.ones(3, 2).to_sparse()}, TypeError, "query: expected a dense tensor"),
        ({"items": torch.ones(4, 2, device="meta")}, ValueError, "items: expected a tensor on cpu or cuda"),
        ({"query": torch.ones(3, 2).to(torch.float8_e4m3fn)}, TypeError, "query: expected a floating point"),
        ({"target_item": torch.ones(3).to_sparse()}, TypeError, "target_item: expected a dense tensor"),
        ({"target_item": None}, TypeError, "target_item: expected a 1-d array of int64 .*; got NoneType"),
        (
            {"target_item": [1j, 2j, 3j]},
            TypeError,
            "target_item: expected a 1-d array of int64; got complex128",
        ),
        ({"scale": 10**400}, ValueError, "scale: expected a finite number"),
        ({"scale": 1e300}, ValueError, "scale: expected a number that float32 holds"),
        ({"items": torch.ones(4, 5)}, ValueError, r"items: expected shape \[V, 2\]"),
        ({"target_offsets": [0, 1, 2]}, ValueError, r"target_offsets: expected shape \[4\]"),
        ({"target_offsets": [0, 2, 1, 3]}, ValueError, "target_offsets: expected non-decreasing from 0 to 3"),
        (
            {"target_item": [0, 1, 9]},
            ValueError,
            r"target_item: expected ids in \[0, 4\); got 9 at position 2",
        ),
        ({"target_item": [0.0, 1.0, 2.0]}, TypeError, "target_item: expected a 1-d array of int64"),
        ({"bias": torch.ones(3)}, ValueError, r"bias: expected shape \[4\]"),
        ({"exclude_item": [1]}, ValueError, "exclude_offsets, exclude_item: expected both or neither"),
        ({"scale": float("nan")}, ValueError, "scale: expected a finite number"),
        ({"impl": "cuda"}, NotImplementedError, "cuda: target_ranks has no such implementation"),
        ({"query": torch.ones(3, 2).double(), "impl": "cpu"}, NotImplementedError, "query is float64"),
    ],
)
def test_bad_input(change, error, message):
    inputs = {
        "query": torch.ones(3, 2),
        "items": torch.ones(4, 2),
        "target_offsets": [0, 1, 2, 3],
        "target_item": [0, 1, 2],
    }
    with pytest.raises(error, match=message):
        ops.target_ranks(**inputs | change)
