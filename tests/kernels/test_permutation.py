"""Label permutations: one stream for every implementation, thread and block."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop.kernels.permutation import _numba, reference
from fastpop.ops.permutation import permutation


def problem(num_items=53, width=5, distinct=6, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.standard_normal(distinct)[rng.integers(0, distinct, num_items)]
    return label, rng.standard_normal((num_items, width)), rng.integers(0, 4, num_items)


def drawn_labels(impl, label, seed, count, **more):
    """The permuted labels themselves: the projections on the identity."""
    return permutation(label, np.eye(len(label)), count, seed=seed, impl=impl, **more)


@settings(max_examples=30, deadline=None)
@given(
    num_items=st.integers(2, 70), width=st.integers(1, 18), distinct=st.integers(1, 70),
    seed=st.integers(0, 2**63), null=st.sampled_from(["label", "stratified", "sign"]),
)
def test_numba_draws_the_reference_permutations(num_items, width, distinct, seed, null):
    label, items, strata = problem(num_items, width, distinct, seed % 1000)
    more = {"null": null, "strata": strata if null == "stratified" else None, "seed": seed}
    slow = permutation(label, items, 5, impl="reference", **more)
    fast = permutation(label, items, 5, impl="cpu", **more)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12 * max(1, np.abs(slow).max()))
    # Labels are told apart exactly: one differing draw would show at full size.
    labels = drawn_labels("cpu", label, seed, 5, null=null, strata=more["strata"])
    want = drawn_labels("reference", label, seed, 5, null=null, strata=more["strata"])
    np.testing.assert_allclose(labels, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("null", ["label", "stratified", "sign"])
def test_threads_and_blocks_change_no_bit(null, monkeypatch):
    label, items, strata = problem(3000, 17, 40)
    more = {"null": null, "strata": strata if null == "stratified" else None, "seed": 3}
    one = permutation(label, items, 101, threads=1, **more)
    two = permutation(label, items, 101, threads=2, **more)
    seven = permutation(label, items, 101, threads=7, **more)
    monkeypatch.setattr(_numba, "BYTES", 1)
    small = permutation(label, items, 101, threads=2, **more)
    assert (one == two).all()
    assert (one == seven).all()
    assert (one == small).all()


def test_a_run_can_be_continued():
    label, items, _ = problem()
    whole = permutation(label, items, 20, seed=5)
    parts = [permutation(label, items, 8, seed=5), permutation(label, items, 12, seed=5, first=8)]
    assert (np.concatenate(parts) == whole).all()
    assert permutation(label, items, 0).shape == (0, 5)


def test_seeds_and_indices_differ():
    label, items, _ = problem()
    rows = np.concatenate([permutation(label, items, 10, seed=s) for s in range(10)])
    assert len(np.unique(rows[:, 0])) == 100


def test_labels_are_moved_never_changed():
    label, _, strata = problem(60)
    plain = drawn_labels("cpu", label, 0, 50)
    inside = drawn_labels("cpu", label, 0, 50, null="stratified", strata=strata)
    flipped = drawn_labels("cpu", label, 0, 50, null="sign")
    for k in range(50):
        np.testing.assert_allclose(np.sort(plain[k]), np.sort(label), atol=1e-14)
        np.testing.assert_allclose(np.abs(flipped[k]), np.abs(label), atol=1e-14)
        for s in range(4):
            np.testing.assert_allclose(
                np.sort(inside[k, strata == s]), np.sort(label[strata == s]), atol=1e-14
            )
    assert 0.4 < (flipped * label < 0).mean() < 0.6


@pytest.mark.parametrize("label", [[0.0, 1, 2, 3], [0.0, 0, 1, 2], [5.0, 5, 5, 1]])
def test_every_arrangement_is_equally_likely(label):
    draws = 24_000
    rows = np.rint(drawn_labels("cpu", np.array(label), 11, draws)).astype(int)
    seen = Counter(map(tuple, rows.tolist()))
    weight = Counter(tuple(int(x) for x in order) for order in permutations(label))
    assert set(seen) == set(weight)
    expected = {key: draws * n / 24 for key, n in weight.items()}
    chi2 = sum((seen[key] - expected[key]) ** 2 / expected[key] for key in expected)
    df = len(expected) - 1
    assert df - 4 * (2 * df) ** 0.5 < chi2 < df + 4 * (2 * df) ** 0.5


def test_each_position_gets_each_label_equally_often_on_a_larger_catalogue():
    label = np.arange(40.0)
    rows = np.rint(drawn_labels("cpu", label, 2, 8000)).astype(int)
    count = np.zeros((40, 40))
    for i in range(40):
        count[i] = np.bincount(rows[:, i], minlength=40)
    chi2 = ((count - 200) ** 2 / 200).sum()
    df = 39 * 39
    assert abs(chi2 - df) < 4 * (2 * df) ** 0.5
    # Neighbouring permutations of the stream are not related.
    between = np.mean([np.corrcoef(rows[k], rows[k + 1])[0, 1] for k in range(7999)])
    assert abs(between) < 4 / (39 * 7999) ** 0.5


def test_projections_are_labels_times_items():
    label, items, _ = problem()
    labels = drawn_labels("cpu", label, 4, 6)
    np.testing.assert_allclose(permutation(label, items, 6, seed=4), labels @ items, atol=1e-12)


def test_several_models_share_the_permutations():
    label, items, _ = problem(width=8)
    both = permutation(label, items, 30, seed=9)
    left = permutation(label, items[:, :4], 30, seed=9)
    right = permutation(label, items[:, 4:], 30, seed=9)
    np.testing.assert_allclose(both, np.hstack([left, right]), atol=1e-13)


def test_the_word_stream_is_splitmix64():
    # First outputs of SplitMix64 from state 0 and 1234567 (Vigna's reference program).
    assert reference.word_at(0, 0) == 0xE220A8397B1DCDAF
    assert reference.word_at(1234567, 0) == 6457827717110365317
    assert reference.word_at(1234567, 1) == 3203168211198807973


def test_more_than_65536_labels_still_agree():
    num = 70_000
    label = np.random.default_rng(0).permutation(num).astype(float)
    items = np.ones((num, 1))
    items[: num // 2] = -1.0
    got = permutation(label, items, 2, seed=1)
    key = reference.stream_key(1, 0)
    arranged = reference.arrange(label)
    want = reference.permuted_labels(arranged, 1, 0)
    assert key != reference.stream_key(1, 1)
    assert got[0, 0] == pytest.approx(want @ items[:, 0], rel=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": np.zeros((3, 3))}, ValueError, "labels: expected a 1-d array"),
        ({"labels": np.zeros(3)}, ValueError, r"items: expected shape \[3, R\]"),
        ({"labels": np.full(53, np.nan)}, ValueError, "labels: expected finite numbers"),
        ({"num_permutations": -1}, ValueError, "num_permutations: expected an integer >= 0"),
        ({"num_permutations": 2.5}, TypeError, "num_permutations: expected an integer"),
        ({"seed": -3}, ValueError, "seed: expected an integer >= 0"),
        ({"null": "swap"}, ValueError, "null: expected one of"),
        ({"null": "stratified"}, ValueError, "strata: expected integers"),
        ({"strata": np.zeros(53, int)}, ValueError, "strata: expected integers"),
        ({"null": "stratified", "strata": np.zeros(53)}, TypeError, "strata: expected integers"),
        ({"impl": "cuda"}, ValueError, "impl: expected one of"),
        ({"threads": 0}, ValueError, "threads: expected an integer >= 1"),
    ],
)
def test_each_bad_input_has_one_clear_error(change, error, words):
    label, items, _ = problem()
    with pytest.raises(error, match=words):
        permutation(**{"labels": label, "items": items, "num_permutations": 3, **change})
