"""Which events log p is of: those that the encoder predicts, and no others."""

import shutil

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop import diagnostics, registry
from fastpop.popularity import PopularityPrior, recency_counts
from fastpop.training import CheckpointError, checkpoint, target_counts
from fastpop.training.result import moments_of

# Whose epochs all predict the same events.
EXACT = [
    name
    for name in fastpop.available("encoders")
    if registry.made("encoder", name).rows_part().first_events is not None
]
QUICK = {
    "epochs": 2,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "progress": False,
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("encoder", EXACT)
def test_the_prior_counts_what_an_epoch_predicts(encoder, weighted):
    """Counts and weights collected from the batches: of the prior, of the audit's contexts and of its
    direction. Histories here are longer than what is read, so windows are cut."""
    log = small_log(weighted=weighted)
    result = fastpop.train(log, encoder=encoder, **QUICK | {"max_length": 4})
    train = result.split.train
    assert train.user_counts().max() > 8
    config = result.config
    batches = config.encoder_part.rows_part().batches(
        train, max_length=config.max_length, batch_size=config.batch_size, seed=0
    )
    held_V = np.zeros(log.num_items)
    for batch in batches.epoch(1):
        real = batch.target >= 0
        np.add.at(held_V, batch.target[real], 1.0 if batch.weight is None else batch.weight[real])
    np.testing.assert_array_equal(target_counts(train, encoder), held_V)
    np.testing.assert_array_equal(result.prior.counts_V, held_V)
    reads = registry.made("encoder", encoder).reads
    assert (held_V != train.item_counts()).any() == (reads == "sequences")
    contexts = sum(weight.sum() for _, weight, _ in result.model.training_contexts(train))
    assert contexts == held_V.sum()
    audit = result.audit(permutations=0)
    again = diagnostics.audit_moments(
        moments_of(result.model, train),
        PopularityPrior.from_counts(held_V, result.prior.alpha),
        permutations=0,
    )
    assert audit.energy_shared == again.energy_shared
    same = result.refresh_prior(held_V, smoothing=result.prior.alpha)
    np.testing.assert_array_equal(same.prior.log_prior_V, result.prior.log_prior_V)
    assert same.audit(permutations=0).energy_shared == audit.energy_shared


def test_a_run_goes_on_beside_its_own_log_p_only(tmp_path):
    """A checkpoint that was trained beside another log p, as of a version that counted otherwise."""
    log = small_log()
    fastpop.train(log, out=tmp_path / "run", **QUICK)
    place = checkpoint.latest(tmp_path / "run")
    tensors, state = checkpoint.read_folder(place, ("model", "optimizer"))
    tensors["model"]["decoder.log_prior_V"] += torch.linspace(0, 0.1, log.num_items)
    shutil.rmtree(place)
    checkpoint.write_folder(place, tensors, state)
    with pytest.raises(CheckpointError, match="expected the log p of this configuration and log"):
        fastpop.train(log, out=tmp_path / "run", resume=True, **QUICK | {"epochs": 4})


def test_a_refreshed_prior_may_be_one_that_was_chosen_elsewhere(tmp_path):
    log = small_log()
    result = fastpop.train(log, **QUICK)
    recent = recency_counts(result.split.train)
    fresh = result.refresh_prior(recent.prior())
    assert fresh.prior.alpha == recent.alpha
    fresh.save(tmp_path / "fresh")
    back = fastpop.load(tmp_path / "fresh")
    np.testing.assert_array_equal(back.prior.log_prior_V, recent.prior().log_prior_V)
    np.testing.assert_allclose(back.model.decoder.log_prior_V, recent.prior().log_prior_V, rtol=1e-6)
    smooth = result.refresh_prior(recent.counts_V, smoothing=3.0)
    assert smooth.prior.alpha == 3.0
    with pytest.raises(ValueError, match="smoothing: expected None beside a PopularityPrior"):
        result.refresh_prior(recent.prior(), smoothing=1.0)
    with pytest.raises(ValueError, match=r"counts: expected shape \[39\], one count an item"):
        result.refresh_prior(np.ones(7))


def test_a_sequence_encoder_predicts_nothing_without_an_order():
    log = fastpop.Interactions.from_arrays(np.arange(50) % 7, np.arange(50) % 11, ordered=False)
    assert target_counts(log, "factor").sum() == 50
    with pytest.raises(ValueError, match="log: expected events with an order"):
        target_counts(log, "sasrec")
    with pytest.raises(ValueError, match=r"encoder: expected one of 'factor', 'bag', 'sasrec', .*; got 'mf'"):
        target_counts(log, "mf")
    alone = fastpop.Interactions.from_arrays(np.arange(50), np.arange(50) % 11)
    with pytest.raises(ValueError, match="log: expected at least one user with two training events"):
        fastpop.train(alone, encoder="sasrec", split="none", **QUICK)
