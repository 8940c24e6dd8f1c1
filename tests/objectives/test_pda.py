"""PDA: the formula row by row, popularity injected and forecast."""

import types

import numpy as np
import pytest
import torch

from fastpop import testing
from fastpop.evaluation import DotScores, injected_scorer
from fastpop.objectives import LossInputs, Pda
from fastpop.popularity import InBatchProposal, UniformProposal, drift_forecast
from fastpop.priors import ByPeriod
from fastpop.studies import methods
from fastpop.training import TrainConfig, build
from fastpop.training.row_losses import summed_loss

ITEMS, DIM = 7, 3
COUNTS = np.array([9.0, 4, 1, 0, 16, 2, 8])


def built(**options):
    given = LossInputs(ITEMS, 5, False, UniformProposal(), lambda: COUNTS, lambda: COUNTS)
    return Pda(**options).build(given)


@pytest.mark.parametrize("power", [0.0, 0.1, 0.8])
def test_the_module_is_the_formula_on_its_draws(power):
    module = built(power=power, negatives=4)
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(n, DIM, generator=generator) for n in (5, ITEMS))
    log_p = torch.randn(ITEMS, generator=generator)
    pos_id, weight = torch.tensor([0, 4, 2, 2, 6]), torch.rand(5, generator=generator)
    terms = {"row_weight": weight, "log_prior": log_p, "prior_weight": 0.7, "scale": 1.3, "step": 9}
    found = module(query, items, pos_id, **terms)
    m_V, wanted = COUNTS / COUNTS.sum(), 0.0
    drawn = module.proposal.sample(5, 9, (5, 4))
    for row in range(5):
        f_V = 1.3 * (items.double() @ query[row].double()).numpy()
        score_V = np.where(f_V > 0, f_V + 1, np.exp(f_V)) * m_V**power * np.exp(0.7 * log_p.double().numpy())
        margin = score_V[int(pos_id[row])] - score_V[drawn[row]]
        wanted += float(weight[row]) * np.mean(np.log1p(np.exp(-margin)))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_beside_log_p_of_each_period_it_is_the_papers_popularity_of_each_stage():
    """(ELU(f) + 1) m_i^t^gamma, t the stage of the event: the paper's PD; log p_t is m_i^t. What comes is
    served with a forecast m: PDA."""
    log = testing.small_log()
    config = TrainConfig(
        dim=8,
        batch_size=64,
        loss=Pda(power=0.0),
        proposal="uniform",
        prior=ByPeriod(periods=4, weight=0.3, drift=0.5),
    )
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    torch.nn.init.normal_(parts.model.decoder.item_embedding)
    batch = next(iter(parts.batches.epoch(0)))
    item_VD = parts.model.decoder.item_vectors()
    query_RD, pos_id_R, _ = parts.model.rows(batch, item_VD)
    terms = parts.model.decoder.training_terms() | {"step": 3}
    found = summed_loss(parts, batch, query_RD, item_VD, pos_id_R, None, terms)
    m_TV, wanted = np.exp(parts.temporal.log_prior_TV), 0.0
    for period in range(4):
        at = np.flatnonzero(batch.period == period)
        f_RV = (query_RD[at] @ item_VD.T).detach().double().numpy()
        score_RV = np.where(f_RV > 0, f_RV + 1, np.exp(f_RV)) * m_TV[period] ** 0.3
        drawn_R1 = parts.loss.proposal.sample(config.seed, 3, (len(at), 1))
        pos_R, neg_R = (score_RV[np.arange(len(at)), ids] for ids in (pos_id_R.numpy()[at], drawn_R1[:, 0]))
        wanted += np.log1p(np.exp(neg_R - pos_R)).sum()
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    served = config.prior_part.served(parts.temporal)
    np.testing.assert_allclose(parts.model.decoder.log_prior_V.numpy(), served.log_prior_V, atol=1e-6)
    assert np.abs(served.log_prior_V - parts.temporal.log_prior_TV[-1]).max() > 0.01
    (family,) = methods.injected("PDA", (0.3,), 0.3)(parts.model, types.SimpleNamespace(counts_V=np.ones(30)))
    scored = family.score(query_RD.detach(), 0.3)(slice(0, 5)).numpy()
    f_BV = (query_RD[:5] @ item_VD.T).detach().double().numpy()
    product = np.where(f_BV > 0, f_BV + 1, np.exp(f_BV)) * np.exp(served.log_prior_V) ** 0.3
    np.testing.assert_allclose(np.exp(scored), product, rtol=1e-4)


def test_it_keeps_the_contract_and_refuses_in_batch_negatives():
    testing.check_loss("pda", in_a_run=False)
    testing.check_run(loss=Pda(power=0.2, negatives=2))
    with pytest.raises(ValueError, match="proposal: expected one that draws, for 'pda'"):
        Pda().build(LossInputs(ITEMS, 5, False, InBatchProposal(), lambda: COUNTS, lambda: COUNTS))
    with pytest.raises(ValueError, match=r"loss\.power: expected a finite number >= 0; got -1"):
        Pda(power=-1.0)


def test_an_injected_popularity_ranks_as_the_product_does():
    rng = np.random.default_rng(0)
    query, items, popularity = rng.standard_normal((4, 3)), rng.standard_normal((9, 3)), rng.random(9)
    popularity[2] = 0
    f = query @ items.T
    product = np.where(f > 0, f + 1, np.exp(f)) * popularity**0.3
    for score in (DotScores(query, items), lambda rows: f[rows]):
        found = injected_scorer(score, popularity, 0.3)(slice(0, 4)).numpy()
        np.testing.assert_allclose(np.exp(found), product, rtol=1e-6, atol=1e-12)
    assert (found[:, 2] == -np.inf).all()
    plain = injected_scorer(DotScores(query, items), popularity, 0)(slice(1, 3)).numpy()
    assert (np.argsort(plain) == np.argsort(f[1:3])).all()
    with pytest.raises(ValueError, match="power: expected a finite number >= 0; got -1"):
        injected_scorer(score, popularity, -1)


def test_a_drift_that_goes_on_is_forecast():
    rng = np.random.default_rng(1)
    first, step = rng.dirichlet(np.ones(6)), rng.standard_normal(6)
    step = 0.01 * (step - step.mean()) * first.min() / np.abs(step).max()
    shares = [first + t * step for t in range(4)]
    np.testing.assert_allclose(drift_forecast(700 * shares[0], 30 * shares[1]), shares[2], rtol=1e-12)
    np.testing.assert_allclose(drift_forecast(shares[0], shares[1], alpha=2.0), shares[3], rtol=1e-12)
    np.testing.assert_allclose(drift_forecast(shares[0], shares[1], alpha=0.0), shares[1], rtol=1e-12)
    np.testing.assert_allclose(drift_forecast([1.0, 9.0], [9.0, 1.0], alpha=3.0), [3.3, 0.0])
    with pytest.raises(ValueError, match="before: expected numbers >= 0, not all zero"):
        drift_forecast([0.0, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"last: expected shape \[2\]"):
        drift_forecast([1.0, 2.0], [1.0, 1.0, 1.0])
