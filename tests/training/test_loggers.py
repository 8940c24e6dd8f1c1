"""A logger that fails ends a run, and costs it nothing."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from helpers_logs import small_log

import fastpop
from fastpop import testing
from fastpop.testing import registered
from fastpop.training import Logger


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
