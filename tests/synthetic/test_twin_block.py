"""The generator: its closed forms against its own matrices, and its samples against both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastpop import synthetic
from fastpop.diagnostics import ScoreMoments, audit_many
from fastpop.popularity.prior import PopularityPrior
from fastpop.synthetic import TwinBlock

BLOCKS = st.builds(
    TwinBlock,
    groups=st.integers(4, 9),
    levels=st.integers(2, 6),
    zeta=st.floats(0.2, 2),
    kappa=st.floats(-2, 2),
    kappa_slope=st.floats(-1, 1),
    modes=st.sampled_from([(1,), (2,), (1, 2)]),
)


def test_the_paper_headline_by_formula():
    block = synthetic.paper_headline()
    assert block.num_items == 360
    assert block.delta == pytest.approx(0.1342, abs=5e-5)
    assert block.reduction == pytest.approx(0.98600, abs=5e-6)


def test_the_paper_headline_by_matrix():
    block = synthetic.paper_headline()
    energy = {}
    for prior_weight in (0.0, 1.0):
        score = block.scores(prior_weight)
        centred = score - score.mean(axis=1, keepdims=True)
        b = block.log_prior_V - block.log_prior_V.mean()
        b /= np.linalg.norm(b)
        energy[prior_weight] = (centred @ b).mean() ** 2
    assert 1 - energy[0.0] / energy[1.0] == pytest.approx(block.reduction, rel=1e-12)


def test_the_paper_headline_by_the_audit():
    block = synthetic.paper_headline()
    models = {
        name: ScoreMoments.of(query, items, bias=bias)
        for name, weight in (("standard", 1.0), ("separated", 0.0))
        for query, items, bias in [block.factors(weight)]
    }
    found = audit_many(models, block.log_prior_V, permutations=500)
    shared = {name: e.shared for name, e in found.energy.items()}
    assert 1 - shared["separated"] / shared["standard"] == pytest.approx(0.98600, abs=5e-6)
    assert found.energy["standard"].slope_mean == pytest.approx(1 + block.delta, rel=1e-12)
    assert found.energy["separated"].slope_mean == pytest.approx(block.delta, rel=1e-11)
    assert found.pairs["standard", "separated"].shared.p_value == 1 / 501


@settings(max_examples=50, deadline=None)
@given(block=BLOCKS)
def test_rows_and_columns_hold_exactly(block):
    conditional = np.exp(block.scores())
    np.testing.assert_allclose(conditional.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(conditional.mean(axis=0), block.prior_V, rtol=1e-12)
    assert block.prior_V.sum() == pytest.approx(1, rel=1e-13)
    posterior = conditional / block.prior_V / block.groups  # p(k | i)
    divergence = np.log(1 / block.groups / posterior).mean(axis=0)
    np.testing.assert_allclose(block.divergence_V, divergence, rtol=1e-9, atol=1e-13)
    assert (block.divergence_V >= -1e-15).all()
    floor = -(conditional * np.log(conditional)).sum(axis=1).mean()
    assert block.entropy_floor == pytest.approx(floor, rel=1e-12)
    assert block.entropy_floor <= block.entropy + 1e-12


@settings(max_examples=50, deadline=None)
@given(block=BLOCKS, weight=st.floats(-1, 2))
def test_factors_are_the_scores(block, weight):
    query, items, bias = block.factors(weight)
    assert query.shape == (block.groups, 2 * len(block.modes))
    np.testing.assert_allclose(query @ items.T + bias, block.scores(weight), atol=1e-12)
    mean = block.scores(weight).mean(axis=0)
    np.testing.assert_allclose(mean, weight * block.log_prior_V - block.divergence_V, atol=1e-12)


def test_constant_strength_means_delta_0_and_a_known_rank():
    block = TwinBlock(groups=9, levels=7, zeta=1.2, kappa=0.8, modes=(1, 3))
    assert block.delta == pytest.approx(0, abs=1e-14)
    assert block.reduction == pytest.approx(1, abs=1e-14)
    pmi = block.pmi()
    sigma = np.linalg.svd(pmi - pmi.mean(axis=1, keepdims=True), compute_uv=False)
    assert (sigma > 1e-10 * sigma[0]).sum() == 4
    standard = block.scores()
    sigma = np.linalg.svd(standard - standard.mean(axis=1, keepdims=True), compute_uv=False)
    assert (sigma > 1e-10 * sigma[0]).sum() == 5


def test_uniform_popularity_has_no_delta():
    for block in (TwinBlock(6, 5, 0.0, 0.5), TwinBlock(6, 1, 1.0, 0.5)):
        with pytest.raises(ValueError, match="uniform"):
            _ = block.delta
        with pytest.raises(ValueError, match="uniform"):
            _ = block.reduction


@settings(max_examples=20, deadline=None)
@given(block=BLOCKS)
def test_the_chain_keeps_p_and_its_posterior_is_bayes(block):
    every = block.transition(np.arange(block.num_items))
    np.testing.assert_allclose(block.prior_V @ every, block.prior_V, rtol=1e-12)
    joint = every[2][:, None] * every  # left = 2, then j, then right
    np.testing.assert_allclose(block.masked_posterior(2, 3), joint[:, 3] / joint[:, 3].sum(), rtol=1e-10)
    next_entropy = -(block.prior_V @ (every * np.log(every)).sum(axis=1))
    assert next_entropy == pytest.approx(block.entropy_floor, rel=1e-11)


def test_events_follow_the_distribution():
    block = TwinBlock(groups=5, levels=4, zeta=1.0, kappa=0.7, kappa_slope=0.4)
    log = block.sample_events(500, 40, seed=3)
    assert (log.num_users, log.num_items, log.num_events) == (500, 20, 20_000)
    kind = log.user % 5
    table = np.zeros((5, 20))
    np.add.at(table, (kind, log.item), 1)
    expected = np.exp(block.scores()) * table.sum(axis=1, keepdims=True)
    assert stats.chi2.sf(((table - expected) ** 2 / expected).sum(), 5 * 19) > 1e-3


def test_sequences_follow_the_chain():
    block = TwinBlock(groups=5, levels=4, zeta=1.0, kappa=0.7, kappa_slope=0.4)
    log = block.sample_sequences(800, 25, seed=4)
    item = log.item.reshape(800, 25)
    assert (log.time.reshape(800, 25) == np.arange(25)).all()
    first = np.bincount(item[:, 0], minlength=20)
    assert stats.chisquare(first, 800 * block.prior_V).pvalue > 1e-3
    table = np.zeros((5, 20))
    np.add.at(table, (block.group_V[item[:, :-1]].ravel(), item[:, 1:].ravel()), 1)
    expected = np.exp(block.scores()) * table.sum(axis=1, keepdims=True)
    assert stats.chi2.sf(((table - expected) ** 2 / expected).sum(), 5 * 19) > 1e-3


def test_sampling_is_repeatable_and_keeps_unseen_items():
    block = synthetic.paper_headline()
    one, two = (block.sample_events(20, 5, seed=1) for _ in range(2))
    assert (one.item == two.item).all()
    assert (one.item != block.sample_events(20, 5, seed=2).item).any()
    assert one.num_items == 360
    assert (one.item_counts() == 0).any()


def test_an_audit_of_sampled_counts_finds_the_population_value():
    block = TwinBlock(groups=6, levels=5, zeta=1.1, kappa=0.5, kappa_slope=0.3)
    log = block.sample_events(3000, 100, seed=0)
    prior = PopularityPrior.from_interactions(log)
    query, items, bias = block.factors(1.0)
    found = audit_many({"m": ScoreMoments.of(query, items, bias=bias)}, prior.log_prior_V, permutations=0)
    assert found.energy["m"].slope_mean == pytest.approx(1 + block.delta, rel=0.01)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"groups": 1}, ValueError, "groups: expected an integer >= 2"),
        ({"levels": 0}, ValueError, "levels: expected an integer >= 1"),
        ({"groups": 3, "levels": 1}, ValueError, r"groups \* levels: expected at least 4"),
        ({"zeta": -1.0}, ValueError, "zeta: expected a finite number >= 0"),
        ({"kappa": float("nan")}, ValueError, "kappa: expected a finite number"),
        ({"modes": (0,)}, ValueError, "modes: expected an integer >= 1 <= 3"),
        ({"modes": (1, 1)}, ValueError, "modes: expected different integers"),
        ({"modes": (1.5,)}, TypeError, "modes: expected an integer"),
    ],
)
def test_each_bad_input_has_one_clear_error(change, error, words):
    good = {"groups": 6, "levels": 5, "zeta": 1.0, "kappa": 0.5}
    with pytest.raises(error, match=words):
        TwinBlock(**{**good, **change})


def test_bad_samples_are_named():
    block = synthetic.paper_headline()
    with pytest.raises(ValueError, match="num_users: expected an integer >= 1"):
        block.sample_events(0, 5, seed=0)
    with pytest.raises(ValueError, match="length: expected an integer >= 1"):
        block.sample_sequences(5, 0, seed=0)
    with pytest.raises(ValueError, match="seed: expected an integer >= 0"):
        block.sample_events(5, 5, seed=-1)
    with pytest.raises(ValueError, match=r"left: expected ids in \[0, 360\)"):
        block.masked_posterior(360, 0)
    with pytest.raises(TypeError, match="item: expected integer item ids"):
        block.transition([0.5])
