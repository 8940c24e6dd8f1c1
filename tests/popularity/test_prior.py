"""Smoothing against brute force and truth, the direction, and saved priors."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from fastpop.data import Interactions, columns
from fastpop.popularity import PopularityPrior, good_turing, loo_alpha, smooth_counts


def zipf_counts(num_items=3000, events=20_000, seed=0, exponent=1.1):
    p = np.arange(1.0, num_items + 1) ** -exponent
    p /= p.sum()
    return np.random.default_rng(seed).multinomial(events, p).astype(float), p


def loo_likelihood(counts, alpha):
    """The definition, event by event."""
    total, num_items = counts.sum(), len(counts)
    return math.fsum(n * math.log((n - 1 + alpha) / (total - 1 + alpha * num_items)) for n in counts if n > 0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("events", [500, 20_000])
def test_loo_alpha_maximises_the_definition(exponent, events):
    counts, _ = zipf_counts(events=events, exponent=exponent)
    ours = loo_alpha(counts)
    found = optimize.minimize_scalar(
        lambda x: -loo_likelihood(counts, math.exp(x)),
        bounds=(-math.log(3000), math.log(1e6)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert math.log(ours) == pytest.approx(found.x, abs=1e-4)
    assert loo_likelihood(counts, ours) >= -found.fun - 1e-9 * abs(found.fun)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=25))
def test_loo_alpha_is_never_beaten_inside_its_interval(count_list):
    counts = np.array(count_list, dtype=float)
    if counts.sum() < 2:
        counts[0] += 2
    ours = loo_alpha(counts)
    low, high = 1 / len(counts), 1e6 * max(1, counts.sum() / len(counts))
    assert low * (1 - 1e-9) <= ours <= high * (1 + 1e-9)
    best = max(loo_likelihood(counts, a) for a in np.geomspace(low, high, 300))
    assert loo_likelihood(counts, ours) >= best - 1e-9 * abs(best)


def test_loo_alpha_at_its_edges():
    # Equal counts vary less than chance: the optimum is at infinity, the interval's upper end.
    assert loo_alpha([5.0] * 10) == pytest.approx(5e6)
    # No singleton and unseen items: nothing asks for smoothing, the lower end.
    assert loo_alpha([5.0, 5, 0, 0]) == pytest.approx(0.25)
    # One event or one item: every alpha is as likely.
    assert loo_alpha([1.0, 0, 0]) == 1
    assert loo_alpha([7.0]) == 1
    assert loo_alpha([0.7, 0, 0]) == 1
    assert loo_alpha(np.array([10**12, 3, 0, 1])) > 0


@pytest.mark.parametrize(
    ("counts", "options", "bound"),
    [
        (np.random.default_rng(0).poisson(3, 300), {}, "upper"),  # vary no more than chance does
        ([4, 4, 4, 4], {}, "upper"),
        ([2, 4, 8, 16, 0, 0], {}, "lower"),  # no singleton: nothing says how likely the unseen are
        ([1, 1, 1, 2, 4, 8, 16, 0, 0], {"min_count": 2}, "lower"),
        ([5, 5, 5000, 20_000], {}, None),  # every item was seen: log p is that of the counts
        ([1, 1, 2, 4, 8, 16, 0, 0], {}, None),
        ([4, 4, 4, 4], {"smoothing": 4e6}, None),  # given, not fitted
        ([1, 1, 1, 2, 2, 3, 9, 0], {"smoothing": "good-turing"}, None),
    ],
)
def test_a_fitted_alpha_says_where_it_ran_to_an_end_of_its_range(counts, options, bound):
    prior = PopularityPrior.from_counts(counts, **options)
    assert prior.at_bound == bound
    assert prior.permuted(3).at_bound == bound


def test_loo_smoothing_predicts_new_events_better_than_fixed_ones():
    """What the leave-one-out likelihood stands for: held-out events from the same distribution."""
    counts, p = zipf_counts(events=5000)

    def held_out(alpha):
        return float(p @ np.log(smooth_counts(counts, alpha)[0]))

    chosen = held_out(loo_alpha(counts))
    assert all(chosen > held_out(alpha) for alpha in (0.01, 10.0, 100.0))
    best = max(held_out(alpha) for alpha in np.geomspace(0.01, 10, 50))
    assert best - chosen < 0.01


def test_additive_smoothing_is_its_formula():
    counts = np.array([3.0, 0, 1, 6])
    prior = PopularityPrior.from_counts(counts, 0.5)
    np.testing.assert_allclose(prior.prior_V, (counts + 0.5) / 12, rtol=1e-15)
    np.testing.assert_allclose(prior.log_prior_V, np.log((counts + 0.5) / 12), rtol=1e-15)
    assert prior.alpha == 0.5
    assert prior.smoothing == "additive"
    assert (prior.num_items, prior.num_events, prior.num_unseen) == (4, 10, 1)
    assert prior.facts["unseen_mass"] == pytest.approx(0.5 / 12)
    exact = PopularityPrior.from_counts([3.0, 1, 6], 0)
    np.testing.assert_allclose(exact.prior_V, [0.3, 0.1, 0.6])
    huge = PopularityPrior.from_counts(counts, 1e308)
    np.testing.assert_allclose(huge.prior_V, 0.25)


def test_min_count_turns_rare_items_into_unseen_ones():
    counts = np.array([3.0, 0, 1, 6, 2])
    prior = PopularityPrior.from_counts(counts, 1.0, min_count=3)
    np.testing.assert_allclose(prior.prior_V, np.array([4, 1, 1, 7, 1]) / 14)
    np.testing.assert_array_equal(prior.counts_V, counts)
    assert prior.facts["num_below_min_count"] == 2
    assert prior.num_unseen == 1
    with pytest.raises(ValueError, match="min_count: expected at most the largest count, 6"):
        PopularityPrior.from_counts(counts, 1.0, min_count=7)


def good_turing_plain(counts):
    """Simple Good-Turing step by step as in Gale (1995), for one list of counts."""
    values = sorted({int(n) for n in counts if n > 0})
    how_many = {r: int(np.sum(counts == r)) for r in values}
    z = {}
    for k, r in enumerate(values):
        q = values[k - 1] if k else 0
        t = values[k + 1] if k + 1 < len(values) else 2 * r - q
        z[r] = how_many[r] / (0.5 * (t - q))
    slope, intercept = np.polyfit(np.log(values), np.log([z[r] for r in values]), 1)

    def line(r):
        return math.exp(intercept + slope * math.log(r))

    star, turing_still = {}, True
    for r in values:
        y = (r + 1) * line(r + 1) / line(r)
        star[r] = y
        if turing_still:
            if r + 1 not in how_many:
                turing_still = False
                continue
            x = (r + 1) * how_many[r + 1] / how_many[r]
            sd = math.sqrt(
                (r + 1) ** 2 * how_many[r + 1] / how_many[r] ** 2 * (1 + how_many[r + 1] / how_many[r])
            )
            if abs(x - y) <= 1.65 * sd:
                turing_still = False
            else:
                star[r] = x
    total = counts.sum()
    unseen = int(np.sum(counts == 0))
    mass = how_many.get(1, 0) / total if unseen else 0.0
    norm = sum(how_many[r] * star[r] for r in values)
    return np.array([(1 - mass) * star[int(n)] / norm if n else mass / unseen for n in counts])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("events", [300, 20_000, 200_000])
def test_good_turing_matches_the_published_steps(seed, events):
    counts, _ = zipf_counts(events=events, seed=seed)
    ours = good_turing(counts)
    assert ours.sum() == pytest.approx(1)
    np.testing.assert_allclose(ours, good_turing_plain(counts), rtol=1e-9)


def test_good_turing_knows_the_mass_of_the_unseen():
    counts, p = zipf_counts(events=20_000)
    unseen = counts == 0
    assert good_turing(counts)[unseen].sum() == pytest.approx(p[unseen].sum(), rel=0.1)
    prior = PopularityPrior.from_counts(counts, "good-turing")
    assert prior.alpha is None
    assert prior.facts["unseen_mass"] == pytest.approx(p[unseen].sum(), rel=0.1)


def test_good_turing_on_gales_prosody_counts():
    """The worked example of Gale & Sampson (1995): P0 = .003883, line of slope -1.389374."""
    times = {
        1: 120,
        2: 40,
        3: 24,
        4: 13,
        5: 15,
        6: 5,
        7: 11,
        8: 2,
        9: 2,
        10: 1,
        12: 3,
        14: 2,
        15: 1,
        16: 1,
        17: 3,
        19: 1,
        20: 3,
        21: 2,
        23: 3,
        24: 3,
        25: 3,
        26: 2,
        27: 2,
        28: 1,
        31: 2,
        32: 2,
        33: 1,
        34: 2,
        36: 2,
        41: 3,
        43: 1,
        45: 3,
        46: 1,
        47: 1,
        50: 1,
        71: 1,
        84: 1,
        101: 1,
        105: 1,
        121: 1,
        124: 1,
        146: 1,
        162: 1,
        193: 1,
        199: 1,
        224: 1,
        226: 1,
        254: 1,
        257: 1,
        339: 1,
        421: 1,
        456: 1,
        481: 1,
        483: 1,
        1140: 1,
        1256: 1,
        1322: 1,
        1530: 1,
        2131: 1,
        2395: 1,
        6925: 1,
        7846: 1,
    }
    counts = np.array([r for r, n in times.items() for _ in range(n)] + [0.0])
    assert counts.sum() == 30_902
    p = good_turing(counts)
    assert p[-1] == pytest.approx(0.003883, abs=1e-6)
    # No Turing estimate is taken here, so the ratio of two adjusted counts is the line's.
    ratio = p[counts == 1][0] / p[counts == 2][0]
    slope = -1.389374
    assert ratio == pytest.approx(2 ** (slope + 1) / (2 * 1.5 ** (slope + 1)), rel=1e-6)


BAD = [
    ([1, -2.0], "loo", 0, ValueError, "counts: expected numbers >= 0; got -2.0 at item 1"),
    ([1, np.nan], "loo", 0, ValueError, r"counts: expected finite numbers; got nan at \[1\]"),
    ([1, np.inf], "loo", 0, ValueError, "counts: expected finite numbers; got inf"),
    ([0, 0], "loo", 0, ValueError, "counts: expected at least one event"),
    ([], "loo", 0, ValueError, "counts: expected at least one item"),
    ([[1.0]], "loo", 0, ValueError, "counts: expected a 1-d array"),
    ([1, 0], 0, 0, ValueError, "smoothing: expected alpha > 0 where items have no events"),
    ([1, 0], -1, 0, ValueError, "smoothing: expected a finite number >= 0; got -1"),
    ([1, 0], np.nan, 0, ValueError, "smoothing: expected a finite number"),
    ([1, 0], "kneser", 0, ValueError, "smoothing: expected one of 'loo', 'good-turing'"),
    ([1, 0], None, 0, TypeError, "smoothing: expected a finite number; got NoneType"),
    ([1, 0], True, 0, TypeError, "smoothing: expected a finite number; got bool"),
    ([1, 2], 1, -1, ValueError, "min_count: expected a finite number >= 0; got -1"),
    ([1.5, 2, 1], "good-turing", 0, ValueError, "counts: expected whole numbers"),
    ([2, 3, 0], "good-turing", 0, ValueError, "singletons"),
    ([1, 1, 0], "good-turing", 0, ValueError, "singletons"),
    ([2, 2], "good-turing", 0, ValueError, "at least two different counts"),
]


@pytest.mark.parametrize(("counts", "smoothing", "min_count", "kind", "message"), BAD)
def test_bad_input_gets_one_clear_error(counts, smoothing, min_count, kind, message):
    with pytest.raises(kind, match=message):
        PopularityPrior.from_counts(counts, smoothing, min_count)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=50), st.one_of(st.just("loo"), st.floats(1e-6, 1e6))
)
def test_every_prior_is_a_positive_distribution_in_the_order_of_counts(count_list, smoothing):
    counts = np.array(count_list, dtype=float)
    if not counts.any():
        counts[0] = 1
    prior = PopularityPrior.from_counts(counts, smoothing)
    assert prior.prior_V.sum() == pytest.approx(1)
    assert (prior.prior_V > 0).all()
    assert np.isfinite(prior.log_prior_V).all()
    order = np.argsort(counts, kind="stable")
    assert (np.diff(prior.prior_V[order]) >= -1e-18).all()


def test_the_direction_is_centred_and_of_unit_length():
    counts, _ = zipf_counts()
    prior = PopularityPrior.from_counts(counts)
    b = prior.direction()
    assert b.sum() == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(b) == pytest.approx(1)
    centred = prior.log_prior_V - prior.log_prior_V.mean()
    np.testing.assert_allclose(b, centred / np.linalg.norm(centred), atol=1e-14)
    for equal in ([5.0] * 1000, [1.0], [0.3] * 7):
        with pytest.raises(ValueError, match="a uniform one, whose direction is not defined"):
            PopularityPrior.from_counts(equal).direction()


def test_sensitivity_shows_how_far_the_direction_turns():
    counts, _ = zipf_counts()
    prior = PopularityPrior.from_counts(counts, 0.5)
    result = prior.sensitivity([0.5, 0.01, 100.0])
    assert result.cosines[0] == pytest.approx(1)
    for alpha, cosine in zip(result.alphas, result.cosines):
        other = PopularityPrior.from_counts(counts, alpha).direction()
        assert cosine == pytest.approx(float(other @ prior.direction()))
    assert result.cosines[2] < 0.9
    assert result.unseen_share == pytest.approx((counts == 0).mean())
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.alphas = ()
    table = PopularityPrior.from_counts(counts, "good-turing").sensitivity().table()
    assert max(map(len, table.splitlines())) <= 80
    assert len(table.splitlines()) == 8
    with pytest.raises(ValueError, match="alphas: expected a finite number >= 0; got -1"):
        prior.sensitivity([-1.0])
    limited = PopularityPrior.from_counts(counts, 0.5, min_count=3)
    assert limited.sensitivity([0.5]).cosines[0] == pytest.approx(1)


def test_a_permuted_prior_is_a_fixed_relabelling():
    counts, _ = zipf_counts()
    prior = PopularityPrior.from_counts(counts)
    moved = prior.permuted(3)
    np.testing.assert_array_equal(np.sort(moved.log_prior_V), np.sort(prior.log_prior_V))
    np.testing.assert_array_equal(moved.log_prior_V, prior.permuted(3).log_prior_V)
    assert (moved.log_prior_V != prior.permuted(4).log_prior_V).any()
    assert abs(np.corrcoef(moved.log_prior_V, prior.log_prior_V)[0, 1]) < 0.1
    np.testing.assert_allclose(
        moved.prior_V, (moved.counts_V + prior.alpha) / (counts.sum() + prior.alpha * len(counts))
    )
    assert moved.facts["permuted_seed"] == 3
    ramp = PopularityPrior.from_counts(np.arange(1.0, 9), 1.0)
    assert ramp.permuted(0).counts_V.tolist() == [2, 7, 3, 8, 5, 1, 6, 4]


def test_every_relabelling_is_about_as_likely():
    ramp = PopularityPrior.from_counts(np.arange(1.0, 4), 1.0)
    seen = {}
    for seed in range(1200):
        key = tuple(ramp.permuted(seed).counts_V)
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 6
    assert max(abs(n - 200) for n in seen.values()) < 60


def test_arrays_cannot_be_written_to_and_are_not_the_callers():
    counts = np.array([3.0, 0, 1])
    prior = PopularityPrior.from_counts(counts)
    counts[0] = 99
    assert prior.counts_V[0] == 3
    for array in (prior.counts_V, prior.prior_V, prior.log_prior_V):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("smoothing", ["loo", 0.5, "good-turing"])
def test_save_and_load_bit_for_bit(tmp_path, smoothing):
    prior = PopularityPrior.from_counts(zipf_counts()[0], smoothing, min_count=1)
    path = tmp_path / "prior.safetensors"
    prior.save(path)
    again = PopularityPrior.load(path)
    for name in ("counts_V", "prior_V", "log_prior_V"):
        np.testing.assert_array_equal(getattr(again, name), getattr(prior, name))
    assert (again.alpha, again.smoothing, again.min_count) == (prior.alpha, prior.smoothing, prior.min_count)
    assert again.facts == json.loads(json.dumps(prior.facts))
    with pytest.raises(ValueError, match="read-only"):
        again.prior_V[0] = 1
    assert [p.name for p in tmp_path.iterdir()] == ["prior.safetensors"]


def test_a_failed_save_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "prior.safetensors"
    PopularityPrior.from_counts([3.0, 1]).save(path)
    before = path.read_bytes()

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        PopularityPrior.from_counts([9.0, 1]).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["prior.safetensors"]


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a saved popularity-prior; got no file"):
        PopularityPrior.load(tmp_path / "none")
    path = tmp_path / "prior.safetensors"
    PopularityPrior.from_counts([3.0, 1]).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="path: expected a saved popularity-prior"):
        PopularityPrior.load(path)
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="another safetensors file"):
        PopularityPrior.load(path)


def test_from_interactions_takes_the_logs_counts():
    log = Interactions.from_arrays(
        [0] * 5 + [1] * 2, [0, 0, 2, 2, 2, 2, 2], user_ids=[0, 1], item_ids=[0, 1, 2]
    )
    prior = PopularityPrior.from_interactions(log, 1.0)
    np.testing.assert_allclose(prior.prior_V, [0.3, 0.1, 0.6])
    assert "num_items=3" in repr(prior)
    later = PopularityPrior.from_interactions(log, 1.0, first_events=False)
    np.testing.assert_allclose(later.prior_V, [2 / 8, 1 / 8, 5 / 8])


def weighted_likelihood(item, weight, num_items, alpha):
    """The definition, event by event."""
    count, total = np.bincount(item, weight, num_items), weight.sum()
    return math.fsum(
        w * math.log((count[i] - w + alpha) / (total - w + alpha * num_items)) for i, w in zip(item, weight)
    )


def chosen_by(likelihood, low=1e-6, high=1e6):
    return math.exp(
        optimize.minimize_scalar(
            lambda x: -likelihood(math.exp(x)),
            bounds=(math.log(low), math.log(high)),
            method="bounded",
            options={"xatol": 1e-10},
        ).x
    )


def weighted_log(scale=1.0, weight=None):
    rng = np.random.default_rng(3)
    item = np.minimum(rng.zipf(1.5, 400) - 1, 59)
    weight = rng.choice([0.25, 0.5, 0.75, 1.5], 400) if weight is None else np.full(400, weight)
    return Interactions.from_arrays(
        rng.integers(0, 30, 400), item, np.arange(400), scale * weight, item_ids=np.arange(60)
    )


@pytest.mark.parametrize("first_events", [True, False])
def test_each_weighted_event_is_left_out_by_its_own_weight(monkeypatch, first_events):
    log = weighted_log()
    kept = np.ones(400, bool)
    if not first_events:
        kept[log.offsets[:-1][np.diff(log.offsets) > 0]] = False
    want = chosen_by(lambda a: weighted_likelihood(log.item[kept], log.weight[kept], 60, a))
    for piece in (7, 1 << 20):
        monkeypatch.setattr(columns, "PIECE", piece)
        prior = PopularityPrior.from_interactions(log, first_events=first_events)
        assert prior.alpha == pytest.approx(want, rel=1e-4)
        assert prior.smoothing == "loo"


def test_weights_of_another_unit_give_the_same_prior():
    plain = PopularityPrior.from_interactions(weighted_log())
    for scale in (0.001, 2.0, 1000.0):
        other = PopularityPrior.from_interactions(weighted_log(scale))
        assert other.alpha == pytest.approx(scale * plain.alpha, rel=1e-6)
        np.testing.assert_allclose(other.prior_V, plain.prior_V, rtol=1e-6)
    ones = weighted_log(weight=1.0)
    of_ones = PopularityPrior.from_interactions(ones).alpha
    assert of_ones == pytest.approx(loo_alpha(ones.item_counts()), rel=1e-12)


def test_fractions_of_counts_are_events_of_that_weight():
    """2.25 is two events of 1 and one of .25; whole counts are what they were."""
    counts = np.array([2.25, 0, 0.5, 7, 1.75, 3, 0.125, 1, 0, 0])
    item = np.repeat(np.arange(10), np.ceil(counts).astype(int))
    weight = np.concatenate([[1.0] * int(n) + [n - int(n)] * int(n > int(n)) for n in counts])
    want = chosen_by(lambda a: weighted_likelihood(item, weight, 10, a))
    assert loo_alpha(counts) == pytest.approx(want, rel=1e-4)
    whole = np.floor(counts)
    assert loo_alpha(whole + 1e-12) == pytest.approx(loo_alpha(whole), rel=1e-3)


def test_a_prior_under_a_name_that_is_not_utf8(tmp_path, monkeypatch):
    import os

    monkeypatch.setenv("HOME", str(tmp_path))
    prior = PopularityPrior.from_counts([3, 1, 2])
    for path in (tmp_path / os.fsdecode(b"\xff.safetensors"), tmp_path / "a[1]", "~/home"):
        prior.save(path)
        assert PopularityPrior.load(path).log_prior_V.tobytes() == prior.log_prior_V.tobytes()
    assert (tmp_path / "home").is_file()
