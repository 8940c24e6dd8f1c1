"""docs/embedding.md beside the Hugging Face Trainer: num_items_in_batch, accumulation, bf16, checkpoints."""

import helpers_embedding
import pytest
import torch

import fastpop


@pytest.fixture(scope="module")
def page():
    return helpers_embedding.run("transformers")


def model_of(page, bias=True):
    torch.manual_seed(1)
    config = page["GPT2Config"](
        vocab_size=page["train"].num_items,
        bos_token_id=None,
        eos_token_id=None,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **page["sizes"],
    )
    model = page["GPT2LMHeadModel"](config)
    if bias:
        model.lm_head.bias = torch.nn.Parameter(page["head"].served_bias(), requires_grad=False)
    return model


def trainer_of(page, kind, model, folder="run", **options):
    arguments = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "max_steps": 4}
    arguments |= {"use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_steps": 1, "seed": 3}
    arguments |= {"learning_rate": 1e-2, "save_strategy": "no"}
    return kind(
        model,
        page["TrainingArguments"](folder, **{**arguments, **options}),
        train_dataset=page["data"][:200],
        eval_dataset=page["data"][:64],
    )


def losses_of(trainer):
    trainer.train()
    return torch.tensor([line["loss"] for line in trainer.state.log_history if "loss" in line])


@pytest.mark.parametrize("with_log_p", [False, True])
def test_a_run_is_that_of_the_trainer_s_own_loss(page, monkeypatch, with_log_p):
    """Its own on logits, whose bias is 0 or log p: lengths differ, three batches a step, so that a mean of
    means would show."""
    from transformers import Trainer

    own = losses_of(trainer_of(page, Trainer, model_of(page, bias=with_log_p)))
    if not with_log_p:
        monkeypatch.setitem(page, "head", page["FullSoftmaxLoss"]())
    ours = losses_of(trainer_of(page, page["LogPOutside"], model_of(page, bias=with_log_p)))
    assert len(own) == 4
    torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-5)


def test_in_bfloat16_a_run_is_near_that_in_float32(page):
    exact = losses_of(trainer_of(page, page["LogPOutside"], model_of(page)))
    half = losses_of(trainer_of(page, page["LogPOutside"], model_of(page), bf16=True))
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=0)


def test_what_the_trainer_evaluates_holds_log_p(page):
    model, rows = model_of(page).eval(), page["data"][:256]
    model.load_state_dict(page["model"].state_dict())  # that one computes in bfloat16 now
    log_p = torch.tensor(fastpop.popularity.PopularityPrior.from_counts(page["counts"]).log_prior_V).float()
    input_ids, labels = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels"))
    with torch.no_grad():
        hidden = model.transformer(input_ids).last_hidden_state
        logits = model(input_ids).logits
    bare = hidden @ model.lm_head.weight.T
    torch.testing.assert_close(logits, bare + log_p)
    folded, table = page["head"].fold(hidden, model.lm_head.weight)
    torch.testing.assert_close(logits, (folded @ table.T).detach())
    found = trainer_of(page, page["LogPOutside"], model).evaluate(rows)["eval_loss"]
    # Batches' sums over labels: this Trainer counts a GPT-2's first labels, too, which have no loss.
    wanted = [
        torch.nn.functional.cross_entropy(part[:, :-1].flatten(0, 1), label[:, 1:].flatten(), reduction="sum")
        / (label != -100).sum()
        for part, label in zip(logits.split(8), labels.split(8), strict=True)
    ]
    torch.testing.assert_close(found, float(torch.stack(wanted).mean()), rtol=1e-5, atol=0)


def test_a_run_that_resumes_ends_in_the_same_bits(page):
    straight = model_of(page)
    trainer_of(page, page["LogPOutside"], straight, "straight", save_strategy="steps", save_steps=2).train()
    again = model_of(page)
    trainer_of(page, page["LogPOutside"], again, "again").train(
        resume_from_checkpoint="straight/checkpoint-2"
    )
    for (name, one), (_, other) in zip(straight.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_sampled_loss_trains_it(page, monkeypatch):
    head = page["SampledSoftmaxLoss"].from_counts(page["counts"], num_negatives=256)
    monkeypatch.setitem(page, "head", head)
    model = model_of(page)
    before = trainer_of(page, page["LogPOutside"], model).evaluate()["eval_loss"]
    trainer_of(page, page["LogPOutside"], model, max_steps=20).train()
    assert trainer_of(page, page["LogPOutside"], model).evaluate()["eval_loss"] < before - 0.1
