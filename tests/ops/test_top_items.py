"""top_items against a full sort in fp64, and its laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop.kernels.top_items import reference
from fastpop.ops.top_items import best_columns, top_items


def by_sorting(score_BV, k, exclude=None):
    """The definition: sort (-score, id), leave out what is excluded or -inf, pad with -1."""
    ids, scores = [], []
    for row, score_V in enumerate(score_BV.tolist()):
        banned = set(exclude[row]) if exclude else set()
        order = sorted(
            (-s, i) for i, s in enumerate(score_V) if i not in banned and s > -np.inf
        )[:k]
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


def csr(lists):
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    return offsets, np.concatenate([*lists, np.zeros(0, np.int64)]).astype(np.int64)


@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(1, 40), st.integers(1, 45),
       st.integers(1, 12), st.booleans())
@settings(max_examples=120, deadline=None)
def test_equals_a_full_sort_with_ties_bias_and_exclusion(
    seed, num_rows, num_items, k, tile, excluding
):
    query, items, bias, exclude = problem(seed, num_rows, num_items, 3, 2)
    offsets, flat = csr(exclude)
    want_id, want_score = by_sorting(
        2.0 * query.double() @ items.double().T + bias.double(), k, exclude if excluding else None
    )
    got_id, got_score = reference.forward(
        query, items, k, bias, 2.0,
        torch.tensor(offsets) if excluding else None, torch.tensor(flat) if excluding else None,
        tile_items=tile,
    )
    assert torch.equal(got_id, want_id.reshape(num_rows, k))
    assert torch.equal(got_score.double(), want_score.reshape(num_rows, k))


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
        torch.ones(2, 1), torch.tensor([[1.0], [2.0], [3.0]]), 5,
        exclude_offsets=offsets, exclude_item=flat,
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
        ({"impl": "cuda"}, ValueError, "impl: expected one of 'auto', 'reference'"),
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
