"""Anisotropy, isotropy, uniformity and alignment with p: by brute force on small tables."""

import itertools

import numpy as np
import pytest

import fastpop
from fastpop.diagnostics import ScoreMoments, audit, self_similarity, uniformity
from fastpop.diagnostics.anisotropy import (
    Anisotropy,
    ItemUniformity,
    PartitionIsotropy,
    SingularAlignment,
    partition_isotropy,
)

NAMES = ("pc1_scores", "anisotropy", "isotropy", "uniformity", "singular_alignment")


def problem(seed=0, contexts=30, items=12, dim=4, bias=True):
    rng = np.random.default_rng(seed)
    query, item = rng.standard_normal((contexts, dim)) + 0.5, rng.standard_normal((items, dim)) + 0.3
    weight, log_p = rng.random(contexts), np.log(rng.dirichlet(np.ones(items)))
    bias_V = rng.standard_normal(items) if bias else None
    moments = ScoreMoments.of(query, item, bias=bias_V, scale=1.7, context_weight=weight)
    score = 1.7 * query @ item.T + (0 if bias_V is None else bias_V)
    return moments, score, weight / weight.sum(), log_p


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_they_are_listed_and_off_unless_asked_for():
    assert fastpop.available("diagnostics")[:5] == NAMES
    rng = np.random.default_rng(0)
    data = rng.standard_normal((40, 3)), rng.standard_normal((30, 3)), rng.integers(1, 90, 30)
    assert audit(*data, permutations=0).measured == ()
    found = audit(*data, permutations=0, diagnostics=NAMES)
    assert [one.name for one in found.measured] == list(NAMES)


def test_anisotropy_is_the_mean_cosine_and_the_share_of_the_largest_direction():
    moments, *_ = problem()
    found = Anisotropy().measure(moments, np.zeros(12))
    for key, item in (
        ("mean cosine", moments.item_VD),
        ("centred", moments.item_VD - moments.item_VD.mean(0)),
    ):
        cosine = [u @ v for u, v in itertools.combinations(unit(item), 2)]
        assert found[key] == pytest.approx(np.mean(cosine), rel=1e-12)
    sigma = np.linalg.svd(moments.item_VD, compute_uv=False)
    assert found["largest share"] == pytest.approx(sigma[0] ** 2 / (sigma**2).sum(), rel=1e-12)
    one = ScoreMoments.of(np.ones((2, 1)), np.arange(1.0, 6)[:, None])
    assert Anisotropy().measure(one, np.zeros(5))["largest share"] == pytest.approx(1)


def test_isotropy_is_the_ratio_of_partition_functions():
    moments, *_ = problem(seed=1)
    item = moments.item_VD
    axes = np.linalg.svd(item)[2]
    z = [np.exp(item @ (sign * axis)).sum() for axis in axes for sign in (1, -1)]
    assert PartitionIsotropy().measure(moments, np.zeros(12))["raw"] == pytest.approx(
        min(z) / max(z), rel=1e-10
    )
    assert partition_isotropy(np.vstack([np.eye(3), -np.eye(3)])) == pytest.approx(1, rel=1e-12)
    assert 0 < partition_isotropy(50 * item) < 1e-45  # no overflow
    far = item + np.array([30.0, 0, 0, 0])
    assert partition_isotropy(far) < 1e-20 < partition_isotropy(far - far.mean(0))


def test_uniformity_is_of_the_most_popular_items():
    moments, _, _, log_p = problem(seed=2)
    item = unit(moments.item_VD)
    for most in (12, 5):
        chosen = item[np.argsort(-log_p)[:most]]
        pairs = [np.exp(-2 * ((u - v) ** 2).sum()) for u, v in itertools.combinations(chosen, 2)]
        found = ItemUniformity(most=most).measure(moments, log_p)
        assert found == pytest.approx(np.log(np.mean(pairs)), rel=1e-10)
    assert ItemUniformity().measure(moments, log_p) == uniformity(moments.item_VD)


@pytest.mark.parametrize("bias", [False, True])
def test_alignment_with_p_is_that_of_the_singular_vectors_of_the_scores(bias):
    moments, score, weight, log_p = problem(seed=3, bias=bias)
    found = SingularAlignment(rank=3).measure(moments, log_p)
    vectors = np.linalg.svd(np.sqrt(weight)[:, None] * score)[2]
    p = np.exp(log_p) / np.linalg.norm(np.exp(log_p))
    assert found["first"] == pytest.approx(abs(vectors[0] @ p), rel=1e-9)
    assert found["first 3"] == pytest.approx(np.linalg.norm(vectors[:3] @ p), rel=1e-9)
    everything = SingularAlignment(rank=99).measure(moments, log_p)["first 99"]
    rank = np.linalg.matrix_rank(score)
    assert everything == pytest.approx(np.linalg.norm(vectors[:rank] @ p), rel=1e-9)


def test_scores_that_are_p_are_aligned_with_it():
    p = np.random.default_rng(0).dirichlet(np.ones(20))
    moments = ScoreMoments.of(np.ones((5, 1)), p[:, None])
    assert SingularAlignment().measure(moments, np.log(p))["first"] == pytest.approx(1)


def test_self_similarity_is_the_mean_cosine_within_groups():
    rng = np.random.default_rng(4)
    vector, group = rng.standard_normal((20, 3)), rng.integers(0, 6, 20)
    group[0] = 99  # alone: no pair
    within = []
    for one in np.unique(group):
        pairs = [u @ v for u, v in itertools.combinations(unit(vector[group == one]), 2)]
        if pairs:
            within.append(np.mean(pairs))
    found = self_similarity(vector, group)
    baseline = np.mean([u @ v for u, v in itertools.combinations(unit(vector), 2)])
    assert found.value == pytest.approx(np.mean(within), rel=1e-12)
    assert found.baseline == pytest.approx(baseline, rel=1e-12)
    assert found.adjusted == pytest.approx(np.mean(within) - baseline, rel=1e-12)
    assert found.num_groups == len(within)
    with pytest.raises(ValueError, match="group: expected a group of two or more; got 20 of one"):
        self_similarity(vector, np.arange(20))
    with pytest.raises(ValueError, match="vectors: expected rows that are not zero; got zero row 3"):
        self_similarity(np.where(np.arange(20)[:, None] == 3, 0, vector), group)
