"""fastpop.train end to end: it learns, it stops well, it says what is wrong."""

import json
import warnings

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop import registry
from fastpop.training import TrainConfig, TrainingDiverged, sealed

QUICK = {
    "epochs": 3,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "progress": False,
}


OUR_SOFTMAXES = ("full_softmax", "sampled_softmax")


@pytest.mark.parametrize(
    ("encoder", "loss"),
    [(encoder, loss) for encoder in fastpop.available("encoders") for loss in OUR_SOFTMAXES]
    + [("factor", loss) for loss in fastpop.available("losses") if loss not in OUR_SOFTMAXES],
)
def test_every_encoder_and_every_loss_learn(encoder, loss):
    takes_prior = registry.find("loss", loss).takes_prior
    options = QUICK | {"epochs": 15} | ({} if takes_prior else {"prior": "none"})
    result = fastpop.train(small_log(), encoder=encoder, loss=loss, **options)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < losses[0]
    assert result.metrics["auc"] > 0.75
    assert len(losses) == 15


@pytest.mark.parametrize("prior", fastpop.available("priors"))
@pytest.mark.parametrize("proposal", fastpop.available("proposals"))
def test_every_prior_goes_with_every_proposal(prior, proposal):
    if (prior, proposal) == ("by-period", "in_batch"):
        with pytest.raises(ValueError, match="the same for all rows with in-batch"):
            fastpop.train(small_log(), prior=prior, proposal=proposal, **QUICK)
        return
    result = fastpop.train(small_log(), prior=prior, proposal=proposal, **QUICK)
    assert np.isfinite(result.metrics["nll"])


@pytest.mark.parametrize("optimizer", ["adam", "row_adam", "row_adagrad", "row_sgd"])
@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "factor"},
        {"encoder": "factor", "base": False},
        {"encoder": "sasrec"},
        {"encoder": "bag", "prior": "learned"},
        {"group_size": 1, "logq": "corrected"},
        {"group_size": 16},
        {"accumulate": 3},
        {"clip_norm": 0.1},
        {"precision": "bf16"},
        {"learn_temperature": True, "temperature": 0.5},
        {"proposal": "in_batch", "extra_negatives": 8},
    ],
)
def test_options_combine(optimizer, options):
    result = fastpop.train(small_log(), table_optimizer=optimizer, **QUICK | options)
    assert np.isfinite([row["loss"] for row in result.history]).all()


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (
        fastpop.train(small_log(), encoder="sasrec", seed=seed, **QUICK) for seed in (0, 0, 1)
    )
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert first.history[0]["loss"] != other.history[0]["loss"]
    assert first.metrics == again.metrics


def test_training_leaves_the_callers_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fastpop.train(small_log(), encoder="sasrec", **QUICK)
    assert torch.equal(torch.rand(3), expected)


def test_accumulation_is_the_same_step_in_less_memory():
    options = QUICK | {"encoder": "factor", "table_optimizer": "adam", "batch_size": 900}
    one = fastpop.train(small_log(), accumulate=1, **options)
    four = fastpop.train(small_log(), accumulate=4, **options)
    assert four.history[-1]["loss"] == pytest.approx(one.history[-1]["loss"], rel=1e-5)


@pytest.mark.parametrize("encoder", ["factor", "bag", "sasrec"])
def test_steps_inside_backward_are_the_same_steps(encoder):
    models = [
        fastpop.train(small_log(), encoder=encoder, update_in_backward=inside, **QUICK).model
        for inside in (False, True)
    ]
    for one, other in zip(*(model.state_dict().values() for model in models)):
        assert torch.equal(one, other)


def test_weights_multiply_the_loss_and_the_counts():
    """An event of weight 2 trains like two events (one batch an epoch, full softmax)."""
    log = small_log()
    doubled = fastpop.Interactions.from_arrays(log.user, log.item, log.time, np.full(log.num_events, 2.0))
    options = QUICK | {"loss": "full_softmax", "batch_size": 10_000, "split": "none"}
    plain = fastpop.train(log, **options)
    heavy = fastpop.train(doubled, **options)
    assert heavy.prior.alpha == pytest.approx(2 * plain.prior.alpha)
    assert heavy.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-5)
    np.testing.assert_allclose(heavy.prior.prior_V, plain.prior.prior_V)


