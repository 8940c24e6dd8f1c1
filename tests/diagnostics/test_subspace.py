"""Subspaces against brute force: dense scores, angles that were put in, a generator whose time is known."""

import numpy as np
import pytest

from fastpop import diagnostics, synthetic
from fastpop.diagnostics import ScoreMoments, principal_angles, subspace_energy, time_subspace


def test_angles_that_were_put_in_come_back_whatever_the_basis():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    angle = np.array([0.0, 0.3, 1.1, np.pi / 2])
    first = turn[:, :4]
    second = first * np.cos(angle) + turn[:, 4:8] * np.sin(angle)
    mixed = second @ rng.normal(size=(4, 4))
    np.testing.assert_allclose(principal_angles(first * [1, 5, 9, 2], mixed), np.cos(angle), atol=1e-12)
    np.testing.assert_allclose(principal_angles(first[:, :1], mixed), [1.0], atol=1e-12)
    assert principal_angles(first, turn[:, 8:10]).max() < 1e-12


@pytest.mark.parametrize("with_bias", [False, True])
def test_energy_in_a_subspace_is_that_of_dense_scores(with_bias):
    rng = np.random.default_rng(1)
    query, items, weight = rng.normal(size=(50, 5)) + 0.4, rng.normal(size=(30, 5)), rng.random(50)
    bias = rng.normal(size=30) if with_bias else None
    basis = rng.normal(size=(30, 3))
    moments = ScoreMoments.of(query, items, bias=bias, scale=1.7, context_weight=weight)
    found = subspace_energy(moments, basis)
    score = 1.7 * query @ items.T + (0 if bias is None else bias)
    score -= score.mean(axis=1, keepdims=True)
    centred = basis - basis.mean(axis=0)
    onto = centred @ np.linalg.pinv(centred)
    share = weight / weight.sum()
    assert found.energy == pytest.approx(share @ ((score @ onto) ** 2).sum(axis=1), rel=1e-11)
    assert found.total == pytest.approx(share @ (score**2).sum(axis=1), rel=1e-11)
    assert (found.dim, found.null_share) == (3, 3 / 29)
    assert found.share == found.energy / found.total
    log_prior = rng.normal(size=30)
    along, known = subspace_energy(moments, log_prior[:, None]), moments.energy(log_prior)
    assert along.energy == pytest.approx(known.direction, rel=1e-11)
    assert along.total == pytest.approx(known.total, rel=1e-11)


def test_random_subspaces_have_the_null_share_on_average():
    rng = np.random.default_rng(2)
    moments = ScoreMoments.of(rng.normal(size=(20, 4)), rng.normal(size=(25, 4)))
    share = [subspace_energy(moments, rng.normal(size=(25, 2))).share for _ in range(2000)]
    error = np.std(share) / np.sqrt(len(share))
    assert abs(np.mean(share) - 2 / 24) < 4 * error
    assert error < 0.002


def drifting(num_periods=6):
    """(generator, log p_t, its independent drifts): levels that move along two directions of their own."""
    world = synthetic.TwinBlock(6, 12, 1.1, 0.5)
    level = 1 + world.level_V
    drift = np.stack([(-1.0) ** level, level % 3.0])
    log_p = world.log_prior_V + 0.3 * np.random.default_rng(3).normal(size=(num_periods, 2)) @ drift
    return world, log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True)), drift


def test_the_time_subspace_is_that_of_the_drifts():
    world, log_p, drift = drifting()
    b = world.log_prior_V - world.log_prior_V.mean()
    b /= np.linalg.norm(b)
    drift = drift - drift.mean(axis=1, keepdims=True)
    off = drift - np.outer(drift @ b, b)
    basis = time_subspace(log_p, 2, beside=world.log_prior_V)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(basis.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(principal_angles(basis, off.T), 1, atol=1e-12)
    whole = time_subspace(log_p, 3)
    np.testing.assert_allclose(principal_angles(whole, np.column_stack([b, off.T])), 1, atol=1e-12)
    weight = np.arange(1.0, 7)
    centred = log_p - log_p.mean(axis=1, keepdims=True)
    top = np.linalg.svd(np.sqrt(weight)[:, None] * centred)[2][:1]
    np.testing.assert_allclose(principal_angles(time_subspace(log_p, 1, weight=weight), top.T), 1)
    with pytest.raises(ValueError, match=r"^dim: expected at most 2, the directions .*; got 3$"):
        time_subspace(log_p, 3, beside=world.log_prior_V)


def test_a_pooled_log_p_leaves_the_time_in_the_scores_and_one_by_period_nothing():
    """The best scores of contexts that tell the time, beside each: PMI + log p_t - f."""
    world, log_p, _ = drifting()
    pooled = np.log(np.exp(log_p).mean(axis=0))
    basis = time_subspace(log_p - pooled, 3)
    energy = {}
    for name, left in (("pooled", log_p - pooled), ("by period", 0 * log_p)):
        score = (world.pmi()[None] + left[:, None]).reshape(-1, world.num_items)
        moments = ScoreMoments.of(score, np.eye(world.num_items))
        energy[name] = subspace_energy(moments, basis).energy
    assert energy["by period"] < 1e-20  # groups know nothing of levels
    assert energy["pooled"] == pytest.approx(diagnostics.pooled_residual(log_p), rel=1e-10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: principal_angles(np.ones((5, 2)), np.eye(5)), "first: expected columns that do not depend"),
        (lambda: principal_angles(np.eye(5), np.zeros((5, 1))), "second: expected columns that are not zero"),
        (lambda: principal_angles(np.eye(5), np.eye(4)), "second: expected shape"),
        (lambda: principal_angles(np.ones((2, 3)), np.eye(2)), "first: expected 1 to 2 columns"),
        (lambda: time_subspace(np.zeros((3, 5)), 0), "dim: expected an integer >= 1"),
        (lambda: time_subspace(np.eye(3), 1, weight=[1, -1, 1]), "weight: expected numbers >= 0"),
        (lambda: time_subspace(np.eye(3), 1, beside=np.ones(4)), "beside: expected shape"),
    ],
)
def test_bad_subspaces_are_refused(call, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        call()
