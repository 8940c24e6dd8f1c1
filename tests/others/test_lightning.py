"""docs/embedding.md beside PyTorch Lightning: what its loss, validation, clipping and checkpoints do."""

import helpers_embedding
import numpy as np
import pytest
import torch

import fastpop


@pytest.fixture(scope="module")
def page():
    return helpers_embedding.run("lightning")


def trainer_of(page, **options):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return page["lightning"].Trainer(**{"default_root_dir": ".", **quiet, **options})


def model_of(page, seed=0, **options):
    torch.manual_seed(seed)
    model = page["LogPOutside"](page["train"].num_users, page["train"].num_items)
    model.head = page["SampledSoftmaxLoss"].from_counts(
        page["counts"], num_negatives=64, sparse_grad=True, **options
    )
    return model


def loader(page, size=2048):
    return page["DataLoader"](page["pairs"], size)


def test_training_is_better_than_chance_and_the_audit_is_logged(page):
    metrics = page["trainer"].callback_metrics
    assert metrics["hit@10"] > 3 * 10 / page["train"].num_items
    audit = fastpop.audit(
        page["model"].user.weight, page["model"].item.weight, page["counts"], permutations=0
    )
    np.testing.assert_allclose(metrics["shared"], audit.fraction_shared, rtol=1e-6)
    np.testing.assert_allclose(metrics["slope"], audit.slope_mean, rtol=1e-5)


def test_what_lightning_validates_by_is_logits_with_log_p(page):
    model = page["model"]
    user = torch.arange(5)
    log_p = torch.tensor(fastpop.popularity.PopularityPrior.from_counts(page["counts"]).log_prior_V).float()
    wanted = model.user(user) @ model.item.weight.T + log_p
    torch.testing.assert_close(model.scores(user), wanted)
    folded, table = model.head.fold(model.user(user), model.item.weight)
    torch.testing.assert_close(folded @ table.T, wanted)


def test_without_a_prior_the_full_loss_is_the_module_s_own(page):
    batch = tuple(rows[:300] for rows in page["pairs"].tensors)
    model = model_of(page)
    model.head = page["FullSoftmaxLoss"].from_counts(page["counts"], prior_weight=0.0)
    ours, own = model.training_step(batch, 0), page["Factor"].training_step(model, batch, 0)
    torch.testing.assert_close(ours, own, rtol=1e-6, atol=1e-6)


def test_lightning_clips_sparse_gradients_by_ours(page):
    norms = []

    class Watch(page["lightning"].Callback):
        def on_train_batch_end(self, trainer, model, *rest):
            squares = [p.grad.coalesce().values().square().sum() for p in model.parameters()]
            assert all(p.grad.is_sparse for p in model.parameters())
            norms.append(torch.stack(squares).sum().sqrt())

    options = {"max_steps": 3, "limit_val_batches": 0, "enable_checkpointing": False}
    trainer_of(page, gradient_clip_val=1e-3, callbacks=[Watch()], **options).fit(model_of(page), loader(page))
    torch.testing.assert_close(torch.stack(norms), torch.full((3,), 1e-3), rtol=1e-4, atol=0)
    own = model_of(page)
    own.configure_gradient_clipping = page["lightning"].LightningModule.configure_gradient_clipping.__get__(
        own
    )
    with pytest.raises((NotImplementedError, RuntimeError)):  # what the page says of Lightning's own
        trainer_of(page, gradient_clip_val=1e-3, **options).fit(own, loader(page))


def test_a_run_that_resumes_ends_in_the_same_bits(page):
    straight = model_of(page)
    trainer_of(page, max_epochs=2, enable_checkpointing=False).fit(straight, loader(page))
    first = model_of(page)
    trainer = trainer_of(page, max_epochs=1)
    trainer.fit(first, loader(page))
    trainer.save_checkpoint("one.ckpt")
    again = model_of(page, seed=1)
    again.head.log_prior_V.zero_()  # comes back with the checkpoint
    trainer_of(page, max_epochs=2, enable_checkpointing=False).fit(again, loader(page), ckpt_path="one.ckpt")
    states = straight.state_dict(), again.state_dict()
    assert int(states[0]["head.num_steps"]) == 2 * len(loader(page))
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_an_epoch_that_is_validated_without_log_p_warns(page):
    model = model_of(page)
    model.scores = lambda user: model.user(user) @ model.item.weight.T
    val = page["DataLoader"](page["later"], 1024)
    with pytest.warns(UserWarning, match="evaluated without log p"):
        trainer_of(page, max_epochs=2, num_sanity_val_steps=0, enable_checkpointing=False).fit(
            model, loader(page), val
        )
