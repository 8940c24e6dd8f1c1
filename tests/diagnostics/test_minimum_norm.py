"""The minimum-norm factorisation that training with an l2 finds, against the convex problem that it is."""

import numpy as np
import pytest
import torch

from fastpop.data import Interactions
from fastpop.diagnostics import ScoreMoments, geometry
from fastpop.regularizers import L2
from fastpop.synthetic import TwinBlock
from fastpop.training import TrainConfig, build
from fastpop.training.row_losses import summed_loss

WORLD, WEIGHT = TwinBlock(4, 5, 1.1, 0.8), 0.02


def every_pair():
    """Each (context, item) once, weighted by how often it happens."""
    context, item = (index.reshape(-1) for index in np.indices((WORLD.groups, WORLD.num_items)))
    mass = np.exp(WORLD.scores()).reshape(-1) / WORLD.groups
    return Interactions.from_arrays(context, item, weight=1e6 * mass, item_ids=np.arange(WORLD.num_items))


def trained(prior):
    """(value, query [C, D], items [V, D]) at the least NLL + weight * l2 of a run with more dimensions than
    the scores can have: by L-BFGS in float64 on the batch that holds every pair."""
    config = TrainConfig(
        dim=6,
        encoder="factor",
        base=False,
        dropout=0.0,
        batch_size=WORLD.groups * WORLD.num_items,
        loss="full_softmax",
        prior=prior,
        smoothing=0.0,
        regularizers=(L2(weight=WEIGHT),),
    )
    log = every_pair()
    parts = build.assemble(config, log, log, WORLD.log_prior_V)
    model, batch = parts.model.double(), next(iter(parts.batches.epoch(0)))
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=2000,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimizer.zero_grad()
        item_VD = model.decoder.item_vectors()
        query_RD, pos_id_R, weight_R = model.rows(batch, item_VD)
        terms = model.decoder.training_terms()
        value = summed_loss(parts, batch, query_RD, item_VD, pos_id_R, weight_R.double() / 1e6, terms)
        ((part, module),) = parts.regularizers
        value = value + part.weight * module(query_RD, item_VD, pos_id_R, model.decoder.log_prior_V)
        value.backward()
        return value

    optimizer.step(loss)
    item_VD = model.decoder.item_vectors()
    query_CD = model.encoder(torch.arange(WORLD.groups), None, item_VD)
    return loss().item(), query_CD.detach().numpy(), item_VD.detach().numpy()


def convex(prior_V):
    """(value, scores [C, V]) at the least NLL + weight / sqrt(C V) * nuclear norm.

    That is what half the mean squared lengths of queries and of items are at their least (Srebro et al.
    2005). By accelerated proximal steps, whose shrinkage of singular values is exact.
    """
    p_CV = np.exp(WORLD.scores()) / WORLD.groups
    price, step = WEIGHT / np.sqrt(p_CV.size), 2.0 * WORLD.groups  # the NLL's curvature is at most 1 / (2 C)
    score_CV = ahead_CV = np.zeros_like(p_CV)
    for number in range(4000):
        logit_CV = ahead_CV + prior_V
        chance_CV = np.exp(logit_CV - logit_CV.max(1, keepdims=True))
        chance_CV /= chance_CV.sum(1, keepdims=True) * WORLD.groups
        left, sigma, right = np.linalg.svd(ahead_CV - step * (chance_CV - p_CV), full_matrices=False)
        new_CV = (left * np.maximum(sigma - step * price, 0)) @ right
        ahead_CV = new_CV + number / (number + 3) * (new_CV - score_CV)
        score_CV = new_CV
    logit_CV = score_CV + prior_V
    nll = -(p_CV * (logit_CV - np.log(np.exp(logit_CV).sum(1, keepdims=True)))).sum()
    return nll + price * np.linalg.svd(score_CV, compute_uv=False).sum(), score_CV


@pytest.mark.parametrize("prior", ["none", "frozen"])
def test_training_with_an_l2_ends_at_the_convex_optimum(prior):
    value, query_CD, item_VD = trained(prior)
    prior_V = WORLD.log_prior_V if prior == "frozen" else np.zeros(WORLD.num_items)
    best, score_CV = convex(prior_V)
    assert value == pytest.approx(best, rel=1e-6)  # of a penalty that is summed in float32
    np.testing.assert_allclose(query_CD @ item_VD.T, score_CV, atol=2e-3)
    sigma = np.linalg.svd(score_CV, compute_uv=False)
    spectrum = np.linalg.svd(item_VD, compute_uv=False) ** 2
    assert spectrum[0] / spectrum.sum() == pytest.approx(sigma[0] / sigma.sum(), rel=0.02)
    # What `geometry` says a balanced pair would show, of scores whose rows are centred.
    centred_VD = item_VD - item_VD.mean(0)
    shown = geometry(ScoreMoments.of(query_CD, item_VD), WORLD.log_prior_V)
    centred = np.linalg.svd(query_CD @ centred_VD.T, compute_uv=False)
    assert shown.balanced_r1 == pytest.approx(centred[0] / centred.sum(), rel=1e-9)
    of_queries_DD, of_items_DD = (rows.T @ rows / len(rows) for rows in (query_CD, item_VD))
    assert np.linalg.norm(of_queries_DD - of_items_DD) < 5e-3 * np.linalg.norm(of_items_DD)
