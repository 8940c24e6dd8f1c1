"""The loggers of Weights & Biases and MLflow beside the real packages: offline, and in a folder."""

import helpers_embedding
import pytest
from helpers_logs import small_log

import fastpop
from fastpop import testing
from fastpop.training.loggers import MLflow

QUICK = {"epochs": 2, "dim": 4, "batch_size": 128, "num_negatives": 8, "progress": False}


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # else it asks for a database from version 3.17 on


def test_wandb_keeps_the_contract_and_writes_an_offline_run(tmp_path, offline):
    helpers_embedding.want("wandb")
    testing.check_logger("wandb")
    fastpop.train(small_log(), out=tmp_path / "run", loggers=["wandb"], **QUICK)
    written = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == 1
    assert written[0].stat().st_size > 1000


def test_mlflow_keeps_the_contract_and_has_every_epoch_once(tmp_path, offline):
    helpers_embedding.want("mlflow")
    import mlflow

    uri = f"file:{tmp_path / 'runs'}"
    testing.check_logger(MLflow(uri=uri))
    part = MLflow(experiment="mine", uri=uri)
    options = QUICK | {"out": tmp_path / "run", "loggers": [part], "evaluate_every": 1}
    fastpop.train(small_log(), **options)
    result = fastpop.train(small_log(), resume=True, **options | {"epochs": 3})
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert len(runs) == 1
    assert runs[0].data.params["dim"] == "4"
    assert runs[0].info.status == "FINISHED"
    losses = client.get_metric_history(runs[0].info.run_id, "loss")
    assert [(one.step, one.value) for one in sorted(losses, key=lambda one: one.step)] == [
        (row["epoch"], row["loss"]) for row in result.history
    ]
    assert "valid_ndcg_at_10" in runs[0].data.metrics
