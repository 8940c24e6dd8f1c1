"""Audits of scores that are no logits of a softmax, and of a part of the catalogue: what one number
would hide, each by a made model that has the fault."""

import warnings

import numpy as np
import pytest
import torch
from helpers_scores import dense_energies

from fastpop.diagnostics import ContextSample, GramStream, audit
from fastpop.diagnostics.direction import chance_under_p
from fastpop.diagnostics.part import PartShare, unseen_items
from fastpop.popularity.prior import PopularityPrior


def popular_on_top(num_items=3000, seed=0):
    """As BPR leaves it: 20 items that everybody clicks are 6 above the rest, whose scores have nothing
    to do with their popularity. 20 of 3,000 items are next to nothing of the energy along log p."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.5, num_items) * rng.integers(1, 8, num_items)
    counts[:20] = rng.integers(300, 600, 20)
    items = rng.standard_normal((num_items, 8))
    items[:, 0] = 0.0
    items[:20, 0] = 6.0
    query = rng.standard_normal((400, 8)) * 0.8
    query[:, 0] = 1.0
    return query, items, counts


def test_lists_of_popular_items_are_told_where_the_share_is_next_to_nothing():
    query, items, counts = popular_on_top()
    found = audit(query, items, counts, permutations=0)
    assert found.fraction_direction < 0.006
    best = np.argsort(-(query @ items.T), axis=1)[:, :10]
    assert found.lists.mean_count == pytest.approx(counts[best].mean(), rel=1e-12)
    assert found.lists.catalogue_mean == counts.mean()
    assert found.lists.mean_count > 300
    assert found.lists.ratio > 30
    text = " ".join(found.table().split())
    assert "items of 334.2 events on average, 37.7 times" in text


def test_a_small_slope_is_not_a_small_correlation():
    """As ALS leaves it: scores of preference 0 to 1, a thousandth of logits."""
    rng = np.random.default_rng(1)
    counts = rng.zipf(1.6, 600).clip(max=4000)
    log_p = np.log(counts) - np.log(counts).mean()
    query = np.column_stack([np.ones(200), 0.3 * rng.standard_normal((200, 5))])
    items = np.column_stack([log_p + 1.2 * rng.standard_normal(600), rng.standard_normal((600, 5))])
    logits = audit(query, items, counts, permutations=0, logits=True)
    scores = audit(query, 1e-3 * items, counts, permutations=0)
    assert scores.slope_mean == pytest.approx(1e-3 * logits.slope_mean, rel=1e-10)
    assert abs(scores.slope_mean) < 0.002
    assert scores.correlation == pytest.approx(logits.correlation, rel=1e-10)
    prior = PopularityPrior.from_counts(counts)
    mean = (query @ items.T).mean(axis=0)
    assert scores.correlation == pytest.approx(np.corrcoef(mean, prior.log_prior_V)[0, 1])
    assert 0.4 < scores.correlation < 0.95
    assert scores.fraction_direction == pytest.approx(logits.fraction_direction, rel=1e-10)
    assert "0: popularity is outside the scores" in logits.table()
    assert "0: popularity is outside the scores" not in scores.table()
    assert "slope has no unit" in " ".join(scores.table().split())
    assert "squared nats" in logits.table()
    assert "squared nats" not in scores.table()
    assert f"correlation {scores.correlation:.4g}" in scores.table()


def unseen_heavy(seed=2, unseen=2000, seen=400):
    """As LMF leaves it: items without events have large rows of their own."""
    rng = np.random.default_rng(seed)
    counts = np.concatenate([np.zeros(unseen, int), rng.zipf(1.5, seen).clip(max=3000)])
    query = np.column_stack([np.ones(300), rng.standard_normal((300, 6))])
    items = 1.2 * rng.standard_normal((unseen + seen, 7))
    items[unseen:] *= 0.4
    items[:, 0] = 0.0
    items[unseen:, 0] = 0.8 * (np.log(counts[unseen:]) - np.log(counts[unseen:]).mean())
    order = rng.permutation(unseen + seen)
    return query, items[order], counts[order]


def test_unseen_items_that_carry_the_geometry_are_warned_of():
    query, items, counts = unseen_heavy()
    with pytest.warns(UserWarning, match="2,000 items without events carry the geometry") as caught:
        whole = audit(query, items, counts, permutations=0)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = audit(query, items, counts, permutations=0, min_count=1)
        frequent = audit(query, items, counts, permutations=0, min_count=5)
    assert seen.fraction_direction > 3 * whole.fraction_direction
    assert "Caution: 2,000 items without events" in whole.table()
    assert "Caution" not in seen.table()
    truth = query @ items.T
    truth = truth - truth.mean(axis=1, keepdims=True)
    part = (truth[:, counts == 0] ** 2).sum() / (truth**2).sum()
    assert whole.unseen_energy == pytest.approx(part, rel=1e-10)
    assert seen.unseen_energy == 0
    # What the audit of the whole says of its parts is what the audits of the parts say.
    rows = {row.min_count: row for row in whole.shares}
    for least, one in ((0, whole), (1, seen), (5, frequent)):
        assert rows[least].num_items == one.num_items == (counts >= least).sum()
        assert rows[least].fraction_direction == pytest.approx(one.fraction_direction, rel=1e-9)
        assert rows[least].fraction_shared == pytest.approx(one.fraction_shared, rel=1e-9)
        assert rows[least].slope_mean == pytest.approx(one.slope_mean, rel=1e-9)
        assert rows[least].correlation == pytest.approx(one.correlation, rel=1e-9)
    assert [row.min_count for row in frequent.shares] == [5, 20]


def part(least, num_items, share):
    return PartShare(least, num_items, share, share, 1.0, 0.5)


@pytest.mark.parametrize(
    ("whole", "seen", "energy", "speaks"),
    [
        (0.015, 0.089, 0.3, True),  # six times
        (0.050, 0.089, 0.3, False),  # less than twice
        (0.089, 0.015, 0.3, True),  # the other way round
        (0.001, 0.009, 0.3, False),  # nine times next to nothing
        (0.050, 0.060, 0.51, True),  # most of the energy
        (0.050, 0.060, 0.49, False),
    ],
)
def test_when_unseen_items_carry_the_geometry(whole, seen, energy, speaks):
    shares = part(0, 9000, whole), part(1, 4000, seen)
    assert (unseen_items(shares, energy) is not None) == speaks
    # Ten times chance: the share over 60 items with events is noise up to 10/59.
    few = part(0, 9000, 0.01), part(1, 60, 0.16)
    assert unseen_items(few, 0.3) is None
    assert unseen_items((few[0], part(1, 60, 0.18)), 0.3) is not None
    assert unseen_items(shares[1:], 0.9) is None  # all have events
    assert unseen_items(shares[:1], 0.9) is None


def test_a_part_of_the_catalogue_is_centred_over_itself_and_keeps_the_smoothing_of_the_whole():
    rng = np.random.default_rng(3)
    counts = rng.zipf(1.5, 90).clip(max=900).astype(float)
    counts[:20] = 0
    query, items = rng.standard_normal((50, 4)) + 0.2, rng.standard_normal((90, 4))
    bias = rng.standard_normal(90)
    mask = rng.random(90) < 0.7
    prior = PopularityPrior.from_counts(counts)
    options = {"bias": bias, "scale": 1.4, "permutations": 40, "seed": 3}
    for min_count, subset in (
        (0, mask),
        (0, np.flatnonzero(mask)[::-1]),
        (2, mask),
        (3, None),
        (1, torch.from_numpy(mask)),
        (0, np.flatnonzero(mask).tolist()),
    ):
        kept = counts >= min_count
        if subset is not None:
            kept &= mask
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = audit(query, items, counts, min_count=min_count, subset=subset, **options)
        log_p = prior.log_prior_V[kept]
        truth = dense_energies(query, items[kept], log_p, bias=bias[kept], scale=1.4)
        for name in ("total", "direction", "shared", "off_direction", "slope_mean"):
            assert getattr(found.energy, name) == pytest.approx(float(truth[name]), rel=1e-10)
        assert found.alpha == prior.alpha
        probability = np.exp(log_p) / np.exp(log_p).sum()
        under_p = dense_energies(query, items[kept], log_p, bias=bias[kept], scale=1.4, centring=probability)
        assert found.energy_prior_centred.direction == pytest.approx(float(under_p["direction"]), rel=1e-9)
        np.testing.assert_allclose(np.exp(found.log_prior_V), probability, rtol=1e-12)
        np.testing.assert_array_equal(found.item_ids, np.flatnonzero(kept))
        assert found.num_items == kept.sum()
        assert f"{kept.sum()} of 90, those" in found.table()
        assert found.to_dict(samples=True)["item_ids"] == np.flatnonzero(kept).tolist()
    strata = rng.integers(0, 3, 90)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = audit(query, items, counts, subset=mask, null="stratified", strata=strata, **options)
    assert one.test_shared.kind == "stratified"
    assert audit(query, items, counts, permutations=0, min_count=0, subset=np.ones(90, bool)).item_ids is None


def test_an_unseen_item_left_out_changes_nothing():
    query, items, counts = unseen_heavy()
    changed = np.where((counts == 0)[:, None], 7e3, items)
    one = audit(query, items, counts, permutations=30, min_count=1)
    two = audit(query, changed, counts, permutations=30, min_count=1)
    assert one.to_dict(samples=True) == two.to_dict(samples=True)


@pytest.mark.parametrize(("centred_by_chance", "exponent"), [(0.01, None), (0.2, 1.5)])
def test_the_chance_level_under_p_is_the_mean_over_relabellings(centred_by_chance, exponent):
    rng = np.random.default_rng(4)
    counts = rng.integers(50, 150, 300) if exponent is None else rng.zipf(exponent, 300).astype(float)
    prior = PopularityPrior.from_counts(counts, smoothing=0.5)
    chance = chance_under_p(prior.prior_V, prior.log_prior_V)
    assert (chance > centred_by_chance) == (exponent is not None)
    items, query = rng.standard_normal((300, 3)), rng.standard_normal((20, 3)) + 0.3
    direction, total = [], []
    for _ in range(1500):
        under_p = dense_energies(
            query, items[rng.permutation(300)], prior.log_prior_V, centring=prior.prior_V
        )
        direction.append(float(under_p["direction"]))
        total.append(float(under_p["total"]))
    error = np.std(np.array(direction) - chance * np.array(total)) / 1500**0.5
    assert abs(np.mean(direction) - chance * np.mean(total)) < 4.5 * error
    found = audit(query, items, counts, permutations=0, smoothing=0.5)
    assert found.chance_level_prior_centred == pytest.approx(chance, rel=1e-9)
    assert f"{chance:.4g}" in found.table()
    uniform = np.full(5, 0.2)
    assert chance_under_p(uniform, np.array([1.0, 2, 3, 4, 9]) - 3.8) == pytest.approx(1 / 4)


def test_lists_are_the_same_in_whatever_form_contexts_come():
    query, items, counts = popular_on_top()
    weight = np.random.default_rng(5).random(400)
    weight[:50] = 0
    best = np.argsort(-(query @ items.T), axis=1)[:, :7]
    want = np.average(counts[best].mean(axis=1), weights=weight)
    given = {"permutations": 0, "top_k": 7}
    chunks = [(query[a:b], weight[a:b]) for a, b in ((0, 3), (3, 3), (3, 250), (250, 400))]
    for form, w in (
        (query, weight),
        (torch.from_numpy(query).float(), weight),
        (query.tolist(), weight.tolist()),
        (iter(chunks), None),
    ):
        found = audit(form, items, counts, context_weight=w, **given)
        assert found.lists.mean_count == pytest.approx(want, rel=1e-6)
        assert found.lists.num_contexts == 350
        assert found.lists.k == 7
    gauge = audit(1e6 * query, 1e-9 * (items + 40.0), counts, context_weight=weight, scale=1e3, **given)
    assert gauge.lists.mean_count == pytest.approx(want, rel=1e-6)
    stream = audit(GramStream(8).add(query, weight), items, counts, **given)
    assert stream.lists is None
    assert "a GramStream keeps no contexts" in stream.table()
    none = audit(query, items, counts, permutations=0, top_k=0)
    assert none.lists is None
    assert none.to_dict()["top_lists"] is None
    assert "none were asked for" in none.table()
    short = audit(query, items[:5], 10 * np.arange(1, 6), permutations=0, top_k=10)
    assert short.lists.k == 5
    assert short.lists.mean_count == 30.0


def test_a_bias_orders_the_lists_too():
    query, items, counts = popular_on_top()
    bias = -50.0 * (np.arange(3000) >= 10)
    with pytest.warns(UserWarning, match="651 items without events carry the geometry"):
        found = audit(query, items, counts, bias=bias, permutations=0)
    assert found.lists.mean_count == pytest.approx(counts[:10].mean())


def test_a_sample_of_contexts_is_fair_and_the_same_however_they_are_cut():
    rows = np.arange(5000.0)[:, None]
    whole = ContextSample(7, size=200)
    whole.add(rows)
    cut = ContextSample(7, size=200)
    assert len(list(cut.watch([rows[:1], rows[1:900], rows[900:900], rows[900:]]))) == 4
    np.testing.assert_array_equal(np.sort(whole.rows()[0], axis=0), np.sort(cut.rows()[0], axis=0))
    assert len(np.unique(whole.rows()[0])) == 200
    means = []
    for seed in range(200):
        one = ContextSample(seed, size=50)
        one.add(rows[:2000])
        one.add(rows[2000:])
        means.append(one.rows()[0].mean())
    assert abs(np.mean(means) - 2499.5) < 4.5 * 5000 / 12**0.5 / (200 * 50) ** 0.5
    assert ContextSample(0).rows() is None


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"min_count": -1}, ValueError, "min_count: expected a finite number >= 0"),
        ({"min_count": 590}, ValueError, "min_count: expected one that leaves at least 4 items; got"),
        ({"subset": np.ones(5, bool)}, ValueError, r"subset: expected shape \[3000\]"),
        ({"subset": [1, 2, 3000, 4]}, ValueError, r"subset: expected ids in \[0, 3000\); got 3000"),
        ({"subset": [7, 2, 7, 4, 5]}, ValueError, "subset: expected different ids, .*; got 7 more than once"),
        (
            {"subset": [1, 2, 3]},
            ValueError,
            "subset: expected one that leaves at least 4 items; got 3 of 3000",
        ),
        ({"subset": [0.5, 1, 2, 3]}, TypeError, "subset: expected integers"),
        ({"top_k": -1}, ValueError, "top_k: expected an integer >= 0"),
        ({"top_k": 2.5}, TypeError, "top_k: expected an integer"),
        (
            {"logits": False, "pos_id": np.zeros(400, int)},
            ValueError,
            "pos_id: expected None with logits=False",
        ),
        (
            {"subset": np.arange(9), "null": "stratified", "strata": np.arange(8)},
            ValueError,
            r"strata: expected shape \[3000\]",
        ),
    ],
)
def test_each_bad_input_has_one_clear_error(change, error, words):
    query, items, counts = popular_on_top()
    with pytest.raises(error, match=words):
        audit(query, items, counts, permutations=0, **change)
