"""top_items against a full sort in fp64, and its properties."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_device import device_of, runs_of
from helpers_softmax import implementations_here, on
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop.kernels.top_items import reference
from fastpop.ops.top_items import best_columns, top_items

IMPLS = implementations_here("top_items")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def large_interpreted_tiles(monkeypatch):
    """Triton's interpreter takes as long for a small tile; small ones are in interpreted_triton.py."""
    if INTERPRETED:
        from fastpop.kernels import triton_tiles

        monkeypatch.setattr(triton_tiles, "INTERPRETED_TILE", triton_tiles.Tile(128, 64, 4, 1))


def by_sorting(score_BV, k, exclude=None):
    """The definition: sort (-score, id), leave out what is excluded or -inf, pad with -1."""
    ids, scores = [], []
    for row, score_V in enumerate(score_BV.tolist()):
        banned = set(exclude[row]) if exclude else set()
        order = sorted((-s, i) for i, s in enumerate(score_V) if i not in banned and s > -np.inf)[:k]
        ids.append([i for _, i in order] + [-1] * (k - len(order)))
        scores.append([-s for s, _ in order] + [-np.inf] * (k - len(order)))
    return torch.tensor(ids), torch.tensor(scores, dtype=torch.float64)


def problem(seed, num_rows, num_items, dim, levels):
    """Small integers: exact in every dtype, so ties are real ties."""
    rng = np.random.default_rng(seed)
    query = torch.tensor(rng.integers(-levels, levels + 1, (num_rows, dim)), dtype=torch.float32)
    items = torch.tensor(rng.integers(-levels, levels + 1, (num_items, dim)), dtype=torch.float32)
    bias = torch.tensor(rng.integers(-2, 3, num_items), dtype=torch.float32)
    bias[rng.random(num_items) < 0.1] = -torch.inf
    exclude = [rng.integers(0, num_items, rng.integers(0, num_items)) for _ in range(num_rows)]
    return query, items, bias, exclude


def biased(score, bias):
    return torch.where(bias == -torch.inf, -torch.inf, score + bias.double())


def csr(lists):
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    return offsets, np.concatenate([*lists, np.zeros(0, np.int64)]).astype(np.int64)