def test_early_stopping_keeps_the_best_model(tmp_path):
    options = QUICK | {
        "epochs": 60,
        "learning_rate": 0.3,
        "evaluate_every": 1,
        "patience": 3,
        "metric": "nll",
    }
    in_memory = fastpop.train(small_log(), **options)
    on_disk = fastpop.train(small_log(), out=tmp_path / "run", **options)
    validations = [row["valid_nll"] for row in in_memory.history]
    assert len(validations) < 60
    best = int(np.argmin(validations)) + 1
    assert in_memory.facts["best_epoch"] == on_disk.facts["best_epoch"] == best
    assert in_memory.facts["stopped"] == "patience"
    assert in_memory.evaluate("valid").metrics["nll"] == pytest.approx(min(validations))
    assert on_disk.metrics == in_memory.metrics


def test_no_test_event_reaches_the_prior_or_the_model():
    """Change every held-out event: nothing that training made may change."""
    log = small_log()
    plain = fastpop.train(log, **QUICK)
    part = plain.split.part
    item = np.array(log.item)
    item[part != 0] = (item[part != 0] + 11) % log.num_items
    changed = fastpop.Interactions.from_arrays(
        log.user, item, log.time, user_ids=log.user_ids, item_ids=log.item_ids
    )
    other = fastpop.train(changed, **QUICK)
    np.testing.assert_array_equal(other.prior.log_prior_V, plain.prior.log_prior_V)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_uncorrected_in_batch_with_a_prior_warns_of_double_subtraction():
    with pytest.warns(UserWarning, match="popularity slope -1, not 0"):
        fastpop.train(small_log(), proposal="in_batch", logq="none", prior="frozen", **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fastpop.train(small_log(), proposal="in_batch", logq="none", prior="none", **QUICK)
        fastpop.train(small_log(), proposal="in_batch", prior="frozen", **QUICK)
        fastpop.train(small_log(), proposal="uniform", logq="none", prior="frozen", **QUICK)


def test_a_diverging_loss_stops_with_the_batch_saved(tmp_path, monkeypatch):
    from fastpop.training import loop

    real = loop.torch.Tensor.item
    calls = []

    def broken(tensor):
        calls.extend([1] * tensor.requires_grad)  # the loss alone does
        return float("nan") if tensor.requires_grad and len(calls) == 5 else real(tensor)

    monkeypatch.setattr(loop.torch.Tensor, "item", broken)
    with pytest.raises(TrainingDiverged, match=r"got nan at step \d+ .*learning_rate 0.02") as caught:
        fastpop.train(small_log(), out=tmp_path / "run", **QUICK)
    with np.load(tmp_path / "run" / "failed-batch.npz") as saved:
        assert saved["user"].shape == saved["target"].shape
    assert "failed-batch.npz" in str(caught.value)


def test_save_and_load_give_the_same_answers(tmp_path):
    log = small_log()
    result = fastpop.train(log, encoder="sasrec", out=tmp_path / "run", **QUICK)
    loaded = fastpop.load(tmp_path / "run")
    assert loaded.metrics == result.metrics
    assert loaded.evaluate().metrics == result.evaluate().metrics
    users = log.user_ids[:5]
    np.testing.assert_array_equal(loaded.recommend(users, 4).item, result.recommend(users, 4).item)
    audit, again = result.audit(permutations=50), loaded.audit(permutations=50)
    assert again.energy_shared == audit.energy_shared
    assert again.p_value_shared == audit.p_value_shared
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == result.metrics


def test_a_run_without_a_base_vector_comes_back_and_goes_on(tmp_path):
    """Two more epochs: weights, optimisers and recommendations, with no parameters beside tables."""
    options = QUICK | {"base": False, "out": tmp_path / "run"}
    fastpop.train(small_log(), **options)
    result = fastpop.train(small_log(), resume=True, **options | {"epochs": 5})
    whole = fastpop.train(small_log(), **options | {"epochs": 5, "out": None})
    loaded = fastpop.load(tmp_path / "run")
    assert loaded.config.base is False
    assert "encoder.base" not in loaded.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, result.model.state_dict()[name]), name
        assert torch.equal(value, loaded.model.state_dict()[name]), name


