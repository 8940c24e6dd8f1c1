"""IPS and SNIPS of ranking metrics: against brute force, and against what everything seen would give."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from fastpop.evaluation import compare_paired, evaluate

USERS, ITEMS, K = 3, 6, 2


def cases_of(seen_UV):
    user, item = np.nonzero(seen_UV)
    return SimpleNamespace(
        num_cases=len(seen_UV),
        num_items=seen_UV.shape[1],
        history_offsets=np.zeros(len(seen_UV) + 1, int),
        history_item=np.zeros(0, int),
        target_offsets=np.searchsorted(user, np.arange(len(seen_UV) + 1)),
        target_item=item,
    )


def everything(seen_UV):
    """Every item a candidate, so that a case without a target is legal."""
    users, items = seen_UV.shape
    return np.arange(users + 1) * items, np.tile(np.arange(items), users)


def evaluated(score_UV, seen_UV, propensity, **options):
    return evaluate(
        score_UV,
        cases_of(seen_UV),
        candidates=everything(seen_UV),
        propensity=propensity,
        ks=(K,),
        logits=False,
        **options,
    )


def test_over_every_outcome_ips_is_the_metric_of_all_that_is_relevant():
    """2^9 outcomes of nine relevant pairs, each weighed by its chance."""
    rng = np.random.default_rng(0)
    score_UV, p_V = rng.standard_normal((USERS, ITEMS)), rng.uniform(0.2, 0.9, ITEMS)
    relevant_UV = np.zeros((USERS, ITEMS), bool)
    relevant_UV.reshape(-1)[rng.permutation(USERS * ITEMS)[:9]] = True
    rank_UV = 1 + (score_UV[:, None] > score_UV[:, :, None]).sum(2)
    hit_UV = relevant_UV & (rank_UV <= K)
    precision = hit_UV.sum() / (USERS * K)
    dcg = (hit_UV / np.log2(1 + rank_UV)).sum() / USERS
    pairs, mean = np.argwhere(relevant_UV), np.zeros(2)
    for outcome in itertools.product([False, True], repeat=len(pairs)):
        seen_UV = np.zeros((USERS, ITEMS), bool)
        seen_UV[tuple(pairs[list(outcome)].T)] = True
        p = p_V[pairs[:, 1]]
        chance = np.prod(np.where(outcome, p, 1 - p))
        if any(outcome):
            found = evaluated(score_UV, seen_UV, p_V).metrics
            mean += chance * np.array([found[f"ips_precision@{K}"], found[f"ips_dcg@{K}"]])
            inverse = 1 / np.broadcast_to(p_V, seen_UV.shape)
            hits = (inverse * (seen_UV & hit_UV)).sum() / (inverse * seen_UV).sum()
            assert found[f"snips_recall@{K}"] == pytest.approx(hits, rel=1e-12)
            gains = (inverse * (seen_UV & hit_UV) / np.log2(1 + rank_UV)).sum() / (inverse * seen_UV).sum()
            assert found[f"snips_dcg@{K}"] == pytest.approx(gains, rel=1e-12)
            told = inverse[seen_UV]
            assert found["propensity_ess"] == pytest.approx(told.sum() ** 2 / (told @ told), rel=1e-12)
    np.testing.assert_allclose(mean, [precision, dcg], rtol=1e-12)


def test_where_popular_items_are_seen_more_the_naive_recall_is_far_off_and_the_weighted_one_is_not():
    rng = np.random.default_rng(1)
    users, items = 1500, 60
    p_V = np.linspace(0.9, 0.05, items)
    relevant_UV = rng.random((users, items)) < 0.3
    score_UV = rng.standard_normal((users, items)) + 2 * p_V  # a model that shows what was shown
    rank_UV = items - np.argsort(np.argsort(score_UV, axis=1), axis=1)
    full = (rank_UV <= 10)[relevant_UV].mean()
    seen_UV = relevant_UV & (rng.random((users, items)) < p_V)
    found = evaluate(
        score_UV,
        cases_of(seen_UV),
        ks=(10,),
        logits=False,
        propensity=lambda case, item: p_V[item],
        candidates=everything(seen_UV),
    )
    weight = found.weight_of("snips_recall@10")
    value = found.per_case["snips_recall@10"]
    there = weight > 0
    error = np.sqrt(np.sum((weight[there] * (value[there] - found.metrics["snips_recall@10"])) ** 2))
    error /= weight.sum()
    assert abs(found.metrics["snips_recall@10"] - full) < 3 * error
    naive = found.per_case["recall@10"]
    naive_error = np.nanstd(naive) / np.sqrt(np.isfinite(naive).sum())
    assert abs(found.metrics["recall@10"] - full) > 5 * naive_error
    assert compare_paired(found, found, "snips_recall@10").difference == 0


def test_equal_propensities_change_nothing_but_the_scale():
    rng = np.random.default_rng(2)
    score_UV = rng.standard_normal((20, 9))
    seen_UV = np.zeros((20, 9), bool)
    seen_UV[np.arange(20), rng.integers(0, 9, 20)] = True
    plain, half = (evaluated(score_UV, seen_UV, np.full(9, p)).metrics for p in (1.0, 0.5))
    assert plain[f"ips_precision@{K}"] == pytest.approx(plain[f"precision@{K}"])
    assert half[f"ips_precision@{K}"] == pytest.approx(2 * plain[f"precision@{K}"])
    for found in (plain, half):
        assert found[f"snips_recall@{K}"] == pytest.approx(plain[f"recall@{K}"])
        assert found[f"snips_dcg@{K}"] == pytest.approx(plain[f"ndcg@{K}"])  # of one target a case
        assert found["propensity_ess"] == pytest.approx(20)


def test_bad_propensities_are_refused_and_without_any_the_metrics_are_left_out():
    score_UV, seen_UV = np.zeros((2, 4)), np.eye(2, 4, dtype=bool)
    with pytest.raises(ValueError, match=r"propensity: expected probabilities in \(0, 1\].*got 0 of item 1"):
        evaluated(score_UV, seen_UV, [1.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"propensity: expected shape \[4\]; got float64 \[3\]"):
        evaluated(score_UV, seen_UV, [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"propensity\(case, item\): expected shape \[2\]"):
        evaluated(score_UV, seen_UV, lambda case, item: np.ones(5))
    with pytest.raises(ValueError, match="metrics: expected propensity= beside 'snips_recall'"):
        evaluated(score_UV, seen_UV, None, metrics=["snips_recall"])
    assert not any("ips_" in key for key in evaluated(score_UV, seen_UV, None).metrics)
