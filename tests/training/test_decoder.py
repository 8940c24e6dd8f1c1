"""What each arm trains on and serves."""

import numpy as np
import pytest
import torch

from fastpop.nn import Decoder

LOG_PRIOR = np.log(np.array([0.5, 0.3, 0.15, 0.05]))


def served(prior, weight, **options):
    torch.manual_seed(0)
    decoder = Decoder(LOG_PRIOR, 3, prior=prior, **options)
    query = torch.randn(2, 3)
    learned = decoder.scale * (query @ decoder.item_embedding.T)
    return (decoder.score(query, weight) - learned).detach().numpy(), decoder


@pytest.mark.parametrize(
    ("prior", "weight", "factor"),
    [
        ("none", 1.0, 0.0),
        ("none", 0.0, -1.0),
        ("none", 0.5, -0.5),
        ("frozen", 1.0, 1.0),
        ("frozen", 0.0, 0.0),
        ("frozen", 0.5, 0.5),
        ("permuted", 2.0, 2.0),
    ],
)
def test_the_knob_adds_this_much_log_p(prior, weight, factor):
    added, _ = served(prior, weight)
    np.testing.assert_allclose(added, np.tile(factor * LOG_PRIOR, (2, 1)), atol=1e-6)


def test_a_learned_bias_is_served_at_the_knob():
    _, decoder = served("learned", 1.0)
    with torch.no_grad():
        decoder.item_bias.copy_(torch.arange(4.0))
    torch.testing.assert_close(decoder.served_bias(0.5), torch.arange(4.0) / 2)
    with pytest.raises(ValueError, match="a decoder with a fixed log p"):
        decoder.set_log_prior(LOG_PRIOR)


def test_temperature_scales_the_dot_product_only():
    _, decoder = served("frozen", 1.0, temperature=0.25)
    assert decoder.scale.item() == pytest.approx(4.0)
    query = torch.zeros(1, 3)
    np.testing.assert_allclose(decoder.score(query, 1.0).detach().numpy()[0], LOG_PRIOR, rtol=1e-6)


@pytest.mark.parametrize(
    ("prior", "weight", "trained"),
    [("none", 1.0, 1.0), ("frozen", 0.7, 0.7), ("permuted", 0.7, 0.7), ("learned", 1.0, 1.0)],
)
def test_trained_weight_serves_what_was_trained(prior, weight, trained):
    _, decoder = served(prior, 1.0, prior_weight=weight)
    assert decoder.trained_weight == trained
    terms = decoder.training_terms()
    query = torch.randn(2, 3)
    logits = terms["scale"] * (query @ decoder.item_embedding.T)
    if terms["log_prior"] is not None:
        logits = logits + terms["prior_weight"] * terms["log_prior"]
    torch.testing.assert_close(decoder.score(query, trained), logits.detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "x"}, "prior: expected one of"),
        ({"temperature": 0.0}, "temperature: expected a finite number > 0"),
        ({"log_prior": np.zeros((2, 2))}, "log_prior: expected shape [V]"),
    ],
)
def test_bad_arguments_are_named(options, message):
    given = {"log_prior": LOG_PRIOR, "dim": 3} | options
    with pytest.raises(ValueError) as caught:
        Decoder(**given)
    assert message in str(caught.value)
