"""docs/embedding.md beside RecTools: losses, validation, recommendations, saved models."""

import pickle

import helpers_embedding
import numpy as np
import pytest
import torch

import fastpop

SIZES = {
    "n_factors": 16,
    "n_blocks": 1,
    "n_heads": 1,
    "session_max_len": 20,
    "epochs": 1,
    "dropout_rate": 0.0,
}


@pytest.fixture(scope="module")
def page():
    return helpers_embedding.run("rectools")


def model_of(page, kind="SASRecModel", adapter="LogPOutside", **options):
    from rectools import models

    own = page["hstu" if kind == "HSTUModel" else "model"]
    more = {"loss": "log p outside", "lightning_module_type": page[adapter]}
    for name in ("lightning_module_kwargs", "similarity_module_kwargs"):
        more[name] = getattr(own, name)
    return getattr(models, kind)(**{**SIZES, **more, **options})


def log_p_of(page, model):
    """[V] in the order of the model's table, without the rows that are no items."""
    counts = page["events"]["item_id"].value_counts()
    ids = model.lightning_model.item_external_ids[len(model.lightning_model.item_extra_tokens) :]
    return torch.tensor(fastpop.popularity.PopularityPrior.from_counts(counts[ids].to_numpy()).log_prior_V)


def scores_of(model, dataset, users):
    """[U, V] with the rows that are no items: what RecTools gives its ranker, as one product."""
    from rectools.models.nn.transformers.lightning import TransformerLightningModule

    inner = model.data_preparator.transform_dataset_u2i(dataset, users)
    loader = model.data_preparator.get_dataloader_recommend(inner, 64)
    query, items = model.lightning_model._get_user_item_embeddings(loader, "cpu")
    bare = TransformerLightningModule._get_user_item_embeddings(model.lightning_model, loader, "cpu")
    return query @ items.T, bare[0] @ bare[1].T


def check_recommendations(page, model, users):
    served, bare = scores_of(model, page["dataset"], users)
    log_p = log_p_of(page, model).float()
    first = len(model.lightning_model.item_extra_tokens)
    assert served[:, :first].isneginf().all()
    torch.testing.assert_close(served[:, first:], bare[:, first:] + log_p)
    shown = model.recommend(users, page["dataset"], k=10, filter_viewed=False)
    best = served.topk(10)
    ids = model.lightning_model.item_external_ids
    by_user = dict(tuple(shown.groupby("user_id")))
    inner = model.data_preparator.transform_dataset_u2i(page["dataset"], users).user_id_map.external_ids
    for row, user in enumerate(inner):
        assert list(by_user[user]["item_id"]) == [ids[i] for i in best.indices[row]]
        np.testing.assert_allclose(by_user[user]["score"], best.values[row], rtol=1e-5)


def test_sasrec_recommends_by_the_dot_product_plus_log_p(page):
    check_recommendations(page, page["model"], page["train"].user_ids[:40])


def test_bert4rec_s_table_has_two_rows_that_are_no_items(page):
    model = model_of(page, "BERT4RecModel").fit(page["dataset"])
    assert model.lightning_model.head.log_prior_V[:2].isneginf().all()
    check_recommendations(page, model, page["train"].user_ids[:20])


def test_hstu_recommends_by_cosines_over_the_temperature_plus_log_p(page):
    from rectools.models.nn.transformers.lightning import TransformerLightningModule

    model, users = page["hstu"], page["train"].user_ids[:20]
    inner = model.data_preparator.transform_dataset_u2i(page["dataset"], users, page["now"].copy())
    loader = model.data_preparator.get_dataloader_recommend(inner, 64)
    query, items = TransformerLightningModule._get_user_item_embeddings(model.lightning_model, loader, "cpu")
    cosine = torch.nn.functional.cosine_similarity(query[:, None], items[None, 1:], dim=-1)
    wanted = cosine / 0.05 + log_p_of(page, model).float()
    shown = model.recommend(users, page["dataset"], k=10, filter_viewed=False, context=page["now"].copy())
    best, ids = wanted.topk(10), model.lightning_model.item_external_ids[1:]
    by_user = dict(tuple(shown.groupby("user_id")))
    assert len(by_user) == 20
    for row, user in enumerate(inner.user_id_map.external_ids):
        assert list(by_user[user]["item_id"]) == [ids[i] for i in best.indices[row]]
        np.testing.assert_allclose(by_user[user]["score"], best.values[row], rtol=1e-5)