@given(
    st.integers(0, 10**6),
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(1, 45),
    st.integers(1, 12),
    st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_equals_a_full_sort_with_ties_bias_and_exclusion(seed, num_rows, num_items, k, tile, excluding):
    query, items, bias, exclude = problem(seed, num_rows, num_items, 3, 2)
    offsets, flat = csr(exclude)
    want_id, want_score = by_sorting(
        2.0 * query.double() @ items.double().T + bias.double(), k, exclude if excluding else None
    )
    inputs = reference.Inputs(
        query,
        items,
        k,
        bias,
        2.0,
        torch.tensor(offsets) if excluding else None,
        torch.tensor(flat) if excluding else None,
    )
    got_id, got_score = reference.forward(inputs, tile_items=tile)
    assert torch.equal(got_id, want_id.reshape(num_rows, k))
    assert torch.equal(got_score.double(), want_score.reshape(num_rows, k))


@pytest.mark.parametrize("impl", IMPLS)
@given(
    st.integers(0, 10**6),
    st.integers(0, 80),
    st.integers(1, 90),
    st.integers(1, 95),
    st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=75, deadline=None)
def test_every_implementation_equals_a_full_sort(impl, seed, num_rows, num_items, k, dim, excluding):
    query, items, bias, exclude = problem(seed, num_rows, num_items, dim, 2)
    offsets, flat = csr(exclude) if excluding else (None, None)
    got_id, got_score = top_items(
        query, items, k, bias=bias, scale=2.0, exclude_offsets=offsets, exclude_item=flat, impl=impl
    )
    score = biased(2.0 * query.double() @ items.double().T, bias)
    want_id, want_score = by_sorting(score, k, exclude if excluding else None)
    assert torch.equal(got_id, want_id.reshape(num_rows, k))
    assert torch.equal(got_score.double(), want_score.reshape(num_rows, k))


def exact(num_rows, num_items, dim, k, *, seed=0, levels=3, seen=0, **options):
    """Integers, with bias, items removed by it, and ids left out."""
    query, items, bias, _ = problem(seed, num_rows, num_items, dim, levels)
    rng = np.random.default_rng(seed)
    lists = [rng.integers(0, num_items, rng.integers(0, seen + 1)) for _ in range(num_rows)]
    offsets, flat = csr(lists)
    return {
        "query": query,
        "items": items,
        "k": k,
        "bias": bias,
        "scale": 0.5,
        "exclude_offsets": offsets,
        "exclude_item": flat,
    } | options


def in_order_of_score(descending):
    inputs = exact(70, 9000, 2, 40, seen=30, bias=None)
    rank = torch.arange(9000.0).sort(descending=descending).values // 2
    # Two digits to base 64, which bfloat16 holds.
    inputs["query"] = torch.tensor([[64.0, 1.0]]).repeat(70, 1)
    inputs["items"] = torch.stack([rank // 64, rank % 64], 1)
    return inputs


def one_ulp_apart():
    """Four digits to base 64, exact in every dtype, make each 24-bit number twice, in any order."""
    inputs = exact(70, 3000, 4, 45, seen=30, bias=None)
    score = 2**24 - 1500 + torch.randperm(3000, generator=torch.Generator().manual_seed(0)) // 2
    inputs["query"] = torch.tensor([[512, 8, 1 / 8, 1 / 512]]).repeat(70, 1)
    inputs["items"] = torch.stack([score >> bits & 63 for bits in (18, 12, 6, 0)], 1).float()
    return inputs


def removed_rows_of_anything():
    inputs = exact(131, 1601, 37, 10, seen=20)
    removed = inputs["bias"] == -torch.inf
    inputs["items"][removed] = torch.nan
    inputs["items"][removed, 1::2] = torch.inf
    return inputs


def strided():
    inputs = exact(67, 900, 10, 20, seen=5)
    inputs["query"] = inputs["query"].repeat(1, 2)[:, ::2]
    inputs["items"] = inputs["items"].T.contiguous().T
    inputs["bias"] = inputs["bias"].repeat_interleave(2)[::2]
    return inputs


def rows_of_something_wider():
    inputs = exact(67, 900, 10, 20, seen=5)
    inputs["items"] = torch.nn.functional.pad(inputs["items"], (3, 4))[:, 3:13]
    inputs["query"] = torch.nn.functional.pad(inputs["query"], (1, 0))[:, 1:]
    return inputs


CASES = {
    "whole tiles": lambda: exact(128, 768, 64, 100, seen=20),
    "ragged rows, items and dimension": lambda: exact(131, 1601, 37, 10, seen=20),
    "more dimensions than a panel": lambda: exact(9, 700, 131, 30),
    "one row": lambda: exact(1, 5000, 16, 25, seen=50),
    "one row, one item, one dimension": lambda: exact(1, 1, 1, 1),
    "no row": lambda: exact(0, 50, 8, 3),
    "fewer items than a tile": lambda: exact(70, 5, 8, 3, seen=2),
    "one item more than a tile": lambda: exact(70, 7, 8, 3, seen=2),
    "k above V": lambda: exact(33, 40, 8, 100, seen=10),
    "k of half the catalogue": lambda: exact(20, 3000, 4, 1500, seen=500),
    "k = 1": lambda: exact(150, 2500, 12, 1, seen=3),
    "almost all excluded": lambda: exact(20, 300, 8, 10, seen=3000),
    "all equal": lambda: exact(66, 8000, 3, 7, levels=0, bias=None, seen=40),
    "many equal": lambda: exact(66, 8000, 2, 50, levels=1, seen=40),
    "no bias, nothing excluded": lambda: exact(
        65, 1000, 8, 10, bias=None, exclude_offsets=None, exclude_item=None
    ),
    "empty exclusion": lambda: exact(65, 1000, 8, 10),
    "scores one ulp apart": one_ulp_apart,
    "scores rise with the id": lambda: in_order_of_score(False),
    "scores fall with the id": lambda: in_order_of_score(True),
    "rows of removed items hold NaN and infinities": removed_rows_of_anything,
    "everything removed": lambda: exact(5, 100, 4, 3, bias=torch.full((100,), -torch.inf)),
    "scores of +inf": lambda: exact(
        5, 100, 4, 3, bias=torch.where(torch.arange(100) % 40 == 7, torch.inf, 0)
    ),
    "the last item at +inf": lambda: exact(
        5, 100, 4, 3, bias=torch.where(torch.arange(100) == 99, torch.inf, 0)
    ),
    "non-contiguous inputs": strided,
    "rows of something wider": rows_of_something_wider,
}


def by_stable_sort(query, items, k, bias=None, scale=1.0, exclude_offsets=None, exclude_item=None):
    """`by_sorting` for larger problems."""
    score = scale * query.double() @ items.double().T
    if bias is not None:
        score = biased(score, bias)
    if exclude_offsets is not None:
        row = np.repeat(np.arange(len(query)), np.diff(exclude_offsets))
        score[row, exclude_item] = -torch.inf
    room = max(0, k - len(items))
    best, item = torch.nn.functional.pad(score, (0, room), value=-torch.inf).sort(
        dim=1, descending=True, stable=True
    )
    return item[:, :k].masked_fill(best[:, :k] == -torch.inf, -1), best[:, :k]


def check_case(impl, dtype, case, device="cpu"):
    inputs = CASES[case]()
    want_id, want_score = by_stable_sort(**inputs)
    for name in ("query", "items"):
        inputs[name] = inputs[name].to(dtype)
    got_id, got_score = (part.cpu() for part in top_items(**on(device, inputs), impl=impl))
    assert got_score.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(got_score.double(), want_score), case
    assert torch.equal(got_id, want_id), case


RUNS = runs_of("top_items")


# The interpreter's time goes to one half type here, the other is among the reals.
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("impl", "dtype", "where"), [run for run in RUNS if not INTERPRETED or torch.float16 not in run], ids=str
)
def test_small_integers_are_exact(monkeypatch, impl, dtype, where, case):
    check_case(impl, dtype, case, device_of(where, monkeypatch))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_path_of_the_processor_on_any_number_of_threads(path, threads, number):
    threads(number)
    for case in CASES:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            check_case("cpu", dtype, case)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        check_reals("cpu", dtype)


def check_reals(impl, dtype, device="cpu"):
    """A listed score is as exact as plain torch's, and no item left out is better than its place
    by more than two such errors: one of it, one of the item listed."""
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(n, 48, generator=generator).to(dtype) for n in (70, 9001))
    bias = torch.randn(9001, generator=generator)
    got_id, got_score = (
        part.cpu()
        for part in top_items(
            query.to(device), items.to(device), 25, bias=bias.to(device), scale=0.3, impl=impl
        )
    )
    truth = 0.3 * query.double() @ items.double().T + bias.double()
    plain = (query.float() * 0.3) @ items.float().T + bias
    own = (plain.double() - truth).abs().max().item()
    allowed = 2 * (own + torch.finfo(torch.float32).eps * truth.abs().max().item())
    listed = truth.gather(1, got_id)
    assert (got_score.double() - listed).abs().max() <= allowed
    assert (truth.topk(25).values - listed).abs().max() <= 2 * allowed
    assert all(len(row.unique()) == 25 for row in got_id)
    assert (got_score.diff(dim=1) <= 0).all()


@pytest.mark.parametrize(("impl", "dtype", "where"), RUNS[1:], ids=str)
def test_real_scores_are_as_exact_as_the_reference(monkeypatch, impl, dtype, where):
    check_reals(impl, dtype, device_of(where, monkeypatch))


@pytest.mark.parametrize("num_rows", [1, 20, 300])
def test_threads_and_neighbours_change_no_bit(threads, num_rows):
    """Neither do the rows that a query stands among: they decide which tile it lies in."""
    generator = torch.Generator().manual_seed(0)
    query, items = torch.randn(num_rows, 24, generator=generator), torch.randn(8005, 24, generator=generator)
    results = []
    for number in (1, 2, 3, 3):
        threads(number)
        results.append(top_items(query, items, 50, impl="cpu"))
    results.append(
        tuple(
            torch.cat(parts)
            for parts in zip(*(top_items(part, items, 50, impl="cpu") for part in query.split(17)))
        )
    )
    for item_id, score in results[1:]:
        assert torch.equal(item_id, results[0][0])
        assert torch.equal(score, results[0][1])


def check_ids_above_2_to_the_24(impl, device="cpu"):
    items = torch.zeros(2**24 + 99, 1, dtype=torch.float16, device=device)
    for item, score in ((3, 1), (2**24 + 1, 2), (2**24 + 98, 2)):
        items[item] = score
    got_id, _ = top_items(
        torch.ones(1, 1, device=device),
        items,
        3,
        exclude_offsets=[0, 1],
        exclude_item=[2**24 + 98],
        impl=impl,
    )
    assert got_id.tolist() == [[2**24 + 1, 3, 0]]


@pytest.mark.parametrize(
    ("impl", "where"),
    [("reference", "cpu"), ("cpu", "cpu"), pytest.param("triton", "gpu", marks=pytest.mark.gpu)],
)
def test_ids_above_2_to_the_24(monkeypatch, impl, where):
    check_ids_above_2_to_the_24(impl, device_of(where, monkeypatch))


@pytest.mark.parametrize("impl", IMPLS)
def test_nan_is_named_by_its_first_row_unless_excluded(impl):
    query, items = torch.ones(100, 3), torch.ones(500, 3)
    query[[71, 90], 1] = torch.nan
    with pytest.raises(ValueError, match="NaN in row 71"):
        top_items(query, items, 4, impl=impl)
    query[:] = 1
    items[13] = torch.nan
    with pytest.raises(ValueError, match="NaN in row 0"):
        top_items(query, items, 4, impl=impl)
    offsets, flat = csr([[13]] * 100)
    got_id, _ = top_items(query, items, 4, exclude_offsets=offsets, exclude_item=flat, impl=impl)
    assert got_id.tolist() == [[0, 1, 2, 3]] * 100
    flat[99] = 12
    with pytest.raises(ValueError, match="NaN in row 99"):
        top_items(query, items, 4, exclude_offsets=offsets, exclude_item=flat, impl=impl)
    items[13], items[499] = 1, torch.nan
    with pytest.raises(ValueError, match="NaN in row 0"):  # behind ever so many of +inf
        top_items(query, items, 4, bias=torch.full((500,), torch.inf), impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
def test_minus_zero_is_zero(impl):
    got_id, _ = top_items(
        torch.ones(1, 1),
        torch.tensor([[-0.0], [0.0], [-0.0]]),
        3,
        bias=torch.tensor([-0.0, 0.0, -0.0]),
        impl=impl,
    )
    assert got_id.tolist() == [[0, 1, 2]]
    # Products below the smallest float32 keep a sign that a sum begun at 0 loses.
    got_id, _ = top_items(
        torch.full((1, 1), 1e-30), torch.tensor([[-1e-30], [0.0], [-1e-30], [1e-30]]), 4, impl=impl
    )
    assert got_id.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "reference"])
