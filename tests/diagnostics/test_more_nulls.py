"""Families of tests, tests that stop, tails beyond the draws, time shifts: exact where they can be."""

import itertools

import numpy as np
import pytest
from scipy import stats

from fastpop import synthetic
from fastpop.diagnostics import (
    ScoreMoments,
    audit,
    audit_many,
    family_wise,
    permutation_test,
    pooled_residual,
    sequential_energy_test,
    sequential_test,
    tail_p_value,
    time_shift_test,
)
from fastpop.diagnostics.tail import anderson_darling, fitted_pareto, survival


def made(observed, null_P, **known):
    return permutation_test("t", observed, np.asarray(null_P, float), **known)


def test_one_test_alone_keeps_its_p_value_and_a_copy_changes_nothing():
    rng = np.random.default_rng(0)
    null_P = rng.standard_normal(199)
    one = made(1.7, null_P)
    assert family_wise({"a": one})["a"] == one.p_value
    assert family_wise({"a": one, "b": made(17.0, 10 * null_P)}) == {"a": one.p_value, "b": one.p_value}


def test_step_down_is_the_definition():
    """Each adjusted p by loops: standardise, sort, compare with the largest of what is left."""
    rng = np.random.default_rng(1)
    null_MP = rng.standard_normal((4, 99)) * [[1], [5], [2], [1]] + [[0], [3], [1], [9]]
    observed = np.array([2.5, 6.0, 3.9, 9.1])
    known = {"null_mean": 3.0, "null_variance": 25.0}
    tests = {
        name: made(observed[m], null_MP[m], **(known if m == 1 else {})) for m, name in enumerate("abcd")
    }
    z, drawn = {}, {}
    for m, name in enumerate("abcd"):
        both = np.append(null_MP[m], observed[m])
        mean, deviation = (3.0, 5.0) if m == 1 else (both.mean(), both.std())
        z[name], drawn[name] = (observed[m] - mean) / deviation, (null_MP[m] - mean) / deviation
    order, largest, wanted = sorted(z, key=z.get, reverse=True), 0.0, {}
    for step, name in enumerate(order):
        reached = sum(max(drawn[other][draw] for other in order[step:]) >= z[name] for draw in range(99))
        largest = max(largest, (1 + reached) / 100)
        wanted[name] = largest
    assert family_wise(tests) == pytest.approx(wanted)
    assert all(wanted[name] >= tests[name].p_value - 0.02 for name in wanted)


def test_the_chance_of_one_false_rejection_among_many_is_the_level():
    """Twelve cells without popularity, 200 times: one small p among them is common, adjusted it is not."""
    rng = np.random.default_rng(2)
    plain = adjusted = 0
    for _ in range(200):
        shared_P = rng.standard_normal(100)
        cells = 0.7 * shared_P + 0.7 * rng.standard_normal((12, 100))  # the last draw is the data
        tests = {str(m): made(cell[-1], cell[:-1]) for m, cell in enumerate(cells)}
        plain += min(test.p_value for test in tests.values()) <= 0.05
        adjusted += min(family_wise(tests).values()) <= 0.05
    assert plain > 40
    assert stats.binomtest(adjusted, 200, 0.05).pvalue > 0.001


def test_families_are_made_of_audits_of_one_stream():
    rng = np.random.default_rng(3)
    item = rng.standard_normal((40, 3))
    models = {name: ScoreMoments.of(rng.standard_normal((20, 3)), item) for name in "xyz"}
    log_p = np.log(rng.dirichlet(np.ones(40)))
    found = audit_many(models, log_p, permutations=99)
    cells = {
        f"{name} {kind}": getattr(found, kind)[name] for name in "xyz" for kind in ("direction", "shared")
    }
    adjusted = family_wise(cells)
    assert list(adjusted) == list(cells)
    assert all(adjusted[name] >= cells[name].p_value - 1e-12 or adjusted[name] >= 0.01 for name in cells)
    with pytest.raises(ValueError, match="tests: expected the same permutations for all"):
        family_wise({"a": made(1, np.arange(9)), "b": made(1, np.arange(8))})
    with pytest.raises(ValueError, match=r"tests\['a'\]: expected a null that varies"):
        family_wise({"a": made(1.0, np.ones(9))})
    with pytest.raises(TypeError, match="tests: expected a dict of name to PermutationTest"):
        family_wise({})


