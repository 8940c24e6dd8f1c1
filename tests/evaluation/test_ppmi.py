"""Shifted PPMI: counted by loops, cut by numpy's SVD."""

import math

import numpy as np
import pytest
import torch

from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.evaluation import ppmi_scorer
from fastpop.synthetic import TwinBlock

rng = np.random.default_rng(0)
LOG = Interactions.from_arrays(
    np.repeat(np.arange(20), 5), rng.zipf(1.5, 100) % 9, item_ids=np.arange(9), user_ids=np.arange(20)
)
CASES = Cases([0, 1, 2], [0, 3, 4, 4], [2, 0, 0, 5], [0, 1, 2, 3], [1, 2, 3], 9)


def by_loops(negatives):
    seen = [set(np.asarray(LOG.item)[np.asarray(LOG.user) == user].tolist()) for user in range(20)]
    both = [[sum(i in one and j in one for one in seen) if i != j else 0 for j in range(9)] for i in range(9)]
    each, total = [sum(row) for row in both], sum(map(sum, both))
    found = np.zeros((9, 9))
    for i in range(9):
        for j in range(9):
            if both[i][j]:
                found[i, j] = max(math.log(both[i][j] * total / (each[i] * each[j])) - math.log(negatives), 0)
    return found


@pytest.mark.parametrize(("dim", "negatives"), [(9, 1.0), (3, 1.0), (2, 0.5), (50, 2.0)])
def test_scores_are_sums_over_the_history_of_the_best_approximation(dim, negatives):
    left, sigma, right = np.linalg.svd(by_loops(negatives))
    matrix = (left[:, :dim] * sigma[:dim]) @ right[:dim]
    history = np.array([[1, 0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0, 0], [0.0] * 9])
    got = ppmi_scorer(LOG, CASES, dim=dim, negatives=negatives)(slice(0, 3))
    np.testing.assert_allclose(got.numpy(), history @ matrix, atol=2e-5)
    part = ppmi_scorer(LOG, CASES, dim=dim, negatives=negatives)(slice(1, 2))
    assert torch.allclose(part, got[1:2], atol=1e-5)


def test_users_of_one_item_have_no_pairs_and_all_scores_are_zero():
    log = Interactions.from_arrays(np.arange(4), np.arange(4))
    cases = Cases([0], [0, 1], [2], [0, 1], [1], 4)
    assert (ppmi_scorer(log, cases)(slice(0, 1)) == 0).all()
    with pytest.raises(ValueError, match="negatives: expected a finite number > 0; got 0"):
        ppmi_scorer(log, cases, negatives=0)


def test_scores_follow_what_kind_of_user_it_is_and_not_popularity():
    """Users of one kind each, whose PMI with every item is known."""
    world = TwinBlock(6, 5, 1.0, 1.2)
    log = world.sample_events(1500, 12, seed=0)
    users = 60
    cases = Cases(
        np.arange(users),
        log.offsets[: users + 1],
        log.item[: log.offsets[users]],
        np.arange(users + 1),
        np.zeros(users, int),
        world.num_items,
    )
    score = ppmi_scorer(log, cases, dim=4)(slice(0, users)).numpy()
    own = [np.corrcoef(score[u], world.pmi()[u % 6])[0, 1] for u in range(users)]
    assert np.mean(own) > 0.8
    assert abs(np.corrcoef(score.mean(0), world.log_prior_V)[0, 1]) < 0.5
