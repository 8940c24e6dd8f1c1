"""What is told of every epoch. One contract, `Logger`; a tracker's package is imported where it is used."""

import csv
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from fastpop import checks, files, registry
from fastpop.components import Component
from fastpop.data.paths import local_path
from fastpop.training.prints import history_csv


class Log(Protocol):
    """An open logger of one run."""

    def epoch(self, row: dict[str, Any]) -> None:
        """A finished epoch: epoch, step, loss, seconds, examples_per_second, and valid_* where the
        validation part was evaluated. Its row and its checkpoint stand in the run's folder before: what is
        raised here ends the run, which can be resumed after that epoch, and tells of it no more."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Logger(Component):
    """The base of loggers to choose from. needs_folder: it writes beside the run, so out= must be given."""

    kind: ClassVar[str] = "logger"
    needs_folder: ClassVar[bool] = True

    def check(self) -> None:
        """Raises ImportError where a package is missing, before any work."""

    def open(self, out: Path | None, config: dict[str, Any]) -> Log:
        """Begin, or go on after a stop. out: the run's folder. config: as `TrainConfig.to_dict`."""
        raise NotImplementedError


@dataclass(frozen=True)
class TensorBoard(Logger):
    """TensorBoard events in out/tensorboard."""

    name: ClassVar[str] = "tensorboard"

    def check(self) -> None:
        checks.needed("tensorboard", "tb", "tensorboard=True")

    def open(self, out: Path | None, config: dict[str, Any]) -> "_Events":
        self.check()
        from torch.utils.tensorboard import SummaryWriter

        assert out is not None
        return _Events(SummaryWriter(out / "tensorboard"))


class _Events:
    def __init__(self, writer: Any):
        self.writer = writer

    def epoch(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


@dataclass(frozen=True)
class CSV(Logger):
    """A CSV file with a row an epoch, as train.csv has them; it is whole at any moment.

    path: of the file; "": epochs.csv in the run's folder. A file that is there is gone on with.
    """

    name: ClassVar[str] = "csv"
    path: str = ""

    @property
    def needs_folder(self) -> bool:  # type: ignore[override]
        return not self.path

    def open(self, out: Path | None, config: dict[str, Any]) -> "_Rows":
        if self.path:
            return _Rows(local_path(self.path, "loggers.path"))
        assert out is not None
        return _Rows(out / "epochs.csv")


class _Rows:
    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self.rows = [
                    {name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)
                ]

    def epoch(self, row: dict[str, Any]) -> None:
        """A row of this epoch that a run left which was killed before its checkpoint is replaced."""
        self.rows = [one for one in self.rows if int(one["epoch"]) < row["epoch"]] + [row]
        files.write_text(self.path, history_csv(self.rows))

    def close(self) -> None:
        pass


def _is_ending_badly() -> bool:
    """In `close`, which is called whatever ends a run: whether that is an exception, ctrl-C among them."""
    return sys.exc_info()[0] is not None


def _id_of(out: Path) -> str:
    """One name for all processes that work on the run in this folder."""
    return hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class WandB(Logger):
    """Weights & Biases: a run with the options as its config and a step an epoch.

    project, run: names; "" lets the package choose the latter. mode: online, offline, disabled; "": as
    WANDB_MODE says. A run in a folder has one id, so that it goes on there after a stop.
    """

    name: ClassVar[str] = "wandb"
    needs_folder: ClassVar[bool] = False
    project: str = "fastpop"
    run: str = ""
    mode: str = ""

    def check(self) -> None:
        checks.needed("wandb", "", "the logger 'wandb'")

    def open(self, out: Path | None, config: dict[str, Any]) -> "_WandBRun":
        self.check()
        import wandb

        place = {} if out is None else {"dir": str(out), "id": _id_of(out), "resume": "allow"}
        more = {} if not self.mode else {"mode": self.mode}
        if out is not None:
            (out / "wandb").mkdir(exist_ok=True)
        return _WandBRun(
            wandb.init(project=self.project, name=self.run or None, config=config, **place, **more)
        )


class _WandBRun:
    def __init__(self, run: Any):
        self.run = run

    def epoch(self, row: dict[str, Any]) -> None:
        self.run.log(row, step=row["epoch"])

    def close(self) -> None:
        self.run.finish(exit_code=int(_is_ending_badly()))


@dataclass(frozen=True)
class MLflow(Logger):
    """MLflow: a run with the options as parameters and metrics by epoch; `@` in a metric's name, which
    MLflow does not take, becomes `_at_`.

    experiment, run: names. uri: of the tracking server; "": as MLFLOW_TRACKING_URI says, and the package's
    own place where it says nothing. A run in a folder goes on after a stop, found by a tag.
    """

    name: ClassVar[str] = "mlflow"
    needs_folder: ClassVar[bool] = False
    experiment: str = "fastpop"
    run: str = ""
    uri: str = ""
    TAG: ClassVar[str] = "fastpop.run"

    def check(self) -> None:
        checks.needed("mlflow", "", "the logger 'mlflow'")

    def open(self, out: Path | None, config: dict[str, Any]) -> "_MLflowRun":
        self.check()
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri or None)
        found = client.get_experiment_by_name(self.experiment)
        place = client.create_experiment(self.experiment) if found is None else found.experiment_id
        if out is not None:
            begun = client.search_runs([place], f"tags.`{self.TAG}` = '{_id_of(out)}'", max_results=1)
            if begun:
                client.update_run(begun[0].info.run_id, status="RUNNING")
                return _MLflowRun(client, begun[0].info.run_id)
        tags = {} if out is None else {self.TAG: _id_of(out)}
        made = client.create_run(place, tags=tags, run_name=self.run or None).info.run_id
        for option, value in config.items():
            client.log_param(made, option, str(value)[:500])
        return _MLflowRun(client, made)


class _MLflowRun:
    def __init__(self, client: Any, run_id: str):
        self.client, self.run_id = client, run_id

    def epoch(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            self.client.log_metric(self.run_id, name.replace("@", "_at_"), float(value), step=row["epoch"])

    def close(self) -> None:
        self.client.set_terminated(self.run_id, status="KILLED" if _is_ending_badly() else "FINISHED")


registry.ours("logger", TensorBoard, CSV, WandB, MLflow)