def test_stopping_is_besag_and_cliffords_rule():
    values = np.array([0, 2, 0, 0, 3, 0, 2, 0] * 40, float)

    def draw(first, count):
        return values[first : first + count]

    for exceedances in (1, 3, 40, 41):
        reached = np.flatnonzero(values[:300] >= 2)
        found = sequential_test(draw, 2.0, exceedances=exceedances, most=300)
        last = reached[exceedances - 1] + 1
        assert (found.p_value, found.num_draws) == (exceedances / last, last)
        assert found.stopped_early
    never = sequential_test(draw, 9.0, exceedances=5, most=300)
    assert (never.p_value, never.num_draws, never.stopped_early) == (1 / 301, 300, False)
    some = sequential_test(draw, 3.0, exceedances=40, most=300)
    assert some.p_value == (1 + (values[:300] >= 3).sum()) / 301
    with pytest.raises(ValueError, match="most: expected an integer >= 5"):
        sequential_test(draw, 1.0, exceedances=5, most=4)


def test_its_p_values_are_no_smaller_than_they_say():
    """Every p that the rule can give, with its exact chance under the null of exchangeable draws."""
    h, most = 3, 12
    chance: dict[float, float] = {}
    for rank in range(most + 1):  # how many of all 12 draws reach the data: each count as likely
        for reached in itertools.combinations(range(most), rank):
            pattern = np.zeros(most)
            pattern[list(reached)] = 1
            found = sequential_test(
                lambda first, n, p=pattern: p[first : first + n], 1.0, exceedances=h, most=most
            )
            share = 1 / (most + 1) / len(list(itertools.combinations(range(most), rank)))
            chance[found.p_value] = chance.get(found.p_value, 0.0) + share
    assert sum(chance.values()) == pytest.approx(1)
    below = 0.0
    for p_value in sorted(chance):
        below += chance[p_value]
        assert below <= p_value + 1e-12


def test_a_stopped_test_of_an_energy_draws_from_the_stream_of_the_audit():
    rng = np.random.default_rng(4)
    query, item, counts = rng.standard_normal((30, 3)), rng.standard_normal((50, 3)), rng.integers(1, 99, 50)
    whole = audit(query, item, counts, permutations=400, seed=7)
    moments = ScoreMoments.of(query, item)
    for statistic, test in (("shared", whole.test_shared), ("direction", whole.test_direction)):
        found = sequential_energy_test(
            moments, whole.log_prior_V, statistic=statistic, seed=7, exceedances=5, most=400
        )
        reached = np.flatnonzero(test.null_P >= test.observed)
        assert found.num_draws == reached[4] + 1
        assert found.observed == test.observed
    with pytest.raises(ValueError, match="strata: expected integers"):
        sequential_energy_test(moments, whole.log_prior_V, null="stratified")


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_a_generalised_pareto_tail_is_found_and_extended(shape):
    rng = np.random.default_rng(5)
    pareto = stats.genpareto(shape, scale=2.0)
    sample = np.sort(pareto.rvs(20_000, random_state=rng))
    found_shape, found_spread = fitted_pareto(sample)
    assert found_shape == pytest.approx(shape, abs=0.04)
    assert found_spread == pytest.approx(2.0, rel=0.05)
    x = np.linspace(0, 5, 7)
    np.testing.assert_allclose(survival(x, shape, 2.0), pareto.sf(x), rtol=1e-9, atol=1e-15)
    some = np.sort(pareto.rvs(50, random_state=rng))
    cdf = pareto.cdf(some)
    wanted = -50 - sum(
        (2 * i - 1) / 50 * (np.log(cdf[i - 1]) + np.log(1 - cdf[50 - i])) for i in range(1, 51)
    )
    assert anderson_darling(some, shape, 2.0) == pytest.approx(wanted, rel=1e-9)


