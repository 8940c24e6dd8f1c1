"""What is told of every epoch. One contract, `Logger`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from fastpop import checks, registry
from fastpop.components import Component


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


registry.ours("logger", TensorBoard)