@pytest.mark.parametrize("kind", ["SASRecModel", "BERT4RecModel", "HSTUModel"])
def test_without_a_prior_and_with_padding_as_a_class_the_loss_is_rectools_own(page, kind):
    from rectools.models.rank import Distance

    model = model_of(page, kind, "CosineWithLogP" if kind == "HSTUModel" else "LogPOutside")
    model._build_model_from_dataset(page["dataset"])
    module = model.lightning_model.eval()
    if kind == "HSTUModel":  # as RecTools makes one that is told nothing
        module.torch_model.similarity_module.distance = Distance.COSINE
        assert module.logits_t == 0.05
    torch.manual_seed(0)
    module._xavier_normal_init()  # as a fit starts; RecTools leaves out places whose loss rounds to 0
    module.configure_model()
    batch = next(iter(model.data_preparator.get_dataloader_train()))
    assert (batch["y"] == 0).any()
    logits = module.get_batch_logits(batch)
    own = module._calc_softmax_loss(logits, batch["y"], batch["yw"])

    class WithPadding(page["FullSoftmaxLoss"]):
        def forward(self, query, items, pos_id, **terms):
            return super().forward(query, items, pos_id, ignore_index=0, **terms)

    head, module.head = module.head, WithPadding()
    torch.testing.assert_close(module._calc_custom_loss(batch, 0), own, rtol=1e-6, atol=1e-6)
    # And with log p: RecTools' own of the same logits, padding left out, log p added.
    module.head = head
    bias = head.served_bias()
    wanted = torch.nn.functional.cross_entropy((logits + bias).transpose(1, 2), batch["y"], ignore_index=0)
    torch.testing.assert_close(module._calc_custom_loss(batch, 0), wanted, rtol=1e-5, atol=1e-6)


def last_of_half(interactions):
    """RecTools' mask of validation: the last event of every other user."""
    is_last = ~interactions.sort_values("datetime").duplicated("user_id", keep="last").sort_index()
    return (is_last & (interactions["user_id"] % 2 == 0)).to_numpy()


def test_rectools_validates_with_log_p(page, monkeypatch):
    from pytorch_lightning import Trainer

    seen = []

    def outputs_of(self, batch, batch_idx):
        found = original(self, batch, batch_idx)
        items = self.torch_model.item_model.get_all_embeddings()
        query = self.torch_model.encode_sessions(batch, items)[:, -1]
        logits = query @ items.T + self.head.served_bias()
        seen.append((found["loss"], torch.nn.functional.cross_entropy(logits, batch["y"][:, 0])))
        return found

    original = page["Validated"]._calc_custom_loss_outputs
    monkeypatch.setattr(page["Validated"], "_calc_custom_loss_outputs", outputs_of)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    model = model_of(
        page,
        adapter="Validated",
        get_val_mask_func=last_of_half,
        get_trainer_func=lambda: Trainer(
            max_epochs=1, accelerator="cpu", enable_checkpointing=False, **quiet
        ),
    )
    model.fit(page["dataset"])
    assert len(seen) > 1
    for found, wanted in seen:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert "val_loss" in model.fit_trainer.callback_metrics


def test_a_saved_model_serves_log_p(page):
    users = page["train"].user_ids[:5]
    before = page["model"].recommend(users, page["dataset"], k=5, filter_viewed=False)
    again = pickle.loads(pickle.dumps(page["model"]))
    assert torch.equal(again.lightning_model.head.log_prior_V, page["model"].lightning_model.head.log_prior_V)
    assert before.equals(again.recommend(users, page["dataset"], k=5, filter_viewed=False))


def test_the_sampled_loss_trains_and_counts_its_draws_in_each_fit(page, monkeypatch):
    monkeypatch.setitem(page, "FullSoftmaxLoss", page["SampledSoftmaxLoss"])
    model = model_of(page)
    steps = len(model.fit_partial(page["dataset"], 1, 1).fit_trainer.train_dataloader)
    model.fit_partial(page["dataset"], 1, 1)
    assert int(model.lightning_model.head.num_steps) == steps
