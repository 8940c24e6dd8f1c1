"""An experiment: a question, a log, and an answer as plain data."""

import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from fastpop import checks
from fastpop.components import Component, checked, hints_of
from fastpop.data.interactions import Interactions
from fastpop.evaluation import mean_interval
from fastpop.experiments.findings import MIN_SEEDS


@dataclass(frozen=True)
class Table:
    """title: in words. columns: names, the first of the rows' labels. rows: cells, text or numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Series:
    """One line of a chart, or one point. low, high: of an interval at every x, or empty. dashed: a
    reference."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """name: of its file. x, y: words on the axes, with units. ticks: words at 0, 1, ... of x, or none.
    joined: whether the points of a series are one line."""

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[str, ...] = ()
    joined: bool = True


@dataclass(frozen=True)
class Answer:
    """What an experiment found.

    values: numbers by name, which claims are judged by; an interval is "name" with "name.low" and
    "name.high". sentences: what they say, each with its rule's outcome.
    """

    values: dict[str, float]
    sentences: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Setting:
    """What an experiment is given.

    log_name: for titles. quick: minutes become seconds, and numbers mean only that everything runs. seeds:
    how many runs. folder: where it may keep what it has, and go on; None: nothing is kept. progress: show
    bars; None shows them on a terminal. options: of fastpop.train, for every model. test, shown, rated: a
    randomised test part, as in `fastpop.compare`: what was liked, all that was shown, the log with ratings.
    lap: called where a part of the work is done, so that a process that is stopped has told its time.
    """

    log: Interactions
    log_name: str
    quick: bool
    seeds: int
    folder: Path | None
    progress: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)
    test: Interactions | None = None
    shown: Interactions | None = None
    rated: Interactions | None = None
    lap: Callable[[], Any] = lambda: None

    __repr__ = checks.brief

    def part(self, name: str) -> Path | None:
        """A folder of its own for one part of the work."""
        return None if self.folder is None else self.folder / name


@dataclass(frozen=True)
class Study(Component):
    """The base of experiments to choose from; `fastpop.register("experiment", MyStudy)` makes one known.

    question: in one sentence. needs: "log", or "time", a log with times.
    default_seeds: runs of every model where nobody says otherwise. reads_shown: whether it judges a
    randomised test part. sets: options of fastpop.train beside seed that are the experiment's own, and are
    refused where they are asked for.
    Errors name an option as the command line does, `NAME.OPTION`; of several values none may repeat.
    """

    kind: ClassVar[str] = "experiment"
    question: ClassVar[str] = ""
    needs: ClassVar[str] = "log"
    default_seeds: ClassVar[int] = 5
    reads_shown: ClassVar[bool] = False
    sets: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for option, hint in hints_of(type(self)).items():
            if typing.get_origin(hint) is tuple and option in self.options():
                self._check_several(option, typing.get_args(hint)[0])
        super().__post_init__()
        for option, value in self.options().items():
            if isinstance(value, float):
                checks.float32(self._prefix() + option, value)

    def _check_several(self, option: str, hint: Any) -> None:
        argument, values = self._prefix() + option, getattr(self, option)
        if not isinstance(values, (tuple, list)):
            raise checks.wrong_type(argument, "a tuple", values)
        plain = [checked(argument, value, hint) for value in values]
        for value in plain:
            if isinstance(value, float):
                checks.float32(argument, value)
        if len(set(plain)) < len(plain):
            raise checks.wrong(argument, "values that differ", tuple(plain))

    def _prefix(self) -> str:
        return f"{self.name}."

    def run(self, setting: Setting) -> Answer:
        raise NotImplementedError


def exactly(value: float) -> str:
    """A number as short as it can be read back: 40, 0.1, 40.0000001; by `:g` two may share a name."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def of_seeds(name: str, found: Sequence[float]) -> dict[str, float]:
    """A mean by its name, and from three seeds on its t interval (95 %) beside it."""
    mean, low, high = mean_interval(found)
    return {name: mean} | ({f"{name}.low": low, f"{name}.high": high} if len(found) >= MIN_SEEDS else {})


def told(values: dict[str, float], name: str, decimals: int = 3) -> str:
    """A value in words, with its interval where it has one."""
    low, high = values.get(f"{name}.low"), values.get(f"{name}.high")
    mean = f"{values[name]:.{decimals}f}"
    return mean if low is None or high is None else f"{mean} [{low:.{decimals}f}, {high:.{decimals}f}]"


def give_or_take(values: dict[str, float], name: str, decimals: int = 4) -> str:
    """A difference with its sign, and half of its interval where it has one."""
    if name not in values:
        return "-"
    low, high = values.get(f"{name}.low"), values.get(f"{name}.high")
    mean = f"{values[name]:+.{decimals}f}"
    return mean if low is None or high is None else f"{mean}±{(high - low) / 2:.{decimals}f}"


def excludes(values: dict[str, float], name: str, number: float = 0.0) -> int | None:
    """1 where the whole interval is above a number, -1 below it, 0 where it holds it; None without one."""
    low, high = values.get(f"{name}.low"), values.get(f"{name}.high")
    if low is None or high is None:
        return None
    return 1 if low > number else -1 if high < number else 0
