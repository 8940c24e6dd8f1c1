"""DICE: its sampler, its parts, row by row."""

import math

import numpy as np
import pytest
import torch
from helpers_losses import PLAIN, built, rows

from fastpop import testing
from fastpop.objectives import DICE, PopularityMargin

COUNTS = np.array([1.0, 2, 3, 10, 11, 20, 21, 22, 50])


def test_negatives_are_a_margin_more_or_less_popular_each_side_as_often():
    sampler, rng = PopularityMargin(COUNTS, 5.0), np.random.default_rng(0)
    drawn = sampler.draw(np.full(2000, 3), 2, rng).reshape(-1)  # 10 events: below 5, above 15
    assert set(drawn) == {0, 1, 2, 5, 6, 7, 8}
    share = np.bincount(drawn, minlength=9) / len(drawn)
    np.testing.assert_allclose(share[:3], 1 / 6, atol=0.02)
    np.testing.assert_allclose(share[5:], 1 / 8, atol=0.02)
    assert set(sampler.draw(np.full(500, 8), 2, rng).reshape(-1)) == set(range(8))
    assert set(sampler.draw(np.full(500, 0), 2, rng).reshape(-1)) == set(range(3, 9))


def test_where_no_item_is_a_margin_away_any_is_drawn():
    drawn = PopularityMargin(COUNTS, 100.0).draw(np.arange(9), 400, np.random.default_rng(0))
    assert set(drawn.reshape(-1)) == set(range(9))


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_the_loss_is_that_of_the_paper_row_by_row(distance):
    query, items, _ = rows(4, 9, 6)
    pos_id = torch.tensor([3, 8, 0, 5])
    prior_V = torch.linspace(-3, -1, 9, dtype=torch.float64)
    terms = PLAIN | {"log_prior": prior_V, "prior_weight": 0.5, "scale": 2.0}
    part = DICE(negatives=3, margin=5.0, alpha=0.3, beta=0.2, distance=distance)
    loss = built(part, 9, counts=COUNTS, seed=4)
    neg_id = loss.negatives(pos_id, 7)

    def bpr(x):
        return -math.log(1 / (1 + math.exp(-x)))

    def apart(row):
        gap = row[:3] - row[3:]
        return float(gap.abs().mean() if distance == "l1" else gap.square().mean())

    expected = 0.0
    for r, i in enumerate(pos_id.tolist()):
        for j in neg_id[r].tolist():
            ahead = 2 * query[r] * (items[i] - items[j])
            interest, conformity = float(ahead[:3].sum()), float(ahead[3:].sum())
            prior = 0.5 * float(prior_V[i] - prior_V[j])
            click = bpr(interest + conformity + prior)
            more = COUNTS[j] > COUNTS[i]
            causes = bpr(-conformity) + bpr(interest) if more else bpr(conformity)
            expected += (click + 0.3 * causes) / 3
        shown = [apart(items[item]) for item in (i, *neg_id[r].tolist())]
        expected -= 0.2 * (apart(query[r]) + sum(shown) / 4)
    assert loss(query, items, pos_id, step=7, **terms).item() == pytest.approx(expected, abs=1e-12)


def test_draws_are_a_function_of_seed_and_step():
    pos_id = torch.arange(9)
    one, again, other = (built(DICE(margin=5.0), 9, counts=COUNTS, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.negatives(pos_id, 3), again.negatives(pos_id, 3))
    assert not torch.equal(one.negatives(pos_id, 3), one.negatives(pos_id, 4))
    assert not torch.equal(one.negatives(pos_id, 3), other.negatives(pos_id, 3))


def test_an_odd_dimension_is_refused():
    query, items, pos_id = rows()
    with pytest.raises(ValueError, match="dim: expected an even number with loss='dice'"):
        built("dice", 9)(query, items, pos_id, step=0, **PLAIN)


def test_dice_keeps_the_contract_and_trains():
    testing.check_loss(DICE(margin=5.0))
