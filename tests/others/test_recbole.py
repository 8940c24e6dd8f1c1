"""docs/embedding.md beside RecBole: its loss, what its evaluation ranks by, its checkpoints."""

import helpers_embedding
import pytest
import torch

import fastpop


@pytest.fixture(scope="module")
def page():
    return helpers_embedding.run("recbole")


@pytest.fixture
def a_batch(page):
    return next(iter(page["train_data"]))


def test_the_loss_is_recbole_s_own_but_for_padding_and_log_p(page, a_batch):
    model = page["model"].eval()
    held, own = model.head, page["SASRec"].calculate_loss(model, a_batch)
    model.head = page["FullSoftmaxLoss"]()  # padding is one of the classes
    torch.testing.assert_close(model.calculate_loss(a_batch), own, rtol=1e-6, atol=1e-6)
    model.head = held
    query = model.forward(a_batch[model.ITEM_SEQ], a_batch[model.ITEM_SEQ_LEN])
    logits = query @ model.item_embedding.weight.T + held.served_bias()
    wanted = torch.nn.functional.cross_entropy(logits, a_batch[model.POS_ITEM_ID])
    torch.testing.assert_close(model.calculate_loss(a_batch), wanted, rtol=1e-5, atol=1e-6)


def test_recbole_ranks_by_the_dot_product_plus_log_p(page, a_batch):
    model = page["model"].eval()
    ids = page["dataset"].field2id_token["item_id"][1:]
    counts = [page["by_id"][one] for one in ids]
    log_p = torch.tensor(fastpop.popularity.PopularityPrior.from_counts(counts).log_prior_V).float()
    found, bare = model.full_sort_predict(a_batch), page["SASRec"].full_sort_predict(model, a_batch)
    assert found[:, 0].isneginf().all()
    torch.testing.assert_close(found[:, 1:], bare[:, 1:] + log_p)
    query = model.forward(a_batch[model.ITEM_SEQ], a_batch[model.ITEM_SEQ_LEN])
    folded, table = model.head.fold(query, model.item_embedding.weight)
    torch.testing.assert_close(found, folded @ table.T)


def test_its_evaluation_is_of_those_scores(page):
    with_log_p = page["trainer"].evaluate(page["valid_data"], load_best_model=False)["ndcg@10"]
    head, page["model"].head.prior_weight = page["model"].head, 0.0
    without = page["trainer"].evaluate(page["valid_data"], load_best_model=False)["ndcg@10"]
    head.prior_weight = 1.0
    assert with_log_p > without


def test_a_checkpoint_brings_log_p_back(page):
    wanted = page["model"].head.log_prior_V.clone()
    page["model"].head.log_prior_V.zero_()
    saved = torch.load(page["trainer"].saved_model_file, weights_only=False)
    page["model"].load_state_dict(saved["state_dict"])
    assert torch.equal(page["model"].head.log_prior_V, wanted)