def test_small_p_values_of_known_nulls_come_out_within_a_factor():
    """Where 2,000 draws say at most 1/2001: chi-square nulls, as shared energies have."""
    rng = np.random.default_rng(6)
    ratios = []
    for _ in range(20):
        null = rng.chisquare(1, 2000)
        observed = float(stats.chi2(1).isf(1e-5))
        found = tail_p_value(observed, null)
        if found.p_value is not None:
            ratios.append(found.p_value / 1e-5)
    assert len(ratios) >= 15
    assert 1 / 4 < np.exp(np.mean(np.log(ratios))) < 4
    assert "an approximation: generalised Pareto tail" in tail_p_value(20.0, null).words()


def test_no_tail_where_counting_is_better_or_nothing_fits():
    rng = np.random.default_rng(7)
    null = rng.standard_normal(2000)
    assert "counting them is better" in tail_p_value(1.0, null).why
    assert tail_p_value(1.0, null).p_value is None
    ties = np.repeat(np.arange(4.0), 500)  # no density has them
    assert "no generalised Pareto distribution fits" in tail_p_value(19.0, ties).words()
    assert tail_p_value(19.0, np.floor(2 * null)).p_value is None
    ends = tail_p_value(9.0, rng.random(2000))
    assert "before the observed value" in ends.why
    with pytest.raises(ValueError, match="null: expected at least 500 draws"):
        tail_p_value(1.0, null[:100])


def temporal(seed=0, contexts=60, items=15, buckets=6):
    rng = np.random.default_rng(seed)
    log_p = np.log(rng.dirichlet(np.ones(items), buckets))
    return rng, log_p, rng.integers(0, buckets, contexts)


def test_energies_of_time_are_the_definition():
    rng, log_p, bucket = temporal()
    query, item, bias = rng.standard_normal((60, 4)), rng.standard_normal((15, 4)), rng.standard_normal(15)
    weight = rng.random(60)
    for residual in (False, True):
        found = time_shift_test(
            query, item, bucket, log_p, bias=bias, scale=1.3, context_weight=weight, residual=residual
        )
        direction = log_p - residual * log_p.mean(0)
        direction = direction - direction.mean(1, keepdims=True)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        score, w = 1.3 * query @ item.T + bias, weight / weight.sum()

        def energy(shift, direction=direction, score=score, w=w):
            return sum(w[c] * (score[c] @ direction[(bucket[c] + shift) % 6]) ** 2 for c in range(60))

        assert found.energy == pytest.approx(energy(0), rel=1e-10)
        np.testing.assert_allclose(found.shifted_S, [energy(s) for s in range(1, 6)], rtol=1e-10)
        assert found.p_value == (1 + (found.shifted_S >= found.energy).sum()) / 6


def test_scores_that_follow_their_time_are_told_and_others_are_not():
    rng, log_p, bucket = temporal(1, contexts=400, items=40, buckets=20)
    own = time_shift_test(np.eye(20)[bucket], log_p.T, bucket, log_p)
    assert own.p_value == 1 / 20
    bucket = np.arange(400) % 20  # periods of equal size, and scores that are the same at all times
    pooled = time_shift_test(np.ones((400, 1)), log_p.mean(0)[:, None], bucket, log_p, residual=False)
    assert pooled.p_value == 1
    small = 0
    for seed in range(60):
        rng, log_p, bucket = temporal(seed, contexts=100, items=30, buckets=20)
        found = time_shift_test(rng.standard_normal((100, 3)), rng.standard_normal((30, 3)), bucket, log_p)
        small += found.p_value <= 0.1
    assert stats.binomtest(small, 60, 0.1, alternative="greater").pvalue > 0.001


