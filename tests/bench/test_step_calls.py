"""What a training step asks of a device: launches by count, and no wait. No GPU is needed."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop

pytest.importorskip("triton", reason="triton is not installed")

BENCH = Path(__file__).resolve().parents[2] / "bench"
SMALL = {"dim": 8, "num_negatives": 64, "batch_size": 32, "max_length": 10}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return lambda name: importlib.import_module(name)


# As docs/performance.md has them.
MOST = {
    "factor, row_adam": 46,
    "factor, adam": 42,
    "factor, full softmax": 51,
    "sasrec, row_adam": 184,
    "factor, dice": 149,
    "factor, importance_sampling": 125,
    "factor, partitioned_softmax": 57,
    "factor, bpr_max": 109,
    "factor, top1": 94,
    "factor, top1_max": 99,
    "bag, simgcl": 220,
    "bag, duorec": 144,
    "bag, cosreg": 93,
    "bag, resn": 172,
}


@pytest.mark.parametrize("kind", MOST)
def test_a_step_waits_for_nothing_and_launches_no_more_than_it_did(bench, kind):
    steps = bench("step_calls")
    calls = steps.calls_of(steps.parts_of(steps.log_of(), **steps.KINDS[kind]))
    assert calls.waits == []
    assert calls.launches <= MOST[kind], calls.commonest()


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "bag"},
        {"encoder": "bert4rec"},
        {"encoder": "gru4rec", "loss": "bpr"},
        {"encoder": "lightgcn", "loss": "bce"},
        {"encoder": "factor", "loss": "entmax", "regularizers": "l2"},
        {"encoder": "sasrec", "learn_temperature": True, "prior": "learned"},
        {"encoder": "factor", "prior": "by-period"},
        {"encoder": "factor", "accumulate": 3},
        {"encoder": "factor", "group_size": 16, "accidental_hits": "drop"},
        {"encoder": "factor", "proposal": "in_batch"},
        {"encoder": "factor", "update_in_backward": True, "table_optimizer": "row_adagrad"},
        {"encoder": "factor", "item_tower": "linear", "weighted": True},
        {"encoder": "sasrec", "loss": "full_softmax", "label_smoothing": 0.1},
    ],
    ids=str,
)
def test_other_steps_wait_for_nothing_either(bench, options):
    options = dict(options)
    log = small_log(weighted=options.pop("weighted", False))
    steps = bench("step_calls")
    assert steps.calls_of(steps.parts_of(log, **SMALL | options)).waits == []


def test_draws_that_repeat_are_looked_for_where_that_pays(bench):
    steps = bench("step_calls")
    log = steps.log_of(exponent=1.0)
    popular, few, even = (
        steps.calls_of(steps.parts_of(log, encoder="factor", **options))
        for options in (
            {"proposal": "popularity"},
            {"proposal": "popularity", "num_negatives": 512},
            {"proposal": "uniform"},
        )
    )
    assert popular.waits == []
    assert popular.triton.count("merge_kernel") == 1
    assert popular.launches <= even.launches + 3
    for one in (few, even):
        assert "merge_kernel" not in one.triton
        assert one.launches <= MOST["factor, row_adam"]


def test_what_merging_draws_should_save_is_what_the_page_says(bench):
    page = (BENCH.parent / "docs" / "performance.md").read_text()
    for row in bench("repeated_draws").rows():
        assert row in page


@pytest.mark.parametrize("loss", fastpop.available("losses"))
def test_no_loss_waits(bench, loss):
    steps = bench("step_calls")
    options = {"encoder": "factor", "loss": loss, "prior": "none", "table_optimizer": "adam"}
    assert steps.calls_of(steps.parts_of(small_log(), **SMALL | options)).waits == []


@pytest.mark.parametrize("regularizer", fastpop.available("regularizers"))
def test_no_regularizer_waits(bench, regularizer):
    steps = bench("step_calls")
    options = {"encoder": "bag", "regularizers": regularizer}
    assert steps.calls_of(steps.parts_of(small_log(), **SMALL | options)).waits == []


def test_what_waits_is_seen(bench):
    counting = bench("gpu.device_calls").counting
    one = torch.zeros(3, device="meta")
    with counting() as calls:
        one.sum().item()
        bool((one > 0).all())
        one[one > 0]
        (one > 0).nonzero()
        one.cpu()
        torch.linalg.eigh(torch.zeros(3, 3, device="meta"))
    assert calls.waits == [
        "_local_scalar_dense",
        "_local_scalar_dense",
        "index by a mask",
        "nonzero",
        "_to_copy to the host",
        "_linalg_eigh",
    ]
    assert np.isin(["sum", "gt"], calls.operators).all()
