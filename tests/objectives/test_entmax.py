"""Entmax-1.5 and its loss; the full softmax under the names of balanced softmax and logit adjustment."""

import numpy as np
import pytest
import torch
from helpers_losses import COUNTS, PLAIN, built, distributions, rows
from torch.nn import functional as F  # noqa: N812

from fastpop import TrainConfig, ops, testing
from fastpop.objectives import entmax15, entmax15_loss


def scores(spread=1.0, num_rows=6, num_items=40, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(num_rows, num_items, generator=generator, dtype=dtype)


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_probabilities_sum_to_one_and_meet_the_conditions_of_a_maximum(spread):
    """KKT of max over p of <p, s> + H(p): s - 2 sqrt(p) is one number where p > 0, and no more elsewhere."""
    score_RV = scores(spread)
    p_RV = entmax15(score_RV)
    torch.testing.assert_close(p_RV.sum(1), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (p_RV >= 0).all()
    multiplier_RV = score_RV - 2 * p_RV.sqrt()
    for p_V, multiplier_V in zip(p_RV, multiplier_RV):
        inside = multiplier_V[p_V > 0]
        assert (inside - inside.mean()).abs().max() < 1e-9 * max(1, spread)
        assert (multiplier_V[p_V == 0] <= inside.mean() + 1e-9).all()


def test_the_support_shrinks_as_scores_spread_and_keeps_equal_items_equal():
    sizes = [(entmax15(scores(spread)) > 0).sum().item() for spread in (0.01, 0.5, 1.0, 3.0, 30.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 6 * 40
    assert sizes[-1] < 12
    torch.testing.assert_close(entmax15(torch.zeros(1, 7)), torch.full((1, 7), 1 / 7))


def test_float32_sums_to_one_over_a_large_catalogue():
    score_RV = 3 * torch.randn(3, 200_000, generator=torch.Generator().manual_seed(1)) - 1000
    p_RV = entmax15(score_RV)
    torch.testing.assert_close(p_RV.sum(1), torch.ones(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(p_RV.double(), entmax15(score_RV.double()), rtol=0, atol=1e-5)


def test_the_gradient_is_p_less_the_onehot_by_finite_differences():
    score_RV, pos_id = scores(2.0, 3, 8), torch.tensor([0, 5, 7])
    leaf = score_RV.clone().requires_grad_()
    entmax15_loss(leaf, pos_id).sum().backward()
    torch.testing.assert_close(leaf.grad, entmax15(score_RV) - F.one_hot(pos_id, 8), rtol=0, atol=1e-12)
    step = 1e-5
    for row in range(3):
        for item in range(8):
            up, down = score_RV.clone(), score_RV.clone()
            up[row, item] += step
            down[row, item] -= step
            rise = (entmax15_loss(up, pos_id) - entmax15_loss(down, pos_id)).sum() / (2 * step)
            assert rise.item() == pytest.approx(leaf.grad[row, item].item(), abs=1e-6)


def test_the_loss_is_zero_from_a_lead_of_two_on_and_above_it_elsewhere():
    lead = torch.tensor([[2.0, 0, 0], [1.99, 0, 0], [50, 0, -3]], dtype=torch.float64)
    loss_R = entmax15_loss(lead, torch.zeros(3, dtype=torch.int64))
    assert loss_R[0].item() == pytest.approx(0, abs=1e-12)
    assert loss_R[1] > 0
    assert loss_R[2].item() == pytest.approx(0, abs=1e-12)
    assert (entmax15_loss(scores(), torch.zeros(6, dtype=torch.int64)) >= 0).all()


def test_a_removed_item_has_no_probability_and_a_removed_positive_an_infinite_loss():
    score_RV = scores()
    score_RV[:, 3] = -torch.inf
    assert not entmax15(score_RV)[:, 3].any()
    loss_R = entmax15_loss(score_RV, torch.tensor([3, 0, 0, 0, 0, 0]))
    assert loss_R[0] == torch.inf
    assert torch.isfinite(loss_R[1:]).all()


def test_its_optimum_is_two_roots_of_p():
    p_CV, _ = distributions()
    score_CV = 2 * p_CV.sqrt() + 0.7
    torch.testing.assert_close(entmax15(score_CV), p_CV, rtol=0, atol=1e-12)


def test_prior_scale_and_weights_go_where_they_belong():
    query, items, pos_id = rows()
    prior_V = torch.linspace(-3, -1, 9, dtype=torch.float64)
    weight = torch.tensor([1.0, 2, 0, 1], dtype=torch.float64)
    found = built("entmax", 9)(
        query, items, pos_id, row_weight=weight, log_prior=prior_V, prior_weight=0.5, scale=2.0
    )
    expected = (entmax15_loss(2 * query @ items.T + 0.5 * prior_V, pos_id) * weight).sum()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_entmax_keeps_the_contract_and_trains():
    testing.check_loss("entmax")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("tau", [1.0, 0.6])
def test_a_prior_of_weight_tau_is_logit_adjustment_and_at_one_balanced_softmax(dtype, tolerance, tau):
    """Menon et al. 2021: cross-entropy of f + tau log pi. Ren et al. 2020: n_y e^f_y / sum n_i e^f_i. Losses
    and gradients, of queries and of items."""
    query, items, _ = rows(4, len(COUNTS), 5, dtype)
    pos_id = torch.tensor([0, 3, 4, 1])
    count_V = torch.tensor(COUNTS, dtype=dtype)
    log_prior_V = (count_V / count_V.sum()).log()

    def with_gradients(loss_of, dtype):
        leaves = [table.to(dtype, copy=True).requires_grad_() for table in (query, items)]
        loss_R = loss_of(*leaves)
        return [loss_R.detach(), *torch.autograd.grad(loss_R.sum(), leaves)]

    found = with_gradients(
        lambda query, items: ops.full_softmax(query, items, pos_id, log_prior=log_prior_V, prior_weight=tau),
        dtype,
    )
    share_V = torch.tensor(COUNTS / COUNTS.sum())
    formulas = [
        lambda query, items: F.cross_entropy(query @ items.T + tau * share_V.log(), pos_id, reduction="none")
    ]
    if tau == 1:

        def balanced(query, items):
            weighed_RV = torch.tensor(COUNTS) * (query @ items.T).exp()
            return -(weighed_RV[range(4), pos_id] / weighed_RV.sum(1)).log()

        formulas.append(balanced)
    for formula in formulas:
        for mine, theirs in zip(found, with_gradients(formula, torch.float64), strict=True):
            np.testing.assert_allclose(mine.double(), theirs, rtol=0, atol=tolerance)


def test_a_partitioned_softmax_is_the_one_over_the_items_of_the_batch():
    query, items, _ = rows()
    pos_id = torch.tensor([3, 1, 3, 0])
    logit_RS = query @ items[[0, 1, 3]].T
    expected = F.cross_entropy(logit_RS, torch.tensor([2, 1, 2, 0]), reduction="sum")
    found = built("partitioned_softmax", 9)(query, items, pos_id, **PLAIN)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    table = items.clone().requires_grad_()
    built("partitioned_softmax", 9, sparse=True)(query, table, pos_id, **PLAIN).backward()
    assert table.grad.is_sparse
    assert table.grad.coalesce().indices()[0].tolist() == [0, 1, 3]


def test_a_batch_that_predicts_every_item_gives_the_full_softmax():
    query, items, _ = rows(9)
    pos_id = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    prior_V = torch.linspace(-3, -1, 9, dtype=torch.float64)
    terms = PLAIN | {"log_prior": prior_V, "prior_weight": 0.5, "scale": 2.0}
    found = built("partitioned_softmax", 9)(query, items, pos_id, **terms)
    expected = built("full_softmax", 9)(query, items, pos_id, **terms)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_partitioned_softmax_keeps_the_contract_and_trains():
    testing.check_loss("partitioned_softmax")
    with pytest.raises(ValueError, match="accumulate: expected 1 with loss='partitioned_softmax'"):
        TrainConfig(loss="partitioned_softmax", accumulate=2)