def test_the_residual_of_a_pooled_prior_is_its_definition():
    rng, log_p, _ = temporal(2)
    weight = rng.random(6)
    share = weight / weight.sum()
    left = log_p - np.log(share @ np.exp(log_p))
    wanted = sum(w * np.var(row) * 15 for w, row in zip(share, left))
    assert pooled_residual(log_p, weight) == pytest.approx(wanted, rel=1e-12)
    assert pooled_residual(np.tile(log_p[0], (4, 1))) == pytest.approx(0, abs=1e-20)
    with pytest.raises(ValueError, match="bucket: expected ids in"):
        time_shift_test(np.ones((2, 1)), np.ones((15, 1)), [0, 6], log_p)
    with pytest.raises(ValueError, match="log_prior: expected two periods or more"):
        time_shift_test(np.ones((2, 1)), np.ones((15, 1)), [0, 0], log_p[:1])


@pytest.mark.parametrize(("theta", "nats"), [(0.2, 0.024911150210), (0.4, 0.098463335609)])
def test_a_stale_prior_costs_the_divergence_of_the_levels_whatever_the_association(theta, nats):
    """p_t(i | k) = p_t(i) exp(PMI), p_t = p l^theta / Z: a tilt of levels alone, so rows still sum to 1."""
    for kappa_slope in (0.0, 0.3095):
        world = synthetic.TwinBlock(12, 30, 1.1, 0.5, kappa_slope)
        tilt = theta * np.log(1 + world.level_V)
        log_now = world.log_prior_V + tilt
        log_now -= np.log(np.exp(log_now).sum())
        stale, now = world.scores(), world.pmi() + log_now
        np.testing.assert_allclose(np.exp(now).sum(axis=1), 1, rtol=1e-12)
        excess = (np.exp(now) * (now - stale)).sum(axis=1).mean()
        z, z_now = (np.bincount(world.level_V, np.exp(row)) for row in (world.log_prior_V, log_now))
        assert excess == pytest.approx(z_now @ np.log(z_now / z), abs=1e-12)
        assert excess == pytest.approx(nats, abs=1e-9)


def test_times_have_the_rank_of_their_levels():
    """rank(F) = 1 + K where log z and the h_k are independent of each other and of a constant."""
    world = synthetic.TwinBlock(12, 30, 1.1, 0.5)
    level = 1 + world.level_V
    rng = np.random.default_rng(0)
    for h, rank in (
        ([np.log(level)], 1),  # Zipf levels: log z itself
        ([(-1.0) ** level], 2),
        ([(-1.0) ** level, level % 3.0], 3),
    ):
        log_p = world.log_prior_V + rng.standard_normal((9, len(h))) @ np.array(h)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        centred = log_p - log_p.mean(axis=1, keepdims=True)
        assert np.linalg.matrix_rank(centred, tol=1e-9 * np.linalg.norm(centred)) == rank


def rejections(repetitions):
    count = dict.fromkeys(
        [("label", "direction"), ("label", "shared"), ("sign", "direction"), ("sign", "shared")], 0
    )
    for seed in range(repetitions):
        control = synthetic.norm_confounded(150, seed=seed)
        for null in ("label", "sign"):
            found = audit(
                control.query, control.items, control.counts, permutations=199, null=null, seed=seed, top_k=0
            )
            count[null, "direction"] += found.p_value_direction <= 0.05
            count[null, "shared"] += found.p_value_shared <= 0.05
    return {key: value / repetitions for key, value in count.items()}


def test_item_norms_tied_to_popularity_fool_the_label_null_in_short():
    share = rejections(30)
    assert share["label", "direction"] >= 0.6
    assert share["label", "shared"] >= 0.2
    assert max(share["sign", "direction"], share["sign", "shared"]) <= 0.2


@pytest.mark.slow
def test_item_norms_tied_to_popularity_fool_the_label_null_and_not_that_of_signs():
    share = rejections(300)
    assert share["label", "direction"] >= 0.75
    assert share["label", "shared"] >= 0.35
    for kind in ("direction", "shared"):
        assert 0.02 <= share["sign", kind] <= 0.09
