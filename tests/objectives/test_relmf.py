"""Rel-MF: its expectation over clicks is the loss of relevance, and what it trains finds relevance."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from fastpop import testing
from fastpop.data import Interactions
from fastpop.objectives import LossInputs, RelMf
from fastpop.objectives.relmf import event_loss
from fastpop.popularity import InBatchProposal, PopularityProposal, UniformProposal
from fastpop.propensity import popularity_propensity

ITEMS, DIM = 7, 3
COUNTS = np.array([9.0, 4, 1, 3, 16, 2, 5])


def built(proposal=None, **options):
    given = LossInputs(ITEMS, 5, False, proposal or UniformProposal(), lambda: COUNTS, lambda: COUNTS)
    return RelMf(**options).build(given)


@pytest.mark.parametrize("error", ["log", "squared"])
def test_over_every_outcome_of_clicks_the_loss_is_that_of_relevance(error):
    """2^8 outcomes of eight pairs, P(click) = relevance * exposure."""
    rng = np.random.default_rng(0)
    relevance, exposure = rng.random(8), rng.uniform(0.2, 1, 8)
    score = torch.from_numpy(2 * rng.standard_normal(8))
    d1, d0 = F.softplus(-score), F.softplus(score)
    if error == "squared":
        d1, d0 = (1 - torch.sigmoid(score)) ** 2, torch.sigmoid(score) ** 2
    click = relevance * exposure
    mean, kept = 0.0, 0.0
    for outcome in itertools.product([0.0, 1.0], repeat=8):
        seen = np.array(outcome)
        chance = np.prod(np.where(seen, click, 1 - click))
        seen, p = torch.from_numpy(seen), torch.from_numpy(exposure)
        mean += chance * float(d0.sum() + (seen * event_loss(score, p, False, error)).sum())
        kept += chance * float(d0.sum() + (seen * event_loss(score, p, True, error)).sum())
    r = torch.from_numpy(relevance)
    assert mean == pytest.approx(float((r * d1 + (1 - r) * d0).sum()), rel=1e-12)
    without = (r * d1 + (1 - torch.from_numpy(click)) * d0).sum()  # what is left out is r (p - 1) d0
    assert kept == pytest.approx(float(without), rel=1e-12)


@pytest.mark.parametrize("proposal", [UniformProposal(), PopularityProposal(power=0.5)], ids=str)
@pytest.mark.parametrize("error", ["log", "squared"])
@pytest.mark.parametrize("non_negative", [False, True])
def test_the_module_is_the_formula_on_its_draws(proposal, non_negative, error):
    options = {"negatives": 11, "clip": 0.3, "events_per_context": 4.0, "error": error}
    module = built(proposal, non_negative=non_negative, **options)
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(n, DIM, generator=generator) for n in (5, ITEMS))
    log_p = torch.randn(ITEMS, generator=generator)
    pos_id, weight = torch.tensor([0, 4, 2, 2, 6]), torch.rand(5, generator=generator)
    terms = {"row_weight": weight, "log_prior": log_p, "prior_weight": 0.7, "scale": 1.3, "step": 9}
    found = module(query, items, pos_id, **terms)
    p_V = np.maximum(popularity_propensity(COUNTS, 0.5), 0.3)
    drawn = module.proposal.sample(5, 9, (5, 11))
    wanted = 0.0
    for row in range(5):
        score = (1.3 * items.double() @ query[row].double() + 0.7 * log_p.double()).numpy()
        d1, d0 = np.logaddexp(0, -score), np.logaddexp(0, score)
        if error == "squared":
            d1, d0 = 1 / (1 + np.exp(score)) ** 2, 1 / (1 + np.exp(-score)) ** 2
        y, p = int(pos_id[row]), p_V[int(pos_id[row])]
        event = d1[y] / p - d0[y] if non_negative else (d1[y] - d0[y]) / p
        pairs = sum(d0[i] / np.exp(module.proposal.log_proposal_V[i]) for i in drawn[row]) / 11
        wanted += float(weight[row]) * (event + pairs / 4)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_draws_of_any_proposal_stand_for_all_pairs():
    query, items = torch.randn(1, DIM), torch.randn(ITEMS, DIM)
    all_pairs = float(F.softplus(items @ query[0]).sum())
    for proposal in (UniformProposal(), PopularityProposal(power=0.5)):
        module = built(proposal, negatives=40_000, events_per_context=1.0, clip=1.0)
        found = float(
            module(
                query,
                items,
                torch.tensor([0]),
                row_weight=None,
                log_prior=None,
                prior_weight=0.0,
                scale=1.0,
                step=1,
            )
        )
        assert found + float(items[0] @ query[0]) == pytest.approx(all_pairs, rel=0.03)


def test_it_keeps_the_contract_and_refuses_in_batch_negatives():
    testing.check_loss("relmf", in_a_run=False)
    testing.check_run(loss=RelMf(non_negative=True, negatives=8))
    with pytest.raises(ValueError, match="proposal: expected one that draws every item, for 'relmf'"):
        built(InBatchProposal())
    with pytest.raises(ValueError, match="clip: expected a finite number > 0 <= 1; got 0"):
        RelMf(clip=0)


def test_it_learns_relevance_where_clicks_follow_exposure(one_thread):
    """Users alike; items equally relevant or not at all, clicked as they are shown."""
    rng = np.random.default_rng(1)
    users, items = 400, 12
    relevance_V = np.where(np.arange(items) % 2, 0.6, 0.15)
    exposure_V = np.linspace(1.0, 0.2, items) ** 2
    click_UV = rng.random((users, items)) < relevance_V * exposure_V
    user, item = np.nonzero(click_UV)
    log = Interactions.from_arrays(user, item, item_ids=np.arange(items), user_ids=np.arange(users))
    # The propensities are those of the truth here; by counts they would be a guess.
    module = built_of(log, exposure_V, click_UV.sum() / users)
    query = torch.ones(1, 1)
    score = torch.zeros(items, 1, requires_grad=True)
    optimizer = torch.optim.Adam([score], lr=0.05)
    pos_id = torch.from_numpy(item)
    for step in range(300):
        optimizer.zero_grad()
        loss = module(
            query.expand(len(item), 1), score, pos_id, row_weight=None, log_prior=None, prior_weight=0.0,
            scale=1.0, step=step,
        )  # fmt: skip
        (loss / len(item)).backward()
        optimizer.step()
    learned_V = torch.sigmoid(score[:, 0]).detach().numpy()
    error_V = np.sqrt(relevance_V * exposure_V / users) / exposure_V
    assert (np.abs(learned_V - relevance_V) < 4 * error_V + 0.03).all()
    naive_V = click_UV.mean(0)
    assert np.corrcoef(learned_V, relevance_V)[0, 1] > 0.95 > np.corrcoef(naive_V, relevance_V)[0, 1]


def built_of(log, exposure_V, events_per_context):
    """Counts whose square roots, over the largest, are the exposure."""
    counts_V = exposure_V**2 * 1e6
    given = LossInputs(len(exposure_V), 0, False, UniformProposal(), lambda: counts_V, log.item_counts)
    return RelMf(negatives=8, clip=0.01, events_per_context=float(events_per_context)).build(given)