def test_a_run_of_before_there_were_base_vectors_to_leave_out(tmp_path):
    """Its config.json names no such option: it loads, and goes on."""
    fastpop.train(small_log(), out=tmp_path / "run", **QUICK)
    path = tmp_path / "run" / "config.json"
    document = sealed.read(path)
    del document["base"]
    sealed.write(path, document)
    assert fastpop.load(tmp_path / "run").config.base is True
    longer = fastpop.train(small_log(), out=tmp_path / "run", resume=True, **QUICK | {"epochs": 4})
    assert len(longer.history) == 4
    with pytest.raises(ValueError, match="base: expected True, as in the run"):
        fastpop.train(small_log(), out=tmp_path / "run", resume=True, base=False, **QUICK)


def test_recommendations_leave_out_what_was_seen_and_follow_the_knob():
    log = small_log()
    result = fastpop.train(log, **QUICK)
    users = log.user_ids[:10]
    found = result.recommend(users, k=8, popularity_weight=0.0)
    for user, items in zip(users, found.item):
        seen = log.decode_items(log.history(int(log.encode_users([user])[0])))
        assert not set(items) & set(seen)
    strong = result.recommend(users, k=8, popularity_weight=50.0, exclude_seen=False)
    popular = log.decode_items(np.argsort(-result.prior.log_prior_V, kind="stable")[:8])
    for items in strong.item:
        assert set(items) == set(popular)
    assert len(found.csv().splitlines()) == 1 + 80


def test_the_knob_moves_the_served_scores_by_log_p():
    result = fastpop.train(small_log(), **QUICK)
    query = result.model.encode(result.split.test)
    low, high = (result.model.score(query, weight) for weight in (0.25, 1.0))
    expected = 0.75 * torch.tensor(result.prior.log_prior_V, dtype=torch.float32)
    torch.testing.assert_close(high - low, expected.expand_as(high), rtol=1e-4, atol=1e-4)
    items, queries = result.model.decoder.index_vectors(query)
    torch.testing.assert_close(queries @ items.T, high, rtol=1e-4, atol=1e-4)


def test_the_prior_can_be_refreshed_without_training():
    result = fastpop.train(small_log(), **QUICK)
    before = {name: value.clone() for name, value in result.model.state_dict().items()}
    counts = np.arange(1.0, result.log.num_items + 1)
    fresh = result.refresh_prior(counts)
    for model, expected in ((result.model, []), (fresh.model, ["decoder.log_prior_V"])):
        after = model.state_dict()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert changed == expected
    assert fresh.model.decoder.item_embedding is result.model.decoder.item_embedding
    want = torch.tensor(fresh.prior.log_prior_V, dtype=torch.float32)
    torch.testing.assert_close(fresh.model.decoder.log_prior_V, want, rtol=0, atol=0)


def test_a_refreshed_prior_comes_back_from_disk(tmp_path):
    result = fastpop.train(small_log(), out=tmp_path / "run", **QUICK)
    fresh = result.refresh_prior(np.arange(1.0, result.log.num_items + 1))
    fresh.save(tmp_path / "fresh")
    for folder, saved in (("run", result), ("fresh", fresh)):
        back = fastpop.load(tmp_path / folder)
        assert back.prior.log_prior_V.tobytes() == saved.prior.log_prior_V.tobytes()
        assert back.prior.counts_V.tobytes() == saved.prior.counts_V.tobytes()
        assert back.prior.facts == saved.prior.facts
        held = back.model.decoder.log_prior_V.numpy()
        assert np.array_equal(held, saved.prior.log_prior_V.astype(np.float32))
        users = result.log.user_ids[:5]
        for knob in (0.0, 1.0, 2.0):
            assert (
                back.recommend(users, 5, popularity_weight=knob).item.tolist()
                == saved.recommend(users, 5, popularity_weight=knob).item.tolist()
            )
    fresh.save(tmp_path / "run")  # over the run itself: what was saved last is there
    assert fastpop.load(tmp_path / "run").prior.counts_V.tolist() == fresh.prior.counts_V.tolist()