def test_fp64_is_refused_by_name(impl):
    with pytest.raises(NotImplementedError, match=f"{impl}: query is float64"):
        top_items(torch.ones(2, 3).double(), torch.ones(4, 3).double(), 1, impl=impl)


def test_fresh_memory_is_not_read():
    """The same bits where malloc returns bytes of 0x7f, 3e38 as numbers."""
    code = """
import hashlib, torch, test_top_items as t
digest = hashlib.sha256()
for case in t.CASES:
    for part in t.top_items(**t.CASES[case](), impl="cpu"):
        digest.update(part.numpy().tobytes())
print(digest.hexdigest())
"""
    here = os.path.dirname(__file__)
    path = os.pathsep.join(filter(None, [here, os.path.dirname(here), os.environ.get("PYTHONPATH")]))
    seen = {
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | more | {"PYTHONPATH": path},
        ).stdout
        for more in ({}, {"MALLOC_PERTURB_": "128"})
    }
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_public_door_over_several_row_blocks(dtype):
    query, items, _, exclude = problem(1, 2500, 300, 4, 3)
    offsets, flat = csr(exclude)
    want_id, want_score = by_sorting(query.double() @ items.double().T, 7, exclude)
    got_id, got_score = top_items(
        query.to(dtype), items.to(dtype), 7, exclude_offsets=offsets, exclude_item=flat
    )
    assert torch.equal(got_id, want_id)
    assert got_score.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(got_score.double(), want_score)


