"""A run is evaluated by propensities as its scores are."""

import numpy as np
import pytest

import fastpop
from fastpop.propensity import popularity_propensity
from fastpop.testing.training import QUICK, small_log


def test_a_run_is_evaluated_by_propensities(one_thread):
    run = fastpop.train(small_log(), **QUICK)
    counts_V = run.split.train.item_counts()
    alike, found = (run.evaluate(propensity=p_V) for p_V in (np.ones(25), popularity_propensity(counts_V)))
    assert alike.metrics["snips_recall@10"] == pytest.approx(alike.metrics["recall@10"])
    p_E = popularity_propensity(counts_V)[run.split.test.target_item]
    hit_E = run.evaluate().per_case["hr@10"]  # of one target a case
    assert found.metrics["snips_recall@10"] == pytest.approx((hit_E / p_E).sum() / (1 / p_E).sum())
