"""Losses of a positive and its negatives: their optima, their formulas, and what they draw."""

import numpy as np
import pytest
import torch
from helpers_losses import PLAIN, built, centred, distributions, optimum, rows
from scipy.special import expit
from torch.nn import functional as F  # noqa: N812

import fastpop
from fastpop import objectives, popularity, registry, testing
from fastpop.objectives import BCE, BPR, GBCE, TOP1, BPRMax, TOP1Max
from fastpop.testing.training import QUICK

SMALL = {
    "bce": BCE(negatives=3),
    "gbce": GBCE(negatives=8),
    "bpr": BPR(negatives=2),
    "bpr_max": BPRMax(negatives=6),
    "top1": TOP1(negatives=6),
    "top1_max": TOP1Max(negatives=6),
}


@pytest.mark.parametrize("num_negatives", [1, 2, 3])
def test_bce_recovers_log_p_less_log_q_less_log_k(num_negatives):
    p_CV, q_V = distributions()
    score_CV, slope = optimum(objectives.bce, p_CV, q_V, num_negatives)
    assert slope < 1e-7
    expected = p_CV.log() - q_V.log() - np.log(num_negatives)
    torch.testing.assert_close(score_CV, expected, rtol=0, atol=1e-5)


def test_gbce_recovers_the_same_but_for_log_beta():
    p_CV, q_V = distributions()
    beta = GBCE(negatives=2, calibration=0.75).beta(5)
    assert beta == pytest.approx(0.5 * (0.75 * (1 - 2) + 2))  # alpha = 2 / 4
    score_CV, _ = optimum(lambda pos, neg: objectives.gbce(pos, neg, beta), p_CV, q_V, 2)
    torch.testing.assert_close(score_CV, p_CV.log() - q_V.log() - np.log(2 / beta), rtol=0, atol=1e-5)


def test_beta_is_one_without_calibration_and_alpha_with_all_of_it():
    assert GBCE(calibration=0.0).beta(1000) == pytest.approx(1)
    assert GBCE(calibration=1.0).beta(1000) == pytest.approx(256 / 999)


@pytest.mark.parametrize("num_negatives", [1, 2])
def test_bpr_recovers_log_p_less_log_q_up_to_a_constant(num_negatives):
    p_CV, q_V = distributions()
    score_CV, slope = optimum(objectives.bpr, p_CV, q_V, num_negatives)
    assert slope < 1e-7
    torch.testing.assert_close(centred(score_CV), centred(p_CV.log() - q_V.log()), rtol=0, atol=1e-5)


def test_losses_of_gru4rec_are_their_formulas():
    generator = torch.Generator().manual_seed(0)
    pos_R = torch.randn(4, generator=generator, dtype=torch.float64)
    neg_RK = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    for row in range(4):
        r, rj = pos_R[row].item(), neg_RK[row].numpy()
        s = np.exp(rj) / np.exp(rj).sum()
        terms = expit(rj - r) + expit(rj**2)
        assert objectives.top1(pos_R, neg_RK)[row].item() == pytest.approx(terms.mean(), abs=1e-12)
        assert objectives.top1_max(pos_R, neg_RK)[row].item() == pytest.approx(s @ terms, abs=1e-12)
        expected = -np.log(s @ expit(r - rj)) + 0.5 * (s @ rj**2)
        assert objectives.bpr_max(pos_R, neg_RK, 0.5)[row].item() == pytest.approx(expected, abs=1e-12)


def test_bpr_max_stays_finite_where_its_sum_has_no_double():
    pos_R = torch.tensor([-900.0], dtype=torch.float64, requires_grad=True)
    loss_R = objectives.bpr_max(pos_R, torch.tensor([[900.0, 1.0]], dtype=torch.float64), 0.0)
    loss_R.sum().backward()
    assert loss_R.item() == pytest.approx(1800 - np.log(2))  # both candidates have e^-1800
    assert pos_R.grad.item() == pytest.approx(-1)