def test_real_valued_scores_match_torch_topk():
    torch.manual_seed(0)
    query, items = torch.randn(64, 16), torch.randn(9000, 16)
    got_id, got_score = top_items(query, items, 20, scale=0.3)
    want = torch.topk(0.3 * query.double() @ items.double().T, 20)
    torch.testing.assert_close(got_score.double(), want.values, rtol=1e-5, atol=1e-5)
    assert (got_id == want.indices).float().mean() > 0.999


def test_all_tied_gives_the_smallest_ids():
    got_id, _ = top_items(torch.zeros(3, 2), torch.ones(5000, 2), 4)
    assert got_id.tolist() == [[0, 1, 2, 3]] * 3


@given(st.integers(0, 10**6), st.integers(1, 20), st.data())
@settings(deadline=None)
def test_best_columns_of_given_scores(seed, width, data):
    score = torch.tensor(np.random.default_rng(seed).integers(0, 3, (4, width))).double()
    k = data.draw(st.integers(1, width))
    want_id, want_score = by_sorting(score, k)
    got_id, got_score = best_columns(score, k)
    assert torch.equal(got_id, want_id)
    assert torch.equal(got_score, want_score)
    with pytest.raises(ValueError, match=f"k: expected an integer >= 1 <= {width}"):
        best_columns(score, width + 1)


