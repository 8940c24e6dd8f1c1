"""Propensities: against their formulas, against the truth that they were drawn from, and as weights."""

import numpy as np
import pytest
import torch

import fastpop
from fastpop.data import Interactions
from fastpop.propensity import (
    LogisticPropensity,
    NaiveBayesPropensity,
    inverse_weights,
    popularity_propensity,
    snips_risk,
    weighted,
)
from fastpop.synthetic import exposed_ratings


def test_popularity_is_a_power_of_the_share_of_the_largest_count():
    np.testing.assert_allclose(popularity_propensity([4, 1, 0, 16], 0.5), [0.5, 0.25, 0.25, 1])
    assert (popularity_propensity([4, 1, 0, 16], 0) == 1).all()
    with pytest.raises(ValueError, match="counts: expected numbers >= 0, not all zero"):
        popularity_propensity([0, 0])
    with pytest.raises(ValueError, match="power: expected a finite number >= 0; got -1"):
        popularity_propensity([1, 2], -1)


def test_naive_bayes_is_the_formula_and_finds_what_it_was_drawn_from():
    found = NaiveBayesPropensity.fit([5, 5, 1, 5], [1, 1, 5, 1, 1, 5, 1, 1], 40)
    np.testing.assert_allclose(found.of([5, 1, 5]), [3 / 40 / (2 / 8), 1 / 40 / (6 / 8), 3 / 40 / (2 / 8)])
    world = exposed_ratings(by_value=0.8, seed=2)  # the value alone decides
    seen, random = world.draw(0), world.draw_random(100, seed=0)
    fitted = NaiveBayesPropensity.fit(world.rating_UV[seen], world.rating_UV[random], seen.size)
    true_R = np.array([world.propensity_UV[world.rating_UV == value].mean() for value in fitted.value_R])
    seen_R = np.array([(world.rating_UV[seen] == value).sum() for value in fitted.value_R])
    assert (np.abs(fitted.propensity_R / true_R - 1) < 4 / np.sqrt(seen_R)).all()  # 4 SE of a count
    loss_UV = (world.rating_UV - 3.9) ** 2
    risk = snips_risk(loss_UV[seen], fitted.of(world.rating_UV[seen]))
    assert risk.value == pytest.approx(loss_UV.mean(), rel=0.05)
    assert loss_UV[seen].mean() != pytest.approx(loss_UV.mean(), rel=0.2)


def test_naive_bayes_refuses_what_it_cannot_know():
    with pytest.raises(ValueError, match="random: expected every value that was seen; got no 3"):
        NaiveBayesPropensity.fit([3.0, 1.0], [1.0, 2.0], 10)
    with pytest.raises(ValueError, match=r"value: expected one of \[1\.0, 2\.0\]; got 4"):
        NaiveBayesPropensity.fit([1.0, 2.0], [1.0, 2.0], 10).of([4.0])
    assert NaiveBayesPropensity.fit([1.0, 1.0, 2.0], [1.0] + [2.0] * 9, 4).of([1.0]) == 1  # 5, cut to 1


def test_logistic_is_the_optimum_of_its_likelihood_and_finds_the_truth():
    world = exposed_ratings(by_value=0.0, by_item=0.9, share=0.2, seed=3)
    seen = world.draw(1)
    feature = np.broadcast_to(world.feature_V, seen.shape).reshape(-1, 1)
    fitted = LogisticPropensity.fit(feature, seen.reshape(-1))
    assert fitted.weight_D == pytest.approx([0.9], abs=0.05)
    np.testing.assert_allclose(fitted.of(feature), world.propensity_UV.reshape(-1), rtol=0.1)

    rng = np.random.default_rng(0)
    feature, seen = rng.standard_normal((200, 3)), rng.random(200) < 0.4
    fitted = LogisticPropensity.fit(feature, seen, l2=0.7)
    weight = torch.tensor([fitted.intercept, *fitted.weight_D], requires_grad=True, dtype=torch.float64)
    z = torch.as_tensor(feature) @ weight[1:] + weight[0]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        z, torch.as_tensor(seen).double(), reduction="sum"
    )
    (loss + 0.35 * weight[1:].square().sum()).backward()
    assert weight.grad.abs().max() < 1e-5
    assert fitted.of(feature).mean() == pytest.approx(seen.mean(), rel=1e-6)  # the free intercept


def test_logistic_of_features_that_tell_the_two_apart_ends():
    feature = np.r_[np.full(20, -100.0), np.full(20, 100.0)][:, None]
    fitted = LogisticPropensity.fit(feature, np.arange(40) >= 20, l2=1e-4)
    assert np.isfinite(fitted.weight_D).all()
    assert fitted.of(feature)[-1] > 0.99
    with pytest.raises(ValueError, match="seen: expected zeros and ones, some of each"):
        LogisticPropensity.fit(feature, np.ones(40))


def test_weights_have_mean_one_and_make_the_loss_that_of_everything():
    """A log of which popular items are shown more: weighted, its counts are those of what is liked."""
    rng = np.random.default_rng(0)
    liked_V, shown_V = rng.dirichlet(np.ones(12)), rng.uniform(0.05, 1, 12)
    seen_V = liked_V * shown_V / (liked_V @ shown_V)
    item = rng.choice(12, 60_000, p=seen_V)
    log = Interactions.from_arrays(rng.integers(0, 50, 60_000), item, item_ids=np.arange(12))
    told = weighted(log, shown_V[log.item])
    assert told.weight.mean() == pytest.approx(1)
    share_V = told.item_counts() / told.item_counts().sum()
    np.testing.assert_allclose(share_V, liked_V, atol=0.01)
    assert np.abs(log.item_counts() / 60_000 - liked_V).max() > 0.05
    twice = weighted(told, np.full(60_000, 0.3))
    np.testing.assert_allclose(twice.weight, told.weight)
    clipped = inverse_weights([0.01, 0.5, 1.0], clip=0.25)
    np.testing.assert_allclose(clipped, np.array([4, 2, 1]) * 3 / 7)
    with pytest.raises(ValueError, match=r"propensity: expected shape \[60000\]"):
        weighted(log, shown_V)


def test_what_is_trained_on_weights_learns_what_is_liked(one_thread):
    """One user, a bias an item: the learned marginal is that of the weighted events."""
    rng = np.random.default_rng(1)
    liked_V = np.array([0.1, 0.2, 0.3, 0.4])
    shown_V = np.array([1.0, 0.5, 0.25, 0.1])
    item = rng.choice(4, 4000, p=liked_V * shown_V / (liked_V @ shown_V))
    log = Interactions.from_arrays(np.zeros(4000, int), item, item_ids=np.arange(4))
    options = {
        "split": "none", "encoder": "factor", "loss": "full_softmax", "dim": 4, "epochs": 20,
        "batch_size": 500, "learning_rate": 0.1, "progress": False,
    }  # fmt: skip
    for one, share_V in ((log, liked_V * shown_V), (weighted(log, shown_V[log.item]), liked_V)):
        run = fastpop.train(one, **options)
        query_BD = next(iter(run.model.training_contexts(one)))[0]
        score_V = run.model.score(torch.as_tensor(query_BD).float())[0]
        np.testing.assert_allclose(torch.softmax(score_V, 0).numpy(), share_V / share_V.sum(), atol=0.02)
