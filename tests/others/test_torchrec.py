"""docs/embedding.md beside TorchRec: losses and scores of a table in its collection."""

import helpers_embedding
import pytest
import torch

import fastpop


@pytest.fixture(scope="module")
def page():
    return helpers_embedding.run("torchrec")


@pytest.fixture
def a_batch(page):
    rows = [page["train"].history(user) for user in range(50)]
    values = torch.cat([torch.tensor(row[:-1]).long() for row in rows])
    lengths = torch.tensor([len(row) - 1 for row in rows])
    history = page["KeyedJaggedTensor"](keys=["history"], values=values, lengths=lengths)
    return history, torch.tensor([int(row[-1]) for row in rows])


def test_the_loss_without_a_prior_is_the_module_s_own(page, a_batch):
    model = page["LogPOutside"](page["train"].num_items)
    model.head = page["FullSoftmaxLoss"].from_counts(page["counts"], prior_weight=0.0)
    ours, own = model(*a_batch), page["Bag"].forward(model, *a_batch)
    model.head.prior_weight = 1.0
    bias = model.head.served_bias()
    with_log_p = torch.nn.functional.cross_entropy(page["Bag"].scores(model, a_batch[0]) + bias, a_batch[1])
    for found, wanted in ((ours, own), (model(*a_batch), with_log_p)):
        gradients = []
        for loss in (found, wanted):
            model.zero_grad()
            loss.backward(retain_graph=True)
            gradients.append(model.tables.embedding_bags["item"].weight.grad.clone())
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_scores_are_the_dot_product_plus_log_p(page, a_batch):
    model, log_p = page["model"], fastpop.popularity.PopularityPrior.from_counts(page["counts"]).log_prior_V
    query, items = model.vectors(a_batch[0])
    torch.testing.assert_close(model.scores(a_batch[0]), query @ items.T + torch.tensor(log_p).float())
    folded, table = model.head.fold(query, items)
    torch.testing.assert_close(model.scores(a_batch[0]), folded @ table.T)


def test_training_lowers_the_loss_of_the_whole_catalogue(page, a_batch):
    full = page["FullSoftmaxLoss"].from_counts(page["counts"])
    fresh = page["LogPOutside"](page["train"].num_items)
    before, after = (full(*model.vectors(a_batch[0]), a_batch[1]) for model in (fresh, page["model"]))
    assert after < before - 0.02