def test_each_row_has_its_own_draws_with_prior_and_scale():
    query, items, pos_id = rows()
    prior_V = torch.linspace(-3, -1, 9, dtype=torch.float64)
    terms = {
        "row_weight": torch.tensor([1.0, 2, 0, 1]),
        "log_prior": prior_V,
        "prior_weight": 0.5,
        "scale": 2.0,
    }
    found = built(BCE(negatives=3), 9, seed=7)(query, items, pos_id, step=5, **terms)
    neg_id = torch.from_numpy(fastpop.Draw(popularity.uniform(9), 7, 5, 3, 1).ids(4))
    logit = 2 * query @ items.T + 0.5 * prior_V
    loss_R = -F.logsigmoid(logit[range(4), pos_id]) - F.logsigmoid(-logit.gather(1, neg_id)).sum(1)
    torch.testing.assert_close(found, (loss_R * terms["row_weight"]).sum(), rtol=0, atol=1e-12)


def test_other_rows_and_shared_draws_are_candidates_of_gru4rec():
    query, items, pos_id = rows()
    found = built(TOP1(negatives=2), 9, seed=3)(query, items, pos_id, step=1, **PLAIN)
    extra = fastpop.Draw(popularity.uniform(9), 3, 1, 2).ids(4)[0]
    logit = query @ items.T
    expected = 0.0
    for row in range(4):
        ids = [*(pos_id[other].item() for other in range(4) if other != row), *extra]
        expected += objectives.top1(logit[row, pos_id[row]][None], logit[row, ids][None]).sum()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_a_lonely_row_in_a_batch_has_no_loss(name):
    query, items, pos_id = rows(1)
    query.requires_grad_()
    loss = built(SMALL[name], 9, in_batch=True)(query, items, pos_id, step=0, **PLAIN)
    loss.backward()
    assert loss.item() == 0
    assert not query.grad.any()


@pytest.mark.parametrize(
    "name", [*SMALL, "directau", "entmax", "partitioned_softmax", "dice", "importance_sampling"]
)
def test_no_row_has_no_loss(name):
    query, items, pos_id = rows(0, 9, 6)
    query.requires_grad_()
    part = registry.made("loss", SMALL.get(name, name))
    step = {"step": 0} if part.needs == "negatives" else {}
    loss = built(part, 9)(query, items, pos_id, **PLAIN, **step)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("name", SMALL)
def test_row_gradients_are_those_of_the_table(name):
    query, items, pos_id = rows()
    found = []
    for sparse in (False, True):
        table = items.clone().requires_grad_()
        built(SMALL[name], 9, sparse=sparse)(query, table, pos_id, step=2, **PLAIN).backward()
        assert table.grad.is_sparse == sparse
        found.append(table.grad.to_dense())
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_they_keep_the_contract_and_train(name):
    testing.check_loss(SMALL[name], in_a_run=name in ("bce", "bpr_max"))
    for options in ({"proposal": "in_batch", "prior": "none"}, {"prior": "learned"}):
        result = fastpop.train(testing.small_log(), loss=SMALL[name], **QUICK | {"epochs": 1} | options)
        assert np.isfinite(result.history[0]["loss"])


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"loss.negatives: expected an integer >= 1"):
        BCE(negatives=0)
    with pytest.raises(ValueError, match=r"loss.calibration: expected a finite number >= 0 <= 1; got 1.5"):
        GBCE(calibration=1.5)
    with pytest.raises(ValueError, match=r"loss.score_weight: expected a finite number >= 0"):
        BPRMax(score_weight=-1.0)
    with pytest.raises(ValueError, match=r"accumulate: expected 1 with loss='top1', which the whole batch"):
        fastpop.TrainConfig(loss="top1", accumulate=2)


def test_what_draws_hold_is_not_taken_out_twice_in_silence():
    config = fastpop.TrainConfig(loss="bpr", proposal="popularity")
    assert "loss='bpr' with proposal='popularity' already takes" in config.double_subtraction()
    assert fastpop.TrainConfig(loss="bpr", proposal="uniform").double_subtraction() is None
