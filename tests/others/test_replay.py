"""docs/embedding.md beside RePlay: the loss of its own SasRec, its validation, candidates."""

import helpers_embedding
import pytest
import torch

import fastpop


@pytest.fixture(scope="module")
def page():
    return helpers_embedding.run("replay")


@pytest.fixture
def a_batch(page):
    return page["batch"](list(page["padded"][:50]))


def log_p_of(page):
    return torch.tensor(fastpop.popularity.PopularityPrior.from_counts(page["counts"]).log_prior_V).float()


def test_the_loss_is_replay_s_own_of_logits_without_and_with_log_p(page, a_batch):
    from replay.nn.loss import CE

    model = page["model"].eval()  # without dropout
    hidden = model.body(a_batch["feature_tensors"], a_batch["padding_mask"])

    def ours(loss):
        held, model.loss = model.loss, loss
        found = model.forward_train(**a_batch)["loss"]
        model.loss = held
        return found

    own = CE(ignore_index=page["train"].num_items)
    own.logits_callback = lambda hidden: page["SasRec"].get_logits(model, hidden)
    given = hidden, None, a_batch["positive_labels"], None, None, a_batch["target_padding_mask"]
    without = page["FullSoftmaxLoss"].from_counts(page["counts"], prior_weight=0.0)
    torch.testing.assert_close(ours(without), own(*given), rtol=1e-6, atol=1e-6)
    own.logits_callback = model.get_logits
    torch.testing.assert_close(ours(model.loss), own(*given), rtol=1e-6, atol=1e-6)


def test_what_replay_serves_is_the_dot_product_plus_log_p(page, a_batch):
    model = page["model"].eval()
    given = {name: a_batch[name] for name in ("feature_tensors", "padding_mask")}
    found = model(**given)
    query, items = found["hidden_states"][0][:, -1], model.body.embedder.get_item_weights()
    torch.testing.assert_close(found["logits"], query @ items.T + log_p_of(page))
    folded, table = model.loss.fold(query, items)
    torch.testing.assert_close(found["logits"], folded @ table.T)
    candidates = torch.tensor([7, 3, 400])
    some = model(**given, candidates_to_score=candidates)
    torch.testing.assert_close(some["logits"], found["logits"][:, candidates])


def test_a_validation_ranks_by_log_p_and_does_not_warn(page):
    """By a trainer that fits twice: the module would warn at the step after a validation that forgot."""
    seen = []

    class Watch(page["lightning"].Callback):
        def on_validation_batch_end(self, trainer, module, outputs, batch, *rest):
            query = outputs["hidden_states"][0][:, -1]
            bare = query @ module.model.body.embedder.get_item_weights().T
            seen.append((outputs["logits"], bare + log_p_of(page)))

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = page["lightning"].Trainer(
        max_epochs=2,
        accelerator="cpu",
        enable_checkpointing=False,
        limit_train_batches=2,
        callbacks=[Watch()],
        **quiet,
    )
    page["model"].train()
    loader = page["DataLoader"](page["padded"][:300], 100, collate_fn=page["batch"])
    trainer.fit(page["LightningModule"](page["model"]), loader, loader)
    assert len(seen) == 2 + 2 * 3  # the check before the first epoch, too
    for found, wanted in seen:
        torch.testing.assert_close(found, wanted)


def test_several_positives_a_place_are_averaged(page, a_batch):
    model = page["model"].eval()
    hidden = model.body(a_batch["feature_tensors"], a_batch["padding_mask"])
    pair = a_batch["positive_labels"].repeat(1, 1, 2)
    pair[..., 1] = pair[..., 1].roll(1, 0)
    mask = a_batch["target_padding_mask"].repeat(1, 1, 2)
    mask[..., 1] &= mask[..., 1].roll(1, 0)
    loss = model.forward_train(a_batch["feature_tensors"], a_batch["padding_mask"], pair, mask)["loss"]
    log_q = model.get_logits(hidden).log_softmax(-1)
    nll = -log_q.gather(-1, pair.clamp(max=page["train"].num_items - 1))
    wanted = ((nll * mask).sum(-1) / mask.sum(-1).clamp(min=1))[mask.any(-1)].mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