def test_results_are_read_only():
    result = fastpop.train(small_log(), **QUICK)
    shown = result.evaluate()
    with pytest.raises(TypeError, match="results are read-only"):
        result.metrics["nll"] = 0.0
    with pytest.raises(TypeError, match="results are read-only"):
        result.facts["split"]["rule"] = "none"
    with pytest.raises(TypeError, match="results are read-only"):
        result.history[0]["loss"] = 0.0
    with pytest.raises(TypeError, match="results are read-only"):
        result.history.append({})
    with pytest.raises(TypeError, match="results are read-only"):
        shown.metrics["nll"] = 0.0
    for array in (
        shown.per_case["nll"],
        result.prior.counts_V,
        result.audit(permutations=0).mean_score_V,
        result.recommend(result.log.user_ids[:1]).score,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_log_with_its_own_test_part(tmp_path):
    log = small_log()
    held = np.zeros(log.num_events, dtype=bool)
    held[::10] = True
    result = fastpop.train(log.take(~held), test=log.take(held), out=tmp_path / "run", **QUICK)
    assert result.split.facts["rule"] == "own-test"
    loaded = fastpop.load(tmp_path / "run")
    assert loaded.evaluate().metrics == result.evaluate().metrics


def test_a_toml_file_holds_the_same_options(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[train]\nencoder = "bag"\ndim = 16\nlearning_rate = 0.5\n')
    config = TrainConfig.from_toml(path)
    assert (config.encoder, config.dim, config.learning_rate) == ("bag", 16, 0.5)
    result = fastpop.train(small_log(), config=path, **QUICK | {"dim": 4})
    assert result.config.encoder == "bag"
    assert result.config.dim == 4
    path.write_text("[train\n")
    with pytest.raises(ValueError, match=r"config.toml: expected a TOML file"):
        TrainConfig.from_toml(path)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"encoder": "bert"}, ValueError, "(did you mean 'bert4rec'?); got 'bert'"),
        ({"learning_rte": 1.0}, TypeError, "did you mean 'learning_rate'?"),
        ({"epochs": 0}, ValueError, "epochs: expected an integer >= 1; got 0"),
        ({"epochs": 1.5}, TypeError, "epochs: expected an integer"),
        ({"dropout": 1.0}, ValueError, "dropout: expected a number below 1; got 1.0"),
        ({"learning_rate": -1}, ValueError, "learning_rate: expected a finite number > 0; got -1"),
        ({"logq": "corrected", "accidental_hits": "keep"}, ValueError, "accidental_hits: expected 'drop'"),
        (
            {"encoder": "sasrec", "dim": 10, "num_heads": 3},
            ValueError,
            "num_heads: expected a divisor of dim = 10",
        ),
        ({"device": "tpu:0"}, ValueError, "device: expected"),
        ({"patience": 2}, ValueError, "evaluate_every: expected >= 1"),
        ({"metric": "magic"}, ValueError, "metric: expected one of"),
        ({"seed": 2**64}, ValueError, "seed: expected an integer >= 0 <= 9.22337e+18"),
        ({"smoothing": "much"}, ValueError, "smoothing: expected loo, good-turing or a number"),
        ({"device": "meta"}, ValueError, "device: expected auto, cpu, cuda or cuda:N"),
        ({"accumulate": 2, "proposal": "in_batch"}, ValueError, "accumulate: expected 1 with in-batch"),
        ({"tensorboard": True}, ValueError, "tensorboard: expected false without out="),
        ({"patience": 1, "evaluate_every": 1, "split": "none"}, ValueError, "patience: expected 0"),
        ({"out": 3}, TypeError, "out: expected the path of a folder"),
        ({"split": "by-magic"}, ValueError, "split: expected one of"),
        ({"resume": True}, ValueError, "out: expected the folder to resume from; got None"),
        (
            {"update_in_backward": True, "clip_norm": 1.0},
            ValueError,
            "clip_norm: expected 0 with update_in_backward",
        ),
        (
            {"update_in_backward": True, "accumulate": 2},
            ValueError,
            "accumulate: expected 1 with update_in_backward",
        ),
        (
            {"update_in_backward": True, "table_optimizer": "adam"},
            ValueError,
            "update_in_backward: expected False with table_optimizer adam",
        ),
    ],
)
def test_bad_options_get_one_clear_error(options, kind, message):
    with pytest.raises(kind) as caught:
        fastpop.train(small_log(), **QUICK | options)
    assert message in str(caught.value)


def test_a_path_instead_of_a_log_says_what_to_do():
    with pytest.raises(TypeError, match=r"log: expected Interactions \(read a file with fastpop.read_log"):
        fastpop.train("log.csv")


def test_sequence_encoders_need_an_order():
    log = fastpop.Interactions.from_arrays(np.arange(50) % 7, np.arange(50) % 11, ordered=False)
    with pytest.raises(ValueError, match="an order"):
        fastpop.train(log, encoder="sasrec", split="random-by-user", **QUICK)


def test_unknown_users_are_named():
    result = fastpop.train(small_log(), **QUICK)
    with pytest.raises(ValueError, match="-5"):
        result.recommend([-5])
