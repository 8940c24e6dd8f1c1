"""Popularity-bias numbers against their definitions, scipy, and their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from fastpop.evaluation import popularity_bias as bias

COUNTS = st.lists(st.integers(0, 30), min_size=2, max_size=40).filter(any)


@given(COUNTS, st.randoms())
def test_groups_follow_counts_and_nothing_else(counts, random):
    group = bias.item_groups(counts)
    order = list(range(len(counts)))
    random.shuffle(order)
    assert bias.item_groups(np.array(counts)[order]).tolist() == group[order].tolist()
    by_count = dict(zip(counts, group.tolist()))
    assert [by_count[c] for c in counts] == group.tolist()  # equal counts stay together
    ordered = [by_count[c] for c in sorted(by_count, reverse=True)]
    assert ordered == sorted(ordered)  # head, then mid, then tail
    assert ordered[0] == 0
    if 0 in by_count:
        assert by_count[0] == 2


def test_groups_hold_their_share_of_the_events():
    counts = 1e6 / np.arange(1, 20001) ** 0.7
    group = bias.item_groups(counts)
    share = np.bincount(group, counts) / counts.sum()
    np.testing.assert_allclose(share, [0.2, 0.6, 0.2], atol=1e-3)


@given(COUNTS)
def test_gini_is_the_mean_difference_and_twice_the_area_above_lorenz(exposure):
    x = np.array(exposure, float)
    want = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())
    assert bias.gini(x) == pytest.approx(want, abs=1e-12)
    items, share = bias.lorenz_curve(x, points=len(x))
    assert 1 - 2 * np.trapezoid(share, items) == pytest.approx(want, abs=1e-12)
    assert (np.diff(share) >= -1e-15).all()
    assert (share <= items + 1e-12).all()


def test_lorenz_curve_is_thinned_but_keeps_its_ends():
    items, share = bias.lorenz_curve(np.arange(10_000), points=100)
    assert len(items) == 101
    assert (items[0], share[0], items[-1], share[-1]) == (0, 0, 1, 1)


@given(COUNTS, st.randoms())
def test_correlation_and_mid_rank_agree_with_scipy(counts, random):
    other = [random.randint(0, 5) for _ in counts]
    np.testing.assert_array_equal(bias.mid_rank(np.array(counts)), rankdata(counts))
    if len(set(counts)) > 1 and len(set(other)) > 1:
        want = spearmanr(counts, other).statistic
        assert bias.popularity_correlation(counts, other) == pytest.approx(want, abs=1e-12)
    else:
        assert np.isnan(bias.popularity_correlation(counts, other))


def test_list_means_skip_the_padding():
    counts = np.array([7, 2, 1, 0])
    lists = np.array([[0, 1], [3, -1], [-1, -1]])
    assert bias.average_popularity(lists, counts).tolist() == pytest.approx([4.5, 0, np.nan], nan_ok=True)
    assert bias.long_tail_share(lists, counts).tolist() == pytest.approx([0, 1, np.nan], nan_ok=True)
    want = [-(np.log2(8 / 14) + np.log2(3 / 14)) / 2, -np.log2(1 / 14), np.nan]
    assert bias.novelty(lists, counts).tolist() == pytest.approx(want, nan_ok=True)
    assert bias.exposure_counts(lists, 5).tolist() == [1, 1, 0, 1, 0]
    assert bias.coverage([1, 1, 0, 1, 0]) == 0.6


def test_extremes_of_concentration():
    assert bias.gini(np.ones(50)) == pytest.approx(0)
    assert bias.gini(np.eye(50)[3]) == pytest.approx(49 / 50)
    with pytest.raises(ValueError, match="exposure: expected numbers >= 0, not all zero"):
        bias.gini(np.zeros(3))
    with pytest.raises(ValueError, match="head: expected a finite number > 0"):
        bias.item_groups([1, 2], head=0)


@pytest.mark.parametrize("top", [0, 3, 10**6, 2.5])
@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_classes_are_those_of_unique(top, kind):
    rng = np.random.default_rng(0)
    value = (rng.random(500) * top).astype(np.float64 if top == 2.5 else np.int64).astype(kind)
    for one_of in (value, value[:1], -value):
        expected = np.unique(one_of, return_inverse=True, return_counts=True)
        for got, one in zip(bias.classes(one_of), expected, strict=True):
            assert got.dtype.kind == one.dtype.kind
            assert (got == one).all()
