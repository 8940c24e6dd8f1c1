"""Importance sampling: its error over K, its effective sample size, and what adapts."""

import numpy as np
import pytest
import torch
from helpers_losses import PLAIN, built, rows
from torch.nn import functional as F  # noqa: N812

from fastpop import testing
from fastpop.objectives import ImportanceSampling, effective_sample_size

V = 300


def tensors():
    query, items, pos_id = rows(6, V, 8)
    return 0.7 * query, 0.7 * items, pos_id


def gradient(loss, **terms):
    query, items, pos_id = tensors()
    query.requires_grad_()
    loss(query, items, pos_id, **PLAIN, **terms).backward()
    return query.grad


def fixed(num_negatives):
    """As many draws for every row, from the same proposal."""
    part = ImportanceSampling(block=num_negatives, most=num_negatives, effective=1e9, rate=0.0)
    return built(part, V, seed=1)


def test_the_error_of_the_gradient_falls_as_one_over_root_k():
    exact = gradient(built("full_softmax", V))
    sizes = [2**n for n in range(4, 13)]
    error = []
    for size in sizes:
        loss = fixed(size)
        error.append(
            np.mean([(gradient(loss, step=step) - exact).square().mean().item() for step in range(60)])
        )
    slope = np.polyfit(np.log(sizes), 0.5 * np.log(error), 1)[0]
    assert -0.55 <= slope <= -0.45


def test_the_loss_is_its_formula():
    query, items, pos_id = tensors()
    loss = fixed(32)
    neg_id = loss.draws(5)
    prior_V = torch.linspace(-3, -1, V, dtype=torch.float64)
    terms = {"row_weight": torch.arange(6.0), "log_prior": prior_V, "prior_weight": 0.5, "scale": 2.0}
    logit = 2 * query @ items.T + 0.5 * prior_V
    mean_R = (logit[:, neg_id].exp() / loss.distribution()[neg_id]).mean(1)
    expected = ((mean_R.log() - logit[range(6), pos_id]) * terms["row_weight"]).sum()
    found = loss(query, items, pos_id, step=5, **terms)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_effective_sample_size_of_a_known_distribution():
    """Under uniform draws ESS / K tends to 1 / (V sum p^2)."""
    query, items, _ = tensors()
    p_RV = F.softmax(query @ items.T, 1)
    drawn = torch.randint(V, (2**20,), generator=torch.Generator().manual_seed(0))
    found_R = effective_sample_size(p_RV[:, drawn].log()) / 2**20
    np.testing.assert_allclose(found_R, 1 / (V * p_RV.square().sum(1)), rtol=0.02)
    equal = effective_sample_size(torch.zeros(1, 50, dtype=torch.float64))
    assert equal.item() == pytest.approx(50)
    assert effective_sample_size(torch.tensor([[0.0, -900, -900]])).item() == pytest.approx(1)


def test_each_row_draws_until_its_size_is_reached():
    query, items, _ = tensors()
    query = query * torch.linspace(0.1, 3, 6)[:, None].double()
    loss = built(ImportanceSampling(block=16, most=512, effective=40.0), V)
    neg_id, log_q_V = loss.draws(0), loss.distribution().log()

    def log_weight(query, item_id):
        return query @ items[item_id].T - log_q_V[item_id]

    count_R = loss._counts(query, neg_id, log_weight)
    assert (count_R % 16 == 0).all()
    assert count_R[0] == 48  # all but even weights
    assert count_R[-1] > count_R[0]
    for row, count in zip(query, count_R.tolist()):
        sizes = [
            effective_sample_size(log_weight(row[None], neg_id[:k])).item() for k in range(16, count + 1, 16)
        ]
        assert all(size < 40 for size in sizes[:-1])
        assert sizes[-1] >= 40 or count == 512


@pytest.mark.parametrize("most", [512, 500])
def test_on_a_device_rows_take_as_many_draws_and_touch_no_other_item(monkeypatch, most):
    """There all draws are weighed at once, as which rows go on would have to be waited for."""
    query, items, pos_id = tensors()
    query = (query * torch.linspace(0.1, 1, 6)[:, None].double()).requires_grad_()
    items.requires_grad_()
    loss = built(ImportanceSampling(block=16, most=most, effective=40.0), V, sparse=True)
    found = []
    for _ in range(2):
        value = loss(query, items, pos_id, step=0, **PLAIN)
        found.append((value.detach(), *torch.autograd.grad(value, (query, items))))
        monkeypatch.setattr(loss, "_taken", loss._taken_at_once)
    for here, there in zip(*found):
        torch.testing.assert_close(there.to_dense(), here.to_dense(), rtol=0, atol=1e-12)
    touched = [set(one[2]._indices()[0].tolist()) for one in found]
    assert touched[0] == touched[1]
    (some, share_K), (all_, share_of_all_K) = loss._seen
    assert 48 < len(some) < len(all_) == most
    assert torch.equal(all_[: len(some)], some)
    torch.testing.assert_close(share_of_all_K[: len(some)], share_K, rtol=0, atol=1e-12)
    assert not share_of_all_K[len(some) :].any()


def test_the_proposal_stays_where_a_loss_was_not_finite():
    query, items, pos_id = tensors()
    loss = built(ImportanceSampling(rate=0.2), V)
    before = loss.follows_V.clone()
    loss.found_inf = torch.ones(())
    loss(query * torch.nan, items, pos_id, step=0, **PLAIN)
    loss.adapt()
    assert torch.equal(loss.follows_V, before)
    loss.found_inf.zero_()
    loss(query, items, pos_id, step=0, **PLAIN)
    loss.adapt()
    assert not torch.equal(loss.follows_V, before)


def test_the_proposal_follows_the_model_and_only_when_told():
    query, items, pos_id = tensors()
    loss = built(ImportanceSampling(block=256, most=4096, effective=1e9, rate=0.2), V)
    model_V = F.softmax(query @ items.T, 1).mean(0)
    before = loss.distribution().clone()
    loss(query, items, pos_id, step=0, **PLAIN)
    assert torch.equal(loss.distribution(), before)
    for step in range(40):
        loss(query, items, pos_id, step=step, **PLAIN)
        loss.adapt()
    assert loss.follows_V.sum().item() == pytest.approx(1, abs=1e-9)
    assert (loss.follows_V - model_V).abs().sum() < 0.25 * (before - model_V).abs().sum()
    assert (loss.distribution() >= 0.5 / V - 1e-12).all()
    loss.eval()
    held = loss.distribution().clone()
    loss(query, items, pos_id, step=0, **PLAIN)
    loss.adapt()
    assert torch.equal(loss.distribution(), held)


def test_draws_have_the_distribution_that_they_are_corrected_by():
    loss = built(ImportanceSampling(block=1, most=2**18, rate=0.5), 5, counts=np.arange(1.0, 6))
    loss.follows_V.copy_(torch.tensor([0.0, 0.7, 0.0, 0.1, 0.2]))
    share_V = torch.bincount(loss.draws(3), minlength=5) / 2**18
    torch.testing.assert_close(share_V.double(), loss.distribution(), rtol=0, atol=0.004)
    assert torch.equal(loss.draws(3), loss.draws(3))
    assert not torch.equal(loss.draws(3), loss.draws(4))


def test_it_keeps_the_contract_trains_and_resumes_with_what_adapted():
    testing.check_loss(ImportanceSampling(block=16, most=128, effective=12.0, rate=0.1))
