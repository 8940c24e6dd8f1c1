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
    "factor, row_adam": 44,
    "factor, adam": 40,
    "factor, full softmax": 49,
    "sasrec, row_adam": 180,
    "factor, dice": 147,
    "factor, importance_sampling": 123,
    "factor, partitioned_softmax": 55,
    "factor, bpr_max": 107,
    "factor, top1": 92,
    "factor, top1_max": 97,
    "bag, simgcl": 216,
    "bag, duorec": 136,
    "bag, cosreg": 89,
    "bag, resn": 168,
}


OF_THE_HOST = {
    name: ["_to_copy"] for name in ("factor, dice", "factor, importance_sampling")
}  # draws of theirs


@pytest.mark.parametrize("kind", MOST)
def test_a_step_waits_for_nothing_and_launches_no_more_than_it_did(bench, kind):
    steps = bench("step_calls")
    calls = steps.calls_of(steps.parts_of(steps.log_of(), **steps.KINDS[kind]))
    assert calls.waits == []
    assert calls.launches <= MOST[kind], calls.commonest()
    assert calls.copies == OF_THE_HOST.get(kind, [])


@pytest.mark.parametrize(
    "kind", ["factor, row_adam", "factor, adam", "factor, full softmax", "sasrec, row_adam"]
)
def test_a_replayed_step_is_five_launches_and_no_copy_from_the_host(bench, kind):
    steps = bench("step_calls")
    assert kind in steps.GRAPHS
    parts = steps.parts_of(steps.log_of(), **steps.KINDS[kind], cuda_graph=True)
    calls = steps.calls_of_graph(parts)
    assert calls.operators == ["fill", "fill", "graph", "copy_", "clone"]
    assert (calls.launches, calls.host) == (5, 5)
    assert (calls.copies, calls.waits) == ([], [])


@pytest.mark.parametrize(("kind", "most"), [("factor, row_adam", 12), ("sasrec, row_adam", 75)])
def test_rows_of_many_steps_are_made_at_once_and_waited_for_by_none(bench, kind, most):
    steps = bench("step_calls")
    calls = steps.calls_of_segment(steps.parts_of(steps.log_of(), **steps.KINDS[kind], cuda_graph=True))
    assert calls.waits == []
    assert calls.launches <= most, calls.commonest()


def test_where_rows_are_not_kept_a_step_sends_its_batch(bench):
    """As docs/performance.md says of several pieces a step, and of hidden items."""
    steps = bench("step_calls")
    for options, copies in (({"accumulate": 2}, 4), ({"encoder": "bert4rec", "max_length": 10}, 4)):
        parts = steps.parts_of(small_log(), **SMALL | {"encoder": "factor"} | options)
        assert parts.resident is None
        assert len(steps.calls_of(parts).copies) == copies


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


@pytest.mark.parametrize(("size", "dtype"), [(2, "bfloat16"), (4, "float32")])
def test_the_least_that_is_looked_for_is_the_models(bench, size, dtype):
    """The power of two that is nearest by its logarithm; a card's record replaces it."""
    op = importlib.import_module("fastpop.ops.sampled_softmax")
    model = bench("gpu.costs").least_saved(dtype)
    print(f"{dtype}: {model:,.0f} logits")
    assert op.LEAST_SAVED[size] == 2 ** round(np.log2(model))
    assert op.LEAST_SAVED[8] == op.LEAST_SAVED[4]


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
