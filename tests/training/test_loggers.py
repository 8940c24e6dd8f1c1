"""A logger that fails ends a run, and costs it nothing."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from helpers_logs import small_log

import fastpop
from fastpop import testing
from fastpop.testing import registered
from fastpop.training import Logger
from fastpop.training.loggers import CSV, MLflow, WandB


@dataclass(frozen=True)
class Fails(Logger):
    name: ClassVar[str] = "toy-fails"
    told: ClassVar[list] = []
    broken: ClassVar[bool] = True

    def open(self, out, config):
        return self

    def epoch(self, row):
        self.told.append(row["epoch"])
        if self.broken and row["epoch"] == 2:
            raise RuntimeError("no connection")

    def close(self):
        pass


@dataclass(frozen=True)
class OpensOnce(Logger):
    name: ClassVar[str] = "toy-opens-once"

    def open(self, out, config):
        (out / "told").mkdir()
        return self

    def epoch(self, row):
        pass

    def close(self):
        pass


def test_the_suite_goes_on_with_a_run():
    with (
        registered("logger", OpensOnce),
        pytest.raises(AssertionError, match=r"does not go on: .*File exists"),
    ):
        testing.check_logger("toy-opens-once")


def test_the_epoch_of_a_logger_that_fails_is_kept(tmp_path, monkeypatch):
    options = {"epochs": 4, "dim": 4, "batch_size": 128, "num_negatives": 8, "checkpoint_every": 4}
    whole = fastpop.train(small_log(), out=tmp_path / "whole", progress=False, **options)
    with registered("logger", Fails):
        with pytest.raises(RuntimeError, match="no connection"):
            fastpop.train(small_log(), out=tmp_path / "run", progress=False, loggers=["toy-fails"], **options)
        assert len((tmp_path / "run" / "train.csv").read_text().splitlines()) == 3
        monkeypatch.setattr(Fails, "broken", False)
        found = fastpop.train(
            small_log(), out=tmp_path / "run", progress=False, loggers=["toy-fails"], resume=True, **options
        )
    assert Fails.told == [1, 2, 3, 4]  # of the second it is told once, and no epoch is trained again
    assert found.metrics == whole.metrics


QUICK = {"epochs": 2, "dim": 4, "batch_size": 128, "num_negatives": 8, "progress": False}


@pytest.mark.parametrize("where", ["in the run", "elsewhere"])
def test_csv_has_a_row_an_epoch_and_goes_on(tmp_path, where):
    place = "" if where == "in the run" else str(tmp_path / "mine" / "rows.csv")
    part = CSV(path=place)
    assert part.needs_folder == (not place)
    fastpop.train(small_log(), out=tmp_path / "run", loggers=[part], **QUICK)
    path = Path(place or tmp_path / "run" / "epochs.csv")
    # killed after it was told of an epoch, before a checkpoint of it: told again, and no row twice
    last = path.read_text().splitlines()[-1]
    path.write_text(path.read_text() + last.replace("2,", "3,", 1) + "\n")
    fastpop.train(small_log(), out=tmp_path / "run", loggers=[part], resume=True, **QUICK | {"epochs": 3})
    assert path.read_text() == (tmp_path / "run" / "train.csv").read_text()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_one_error_before_any_work(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    said = f"^the logger '{name}' needs the package '{name}', .*: pip install {name}$"
    with pytest.raises(ImportError, match=said):
        fastpop.train(small_log(), out=tmp_path / "run", loggers=[name], **QUICK)
    assert not (tmp_path / "run").exists()


def test_no_tracker_is_imported_with_the_package():
    code = (
        "import sys, fastpop.training.loggers; print({'wandb', 'mlflow', 'tensorboard'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class Recorded:
    """Whatever is called on it, written down; what it returns is set beforehand. A double: the real packages
    are in tests/others/test_trackers.py."""

    def __init__(self, **returns):
        self.calls, self.returns = [], returns

    def __getattr__(self, name):
        def called(*given, **more):
            self.calls.append((name, given, more))
            return self.returns.get(name, self)

        return called


def test_wandb_is_told_a_step_an_epoch_under_one_id(tmp_path, monkeypatch):
    double = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", double)
    part = WandB(project="p", run="r", mode="offline")
    result = fastpop.train(small_log(), out=tmp_path / "run", loggers=[part], **QUICK)
    fastpop.train(small_log(), out=tmp_path / "run", loggers=[part], resume=True, **QUICK | {"epochs": 3})
    begun = [more for name, _, more in double.calls if name == "init"]
    assert begun[0]["id"] == begun[1]["id"]
    assert begun[0] | {"config": None, "id": None} == {
        "project": "p",
        "name": "r",
        "mode": "offline",
        "dir": str(tmp_path / "run"),
        "resume": "allow",
        "config": None,
        "id": None,
    }
    assert begun[0]["config"]["dim"] == 4
    told = [(given[0], more["step"]) for name, given, more in double.calls if name == "log"]
    assert [step for _, step in told] == [1, 2, 3]
    assert told[1][0] == result.history[1]
    assert [more for name, _, more in double.calls if name == "finish"] == [{"exit_code": 0}] * 2


def test_a_run_that_ends_in_an_error_is_no_success_for_wandb(tmp_path, monkeypatch):
    double = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", double)
    monkeypatch.setattr(Fails, "broken", True)
    monkeypatch.setattr(Fails, "told", [])
    with registered("logger", Fails), pytest.raises(RuntimeError, match="no connection"):
        fastpop.train(small_log(), out=tmp_path / "run", loggers=["wandb", "toy-fails"], **QUICK)
    assert double.calls[-1] == ("finish", (), {"exit_code": 1})
    double.calls.clear()
    fastpop.train(small_log(), loggers=["wandb"], **QUICK)
    assert "id" not in double.calls[0][2]  # without a folder there is nothing to go on with


def test_mlflow_is_told_params_and_metrics_by_epoch_and_goes_on(tmp_path, monkeypatch):
    run = SimpleNamespace(info=SimpleNamespace(run_id="77"))
    double = Recorded(
        get_experiment_by_name=None, create_experiment="5", create_run=run, search_runs=[], MlflowClient=None
    )
    double.returns["MlflowClient"] = double
    monkeypatch.setitem(sys.modules, "mlflow", double)
    part = MLflow(experiment="e", run="r", uri="file:/somewhere")
    options = QUICK | {"out": tmp_path / "run", "loggers": [part], "evaluate_every": 1}
    fastpop.train(small_log(), **options)
    assert ("MlflowClient", (), {"tracking_uri": "file:/somewhere"}) in double.calls
    assert ("log_param", ("77", "dim", "4"), {}) in double.calls
    metrics = [(given, more) for name, given, more in double.calls if name == "log_metric"]
    assert {more["step"] for _, more in metrics} == {1, 2}
    assert "valid_ndcg_at_10" in {given[1] for given, _ in metrics}
    assert not [given for given, _ in metrics if "@" in given[1]]
    assert double.calls[-1] == ("set_terminated", ("77",), {"status": "FINISHED"})
    double.returns |= {"search_runs": [run]}
    double.calls.clear()
    fastpop.train(small_log(), resume=True, **options | {"epochs": 3})
    names = [name for name, _, _ in double.calls]
    assert "create_run" not in names
    assert "log_param" not in names
    assert {more["step"] for name, _, more in double.calls if name == "log_metric"} == {3}