def test_too_few_items_end_in_minus_one():
    offsets, flat = csr([[0, 1, 2], []])
    got_id, got_score = top_items(
        torch.ones(2, 1), torch.tensor([[1.0], [2.0], [3.0]]), 5, exclude_offsets=offsets, exclude_item=flat
    )
    assert got_id.tolist() == [[-1] * 5, [2, 1, 0, -1, -1]]
    assert got_score[0].tolist() == [-np.inf] * 5


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ValueError, "k: expected an integer >= 1; got 0"),
        ({"items": torch.ones(4, 3)}, ValueError, r"items: expected shape \[V, 2\]"),
        ({"items": torch.ones(4, 2, dtype=torch.int64)}, TypeError, "items: expected a floating"),
        ({"query": np.ones((3, 2))}, TypeError, "query: expected a floating point torch tensor"),
        ({"bias": torch.ones(3)}, ValueError, r"bias: expected shape \[4\]"),
        ({"scale": float("nan")}, ValueError, "scale: expected a finite number"),
        ({"impl": "cublas"}, ValueError, "impl: expected one of 'auto', 'reference'"),
        ({"exclude_item": [1]}, ValueError, "both or neither"),
        ({"exclude_item": [9], "exclude_offsets": [0, 1, 1, 1]}, ValueError, "got 9 at position 0"),
        ({"exclude_item": [1], "exclude_offsets": [0, 2, 1, 1]}, ValueError, "non-decreasing"),
        ({"exclude_item": [1], "exclude_offsets": [0, 1]}, ValueError, r"shape \[4\]"),
        ({"exclude_item": [0.5], "exclude_offsets": [0, 1, 1, 1]}, TypeError, "exclude_item"),
        ({"query": torch.tensor([[1.0, 1], [1, np.nan], [1, 1]])}, ValueError, "NaN in row 1"),
    ],
)
def test_bad_input_is_one_clear_error(change, error, words):
    arguments = {"query": torch.ones(3, 2), "items": torch.ones(4, 2), "k": 2, **change}
    with pytest.raises(error, match=words):
        top_items(**arguments)
