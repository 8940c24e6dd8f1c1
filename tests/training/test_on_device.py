"""Training, evaluation, resuming and comparing on a device: what a card does beside the processor.

Every test runs on "cpu" too, where it must hold exactly or the test itself is wrong.
"""

import contextlib

import numpy as np
import pytest
import torch
from helpers_device import CPU_AND_GPU, device_of, gpu
from helpers_logs import small_log

import fastpop
from fastpop.training import TrainConfig, TrainingDiverged, build, captured, loop, memory

QUICK = {
    "epochs": 3,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "dropout": 0.0,
    "progress": False,
}
# Losses in nats. A step's rounding is amplified by the 40 after it: losses of one processor's own paths
# differ by 6e-6 (vector lengths), of tf32x3, with 3 bits fewer, by some ten times that; of bf16 beside fp32
# on one processor by up to 2.6e-2 (eight logs and seeds, sasrec), and the evaluated NLL by up to 4.1e-2.
MOST = {"fp32": 2e-4, "bf16": 5e-2}


@pytest.fixture(params=CPU_AND_GPU)
def device(request, monkeypatch):
    return device_of(request.param, monkeypatch)


def trained(device, **options):
    return fastpop.train(small_log(), device=device, **QUICK | options)


@pytest.mark.parametrize("precision", MOST)
@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_losses_and_metrics_are_those_of_the_processor(device, encoder, precision):
    here, there = trained("cpu", encoder=encoder), trained(device, encoder=encoder, precision=precision)
    assert there.model.device.type == device
    losses = [[row["loss"] for row in result.history] for result in (there, here)]
    np.testing.assert_allclose(*losses, rtol=0, atol=MOST[precision])
    assert losses[0][-1] < losses[0][0]
    assert there.metrics["nll"] == pytest.approx(here.metrics["nll"], abs=2 * MOST[precision])
    assert there.metrics["auc"] == pytest.approx(here.metrics["auc"], abs=2e-2)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "full_softmax"},
        {"group_size": 1, "logq": "corrected"},
        {"proposal": "in_batch"},
        {"table_optimizer": "row_adagrad"},
        {"table_optimizer": "adam", "learn_temperature": True},
    ],
    ids=str,
)
def test_losses_of_every_path_are_those_of_the_processor(device, options):
    losses = [
        [row["loss"] for row in trained(where, encoder="factor", **options).history]
        for where in (device, "cpu")
    ]
    np.testing.assert_allclose(*losses, rtol=0, atol=MOST["fp32"])


def test_the_same_seed_gives_the_same_bits(device):
    first, again = (trained(device, encoder="sasrec", dropout=0.2) for _ in range(2))
    assert_same_run(first, again)


def assert_same_run(one, two):
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name]), name
    assert one.metrics == two.metrics
    assert [row["loss"] for row in one.history] == [row["loss"] for row in two.history]


@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_a_run_that_resumes_ends_in_the_bits_of_one_that_did_not(device, encoder, tmp_path):
    whole = trained(device, encoder=encoder, dropout=0.2)
    trained(device, encoder=encoder, dropout=0.2, epochs=1, out=tmp_path / "run")
    resumed = trained(device, encoder=encoder, dropout=0.2, out=tmp_path / "run", resume=True)
    assert len(resumed.history) == QUICK["epochs"]
    assert_same_run(whole, resumed)


@pytest.mark.gpu
@pytest.mark.parametrize("encoder", ["factor", "bag", "sasrec"])
def test_steps_as_graphs_have_the_bits_of_steps_that_are_not_recorded(encoder, monkeypatch, tmp_path):
    """And a run that goes on from a checkpoint, whose sizes are met anew, those of one that did not stop."""
    options = {"encoder": encoder, "dropout": 0.2, "cuda_graph": True}
    whole = trained(gpu(), **options)
    trained(gpu(), epochs=1, out=tmp_path / "run", **options)
    assert_same_run(whole, trained(gpu(), out=tmp_path / "run", resume=True, **options))
    monkeypatch.setattr(captured, "MOST_GRAPHS", 0)
    assert_same_run(whole, trained(gpu(), **options))
    losses = [[row["loss"] for row in run.history] for run in (whole, trained("cpu", encoder=encoder))]
    assert losses[0][-1] == pytest.approx(losses[1][-1], abs=0.2)  # draws of dropout differ


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_rows_on_a_device_change_no_bit_of_a_run(encoder, cuda_graph, monkeypatch):
    options = {"encoder": encoder, "dropout": 0.2, "cuda_graph": cuda_graph}
    kept = trained(gpu(), **options)
    monkeypatch.setattr(memory, "keeps_rows", lambda *given, **named: False)
    assert_same_run(kept, trained(gpu(), **options))


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_a_step_waits_for_nothing(encoder, cuda_graph):
    log = small_log()
    names = {name: one for name, one in QUICK.items() if name not in ("epochs", "progress")}
    config = TrainConfig(**names, encoder=encoder, device=gpu(), cuda_graph=cuda_graph)
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    make = loop.stepping(parts)
    with make.running() if cuda_graph else contextlib.nullcontext():
        for step, batch in enumerate([*parts.epoch(0)] * 4):  # until every size has its graph
            make(parts, batch, step)
        torch.cuda.set_sync_debug_mode("error")
        try:
            losses = [make(parts, batch, 100)[0] for batch in parts.epoch(0)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(loss) for loss in losses)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_loss_that_is_not_finite_ends_a_run_on_a_device(cuda_graph, tmp_path):
    """A learning rate that no run survives: the loss is not finite some steps later."""
    with pytest.raises(TrainingDiverged, match="Nothing was updated in this step or after it"):
        trained(
            gpu(),
            encoder="factor",
            table_optimizer="row_sgd",
            learning_rate=1e30,
            cuda_graph=cuda_graph,
            out=tmp_path / "run",
        )
    assert (tmp_path / "run" / "failed-batch.npz").exists()


def test_an_evaluation_is_that_of_the_same_model_on_the_processor(device):
    result = trained(device, encoder="factor")
    there = result.evaluate(ks=(5, 10), popularity_weight=0.5)
    result.model.to("cpu")
    here = result.evaluate(ks=(5, 10), popularity_weight=0.5)
    assert there.metrics.keys() == here.metrics.keys()
    for name, value in here.metrics.items():
        # Scores differ in the last bits, so that two items may change places: of one case of some dozens.
        assert there.metrics[name] == pytest.approx(value, abs=0.02, rel=1e-3), name


def test_recommendations_and_the_audit_are_those_of_the_same_model_on_the_processor(device):
    result = trained(device, encoder="factor")
    users = result.log.user_ids[:5]
    there, energy = result.recommend(users, k=3), result.audit(permutations=20)
    result.model.to("cpu")
    here, expected = result.recommend(users, k=3), result.audit(permutations=20)
    np.testing.assert_allclose(there.score, here.score, rtol=1e-4, atol=1e-5)
    assert energy.energy_total == pytest.approx(expected.energy_total, rel=1e-4)


def test_a_comparison_runs_whole(device):
    options = QUICK | {"epochs": 1, "encoder": "factor", "seeds": 1, "permutations": 20}
    there, here = (fastpop.compare(small_log(), device=where, **options) for where in (device, "cpu"))
    assert len(there.rows) == len(here.rows) > 10
    for one, other in zip(there.rows, here.rows):
        assert {one[key] for key in ("arm", "seed")} == {other[key] for key in ("arm", "seed")}
        for name in ("energy_total", "energy_shared", "nll"):
            if name in other["values"]:
                assert one["values"][name] == pytest.approx(other["values"][name], rel=1e-2, abs=1e-3), name
