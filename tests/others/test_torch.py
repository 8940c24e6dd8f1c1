"""docs/embedding.md's compiled step under AMP, by torch's own inductor: half a minute of a C++ compiler."""

import os

import helpers_embedding
import pytest
import torch


@pytest.mark.skipif(
    not os.environ.get("FASTPOP_REQUIRE_OTHERS"), reason="compiles C++ (make test-others has it)"
)
def test_the_page_trains_in_float16():
    made = helpers_embedding.run("torch")
    assert made["scaler"].get_scale() > 0
    counts = made["counts"]
    with torch.no_grad():
        batch = made["rows"]
        trained = float(made["model"](batch[:, :-1], batch[:, -1]))
        torch.manual_seed(0)
        untrained = made["Mixed"](len(counts))
        untrained.head = made["model"].head
        assert trained < float(untrained(batch[:, :-1], batch[:, -1]))
