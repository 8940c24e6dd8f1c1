"""Label permutations: one stream for every implementation, thread and block."""

from collections import Counter
from itertools import permutations, product

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


def zipf_problem(num_items, width=5, seed=0):
    """Labels of which a few are frequent and many are rare; strata from one item to most."""
    rng = np.random.default_rng(seed)
    label = np.log(rng.zipf(1.7, num_items).clip(max=400))
    strata = (rng.random(num_items) ** 3 * 9).astype(int)
    strata[:3] = [100, 101, 101]
    return label, rng.standard_normal((num_items, width)), strata


@pytest.fixture
def draws_often(monkeypatch):
    """Small strata draw too, and give a label its full share: most draws must be made again."""
    monkeypatch.setattr(reference, "FEW", 1)
    monkeypatch.setattr(reference, "SLACK", 0)


@settings(max_examples=30, deadline=None)
@given(
    num_items=st.integers(2, 70),
    width=st.integers(1, 18),
    distinct=st.integers(1, 70),
    seed=st.integers(0, 2**63),
    null=st.sampled_from(["label", "stratified", "sign"]),
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
@pytest.mark.parametrize("num_items", [200, 500, 1217])
def test_numba_draws_what_the_reference_draws_of_frequent_labels(num_items, null):
    label, _, strata = zipf_problem(num_items, seed=num_items)
    strata = strata if null == "stratified" else None
    assert len(reference.arrange(label, strata).often_code_F) > 1
    for seed in range(3):
        more = {"seed": seed, "null": null, "strata": strata}
        found = drawn_labels("cpu", label, count=4, **more)
        want = drawn_labels("reference", label, count=4, **more)
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("null", ["label", "stratified"])
def test_numba_draws_again_where_the_reference_does(null, draws_often, monkeypatch):
    label, _, strata = problem(150, distinct=4)
    strata = strata % 3 if null == "stratified" else None
    attempts = []
    bytes_of = reference.bytes_of
    monkeypatch.setattr(reference, "bytes_of", lambda key, n: attempts.append(n) or bytes_of(key, n))
    want = drawn_labels("reference", label, 1, 20, null=null, strata=strata)
    assert len(attempts) > 20 * (1 if strata is None else 3) + 10
    found = drawn_labels("cpu", label, 1, 20, null=null, strata=strata)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("room", [0, 5])
def test_a_draw_that_leaves_too_many_blanks_is_made_again(room):
    label, _, _ = zipf_problem(300)
    arranged = reference.arrange(label)
    found = []
    for limit in (arranged.room_S[0], (blanks := 300 - arranged.often_edge_F[-1] * 300 // 256) - room):
        tight = reference.Arrangement(**{**vars(arranged), "room_S": np.array([limit])})
        found.append([reference.permuted_labels(tight, 0, k) for k in range(20)])
    same = [(a == b).all() for a, b in zip(*found)]
    assert 0 < sum(same) < 20
    assert blanks < arranged.room_S[0] < 300


@pytest.mark.parametrize("width", [1, 8, 9, 16, 31, 32, 33, 63, 64, 65, 80, 128, 151])
def test_every_width_is_the_sum_of_its_columns(width):
    label, items, strata = zipf_problem(333, width)
    for null in ("label", "stratified", "sign"):
        more = {"seed": 8, "null": null, "strata": strata if null == "stratified" else None}
        labels = drawn_labels("cpu", label, count=9, **more)
        np.testing.assert_allclose(permutation(label, items, 9, **more), labels @ items, atol=1e-11)


@pytest.mark.parametrize("null", ["label", "stratified", "sign"])
def test_threads_and_blocks_change_no_bit(null, monkeypatch):
    label, items, strata = zipf_problem(3000, 83)
    more = {"null": null, "strata": strata if null == "stratified" else None, "seed": 3}
    one = permutation(label, items, 101, threads=1, **more)
    two = permutation(label, items, 101, threads=2, **more)
    seven = permutation(label, items, 101, threads=7, **more)
    parts = [permutation(label, items, 1, first=k, **more) for k in (0, 50, 100)]
    monkeypatch.setattr(_numba, "BYTES", 1)
    small = permutation(label, items, 101, threads=2, **more)
    monkeypatch.setattr(_numba, "BLOCK", 3)
    monkeypatch.setattr(_numba, "BYTES", 1 << 30)
    least = permutation(label, items, 101, threads=2, **more)
    assert (one == two).all()
    assert (one == seven).all()
    assert (one == small).all()
    assert (one == least).all()
    assert (one[[0, 50, 100]] == np.concatenate(parts)).all()


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


@pytest.mark.parametrize("make", [problem, zipf_problem])
@pytest.mark.parametrize("num_items", [60, 400])
def test_labels_are_moved_never_changed(make, num_items):
    label, _, strata = make(num_items)
    plain = drawn_labels("cpu", label, 0, 50)
    inside = drawn_labels("cpu", label, 0, 50, null="stratified", strata=strata)
    flipped = drawn_labels("cpu", label, 0, 50, null="sign")
    for k in range(50):
        np.testing.assert_allclose(np.sort(plain[k]), np.sort(label), atol=1e-14)
        np.testing.assert_allclose(np.abs(flipped[k]), np.abs(label), atol=1e-14)
        for s in np.unique(strata):
            np.testing.assert_allclose(
                np.sort(inside[k, strata == s]), np.sort(label[strata == s]), atol=1e-14
            )
    assert 0.4 < (flipped * label < 0)[:, label != 0].mean() < 0.6


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


def within_chi2(seen, expected):
    """Counts by outcome against their means: chi-square within 4 standard deviations."""
    chi2 = sum((seen[key] - expected[key]) ** 2 / expected[key] for key in expected)
    df = len(expected) - 1
    return df - 4 * (2 * df) ** 0.5 < chi2 < df + 4 * (2 * df) ** 0.5


@pytest.mark.parametrize(
    "label",
    [
        [5, 5, 5, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 1, 1, 2],
        [0, 0, 1, 1, 2, 2],
        [0, 0, 0, 1, 2, 3],
        [3, 1, 1, 1, 1, 0],
        [0, 1, 2, 3],
    ],
)
def test_every_arrangement_is_equally_likely_when_labels_are_drawn(label, draws_often):
    label, draws = np.array(label, float), 30_000
    assert len(reference.arrange(label).often_code_F) > 1
    rows = np.rint(drawn_labels("cpu", label, 5, draws)).astype(int)
    every = {tuple(int(x) for x in order) for order in permutations(label)}
    seen = Counter(map(tuple, rows.tolist()))
    assert set(seen) == every
    assert within_chi2(seen, dict.fromkeys(every, draws / len(every)))


@pytest.mark.parametrize("level", [1, 40, 127])
def test_the_distribution_does_not_depend_on_the_levels(level, draws_often, monkeypatch):
    # A label that owns any share of the bytes: draws too rare, or far too often.
    monkeypatch.setattr(reference, "level", lambda count, num: level if count > 1 else 0)
    label, draws = np.array([7, 0, 7, 0, 7.0]), 15_000
    rows = np.rint(drawn_labels("cpu", label, 6, draws)).astype(int)
    seen = Counter(map(tuple, rows.tolist()))
    assert len(seen) == 10
    assert within_chi2(seen, dict.fromkeys(seen, draws / 10))


def test_strata_are_permuted_independently(draws_often):
    label, strata = np.array([0, 0, 1, 1, 0, 1, 2.0]), np.array([4, 4, 4, 4, 9, 9, 9])
    draws = 30_000
    rows = np.rint(drawn_labels("cpu", label, 3, draws, null="stratified", strata=strata)).astype(int)
    every = {
        tuple(int(x) for x in a + b) for a, b in product(permutations((0, 0, 1, 1)), permutations((0, 1, 2)))
    }
    seen = Counter(map(tuple, rows.tolist()))
    assert set(seen) == every
    assert within_chi2(seen, dict.fromkeys(every, draws / len(every)))


def test_frequent_labels_have_the_moments_of_all_permutations():
    label, items, _ = zipf_problem(900, 6)
    label = label - label.mean()
    draws = 20_000
    assert len(reference.arrange(label).often_code_F) > 4
    proj = permutation(label, items, draws, seed=12)
    centred = items - items.mean(0)
    cov = centred.T @ centred * (label @ label) / 899
    spread = np.sqrt(np.diag(cov))
    assert (np.abs(proj.mean(0)) < 4.5 * spread / draws**0.5).all()
    found = np.cov(proj.T) / np.outer(spread, spread)
    assert np.abs(found - cov / np.outer(spread, spread)).max() < 4.5 * (2 / draws) ** 0.5


def test_each_position_gets_a_frequent_label_as_often_as_any_other():
    # Positions that share a word, a vector of words, and the last, half filled one.
    label, draws = np.repeat([0.0, 1, 2, 3], [70, 40, 25, 5]), 20_000
    num = len(label)
    rows = np.rint(drawn_labels("cpu", label, 2, draws))
    for value, held in ((0, 70), (1, 40), (2, 25), (3, 5)):
        share = held / num
        seen = (rows == value).sum(0)
        chi2 = ((seen - draws * share) ** 2).sum() / (draws * share * (1 - share)) * (num - 1) / num
        assert abs(chi2 - (num - 1)) < 4 * (2 * (num - 1)) ** 0.5
        # Two neighbours, and two that lie 8 or 64 apart, carry it together as any two do.
        both = held * (held - 1) / (num * (num - 1))
        for apart in (1, 8, 64):
            pairs = ((rows[:, apart:] == value) & (rows[:, :-apart] == value)).mean()
            error = (both * (1 - both) / (draws * (num - apart))) ** 0.5
            assert abs(pairs - both) < 5 * error + 1e-9


def test_each_sign_is_fair_and_free_of_the_others():
    draws, num = 20_000, 130
    signs = drawn_labels("cpu", np.ones(num), 2, draws, null="sign")
    assert np.abs(signs.mean(0)).max() < 4.5 / draws**0.5
    between = signs.T @ signs / draws - np.eye(num)
    assert np.abs(between).max() < 5.5 / draws**0.5


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


def test_bytes_are_those_of_the_words_the_lowest_first():
    words = [reference.word_at(99, j) for j in range(3)]
    whole = b"".join(word.to_bytes(8, "little") for word in words)
    assert reference.bytes_of(99, 24).tobytes() == whole
    assert reference.bytes_of(99, 17).tobytes() == whole[:17]


@pytest.mark.parametrize("seed", range(8))
def test_blocks_hold_each_position_once_and_keep_within_what_they_draw_from(seed):
    rng = np.random.default_rng(seed)
    num = rng.integers(1, 200, 30)
    drawn = np.where(rng.random(30) < 0.4, np.arange(30), _numba.BLANK)
    bound = np.append(0, np.cumsum(num))
    blocks = _numba.blocks_of(bound, drawn, 8)
    assert blocks.size_N.max() <= 64
    assert (np.append(0, np.cumsum(blocks.size_N)) == np.append(blocks.low_N, bound[-1])).all()
    for low, size, source, word in zip(*blocks):
        inside = np.arange(low, low + size)
        strata = np.unique(np.searchsorted(bound, inside, side="right") - 1)
        assert (drawn[strata] == source).all()
        assert source == _numba.BLANK or word == (low - bound[source]) // 8
    # Blanks run on over the borders of strata: not a block for each.
    runs = np.flatnonzero((drawn[1:] == -1) & (drawn[:-1] == -1))
    assert not np.isin(bound[runs + 1], blocks.low_N).all()


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
        ({"first": 2**70}, ValueError, r"first: expected an integer >= 0 <= 4.61169e\+18"),
        ({"null": "swap"}, ValueError, "null: expected one of"),
        ({"null": "stratified"}, ValueError, "strata: expected integers"),
        ({"strata": np.zeros(53, int)}, ValueError, "strata: expected integers"),
        ({"null": "stratified", "strata": np.zeros(53)}, TypeError, "strata: expected integers"),
        ({"impl": "numba"}, ValueError, "impl: expected one of"),
        ({"impl": "cuda"}, NotImplementedError, "cuda: permutation has no such implementation"),
        ({"threads": 0}, ValueError, "threads: expected an integer >= 1"),
    ],
)
def test_each_bad_input_has_one_clear_error(change, error, words):
    label, items, _ = problem()
    with pytest.raises(error, match=words):
        permutation(**{"labels": label, "items": items, "num_permutations": 3, **change})
