"""Options that verbs share: how a log is read, how a model is trained, and how `--help` shows them."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from fastpop import checks
from fastpop.data.paths import local_path
from fastpop.data.store import is_saved_log
from fastpop.training.config import TrainConfig

WORDS = {str: "TEXT", int: "N", float: "X", Path: "PATH"}


def readable(words: Mapping[str, str] | None = None) -> Any:
    """A decorator for the dataclasses of options: their help says what to give (COLUMN, N, PATH; by
    type, or as in `words`), and a default where there is one."""

    def of(cls: Any) -> Any:
        hints = typing.get_type_hints(cls, include_extras=True)
        bare = typing.get_type_hints(cls)
        said = _said(cls)
        shown = {}
        for field in dataclasses.fields(cls):
            if dataclasses.is_dataclass(bare[field.name]):
                shown[field.name] = hints[field.name]
                continue
            word = (words or {}).get(field.name) or _word(bare[field.name])
            configured = tyro.conf.arg(metavar=word, help=said.get(field.name), help_behavior_hint=_hint)
            shown[field.name] = Annotated[hints[field.name], configured]
        cls.__annotations__ = shown
        return cls

    return of


def _hint(default: str) -> str:
    return "" if default in ("None", "", "''", "False") else f"(default: {default})"


def _word(hint: Any) -> str | None:
    """What stands for a value of this type; None: no value, a flag."""
    inner = [kind for kind in typing.get_args(hint) if kind not in (type(None), Ellipsis)]
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "|".join(str(name) for name in inner if name)
    if origin is tuple:
        return f"{_word(inner[0])} ..."
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys(_word(kind) or "" for kind in inner))
    return WORDS.get(hint)


def _said(cls: Any) -> dict[str, str]:
    """The strings that stand under the fields of a dataclass and its bases, each as one line."""
    found = {}
    for kind in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


@readable(
    dict.fromkeys(("user", "item", "time", "weight", "behavior", "rating"), "COLUMN")
    | {
        "log": "LOG",
        "preset": "NAME",
        "separator": "CHARS",
        "encoding": "NAME",
        "quote": "CHAR",
        "quoting": "auto|all|none",
        "header": "auto|yes|no",
        "null_values": "TEXT ...",
        "id_type": "auto|text|whole",
        "ordered": "auto|yes|no",
        "keep_behavior": "NAME ...",
        "on_bad_row": "raise|skip",
        "memory_limit": "SIZE",
    }
)
@dataclass(frozen=True)
class LogOptions:
    """Where the events are and how to read them."""

    log: Positional[str]
    """A csv, tsv, .dat, parquet, sequence or session file, plain or gzip; or a quoted glob; or a
    folder that `fastpop prepare` wrote; or the word bundled: MovieTweetings 100K, which comes with
    the package."""
    preset: str | None = None
    """A known layout; see `fastpop doctor`."""
    user: str | None = None
    """Column of users: a name, or a 0-based position in a file without header."""
    item: str | None = None
    """Column of items."""
    time: str | None = None
    """Column of times."""
    weight: str | None = None
    """Column of weights."""
    behavior: str | None = None
    """Column of kinds of event."""
    rating: str | None = None
    """Column of ratings, for --min-rating."""
    separator: str | None = None
    """Between fields; found out when not given."""
    encoding: str = "utf-8"
    """Of the text, by Python's names: utf-8, latin-1, cp1252, utf-16, ..."""
    quote: str = '"'
    """The character around fields that hold separators or line ends."""
    quoting: str = "auto"
    """auto takes quotes as they come, all wants them around every field, none takes them as data."""
    header: str = "auto"
    """Whether the first record names the columns; auto: where columns are given by name."""
    null_values: tuple[str, ...] = ()
    """Texts that stand for a missing value; NULL, NaN, NA and their like when not given."""
    id_type: str = "auto"
    """auto reads a column of whole numbers as such and any other as text; text; whole."""
    ordered: str = "auto"
    """Whether rows without times stand in order; auto: of sequences and sessions, yes."""
    keep_behavior: tuple[str, ...] = ()
    """Kinds of event to keep: view fav cart buy ..."""
    min_rating: float | None = None
    """Keep events rated at least so."""
    min_user_events: int = 1
    """k-core: events a user must have."""
    min_item_events: int = 1
    """k-core: events an item must have."""
    on_bad_row: str = "raise"
    """raise names the first bad row; skip counts bad rows and keeps them in rejected.csv."""
    memory_limit: str = "2GB"
    """What reading may hold in memory; more spills to disk."""

    def read(self) -> Any:
        import fastpop

        log = self._at_hand()
        return self._told(fastpop.read_log(self.log, **self._given()) if log is None else log)

    def prepare(self, out: Path) -> Any:
        """As `read`, into a folder, without holding the log in memory."""
        from fastpop.data.prepare import prepare, prepare_from

        if self._at_hand() is not None:
            return prepare_from(self._at_hand, out)
        return self._told(prepare(self.log, out, **self._given()))

    def _at_hand(self) -> Any:
        """The bundled log, or that of a prepared folder; None: it is to be read."""
        import fastpop

        if self.log == "bundled":
            return fastpop.data.bundled_log()
        path = local_path(self.log, "log")
        if path.is_dir() and not is_saved_log(path):
            raise checks.wrong(
                "log",
                "a file, a quoted glob, or a folder that `fastpop prepare` wrote",
                text=f"{path}, a folder of something else",
            )
        return self._opened(path) if is_saved_log(path) else None

    def _given(self) -> dict[str, Any]:
        """The options of `read_log`."""
        columns: dict[str, Any] = {
            role: _column(getattr(self, role))
            for role in ("user", "item", "time", "weight", "behavior", "rating")
        }
        return {
            "preset": self.preset,
            **columns,
            "separator": self.separator,
            "keep_behavior": self.keep_behavior or None,
            "min_rating": self.min_rating,
            "min_user_events": self.min_user_events,
            "min_item_events": self.min_item_events,
            "on_bad_row": self.on_bad_row,
            "memory_limit": self.memory_limit,
            **self._layout(),
        }

    def _told(self, log: Any) -> Any:
        left_out = log.facts.get("rows_rejected", 0)
        if left_out:
            print(f"{left_out:,} bad rows left out; rejected.csv says which and why")
        return log

    def _layout(self) -> dict[str, Any]:
        """Options of the text that were given, as `read_log` takes them."""
        yes = {"yes": True, "no": False}
        for name in ("header", "ordered"):
            checks.one_of(name, getattr(self, name), ("auto", *yes))
        given = {
            name: getattr(self, name)
            for name in ("encoding", "quote", "quoting", "header", "null_values", "id_type", "ordered")
        }
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: yes.get(value, value) if name in ("header", "ordered") else value
            for name, value in given.items()
            if value != defaults[name]
        }

    def _opened(self, folder: Path) -> Any:
        """A prepared folder: it was read by the reading options that it was prepared with."""
        import fastpop

        free = ("log", "min_user_events", "min_item_events", "memory_limit")
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if option.name not in free and value != option.default:
                raise checks.wrong(
                    option.name,
                    "no reading option beside a prepared folder (give it to fastpop prepare)",
                    value,
                )
        log = fastpop.Interactions.open(folder, verify=True)
        if self.min_user_events > 1 or self.min_item_events > 1:
            log = log.k_core(self.min_user_events, self.min_item_events)
        return log

    def read_test(self, path: str | None) -> Any:
        """What `fastpop.train` takes as test."""
        if path is None or self.preset in ("sessions", "sequence"):
            return path if path is None else local_path(path, "test")
        return dataclasses.replace(self, log=path).read()

    def read_shown(self, path: str | None) -> tuple[Any, Any]:
        """(all that was shown in a randomised test part, the training part with ratings for weights)."""
        if path is None or self.min_rating is None:
            raise checks.wrong(
                "test_is_randomised",
                "false without --test and --min-rating, which tells what was liked of what was shown",
                True,
            )
        whole = dataclasses.replace(self, min_rating=None)
        shown = dataclasses.replace(whole, log=path).read()
        rating = self._rating()
        return shown, dataclasses.replace(whole, weight=rating).read()

    def _rating(self) -> str:
        """The column of ratings: named, or the preset's."""
        from fastpop.data.presets import PRESETS

        if self.rating is not None:
            return self.rating
        columns = PRESETS[self.preset].columns if self.preset in PRESETS else None
        column = None if columns is None else columns.rating
        if column is None:
            raise checks.wrong("rating", "the column of ratings, beside --test-is-randomised", None)
        return str(column)


@readable(
    {
        "dim": "D",
        "seed": "N",
        "split": "RULE",
        "device": "NAME",
        "metric": "NAME",
        "encoder": "NAME",
        "prior": "NAME",
        "loss": "NAME",
        "proposal": "NAME",
        "item_tower": "NAME",
        "table_optimizer": "NAME",
        "regularizers": "NAME ...",
        "loggers": "NAME ...",
        "smoothing": "NAME|X",
    }
)
class TrainOptions(TrainConfig):
    """How to train."""

    encoder: str
    item_tower: str
    prior: str
    loss: str
    regularizers: tuple[str, ...]
    proposal: str
    table_optimizer: str
    split: str
    loggers: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checked by `checked`, so that a bad value is this program's error, not the parser's."""

    def checked(self) -> TrainConfig:
        config = TrainConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        config.torch_device()
        for logger in config.logger_parts:
            logger.check()
        return config


def about_log(log: Any) -> dict[str, Any]:
    """What a document says of a log."""
    sizes = {name: getattr(log, name) for name in ("num_events", "num_users", "num_items")}
    return {"log": {**sizes, "facts": log.facts}}


def _column(value: str | None) -> str | int | None:
    return int(value) if value is not None and value.isdigit() else value


def expanded(options: Any) -> Any:
    """The options with `~` expanded in every path, tables of options within them included."""
    changed = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Path):
            changed[field.name] = local_path(value, field.name)
        elif dataclasses.is_dataclass(value) and not isinstance(value, TrainConfig):
            changed[field.name] = expanded(value)
    return dataclasses.replace(options, **changed)


def writable(argument: str, path: Path, *, folder: bool = False) -> None:
    """Found out before the work: that a file (or a folder) can be written there. Makes nothing."""
    import os

    if path.exists():
        if path.is_dir() != folder:
            raise checks.wrong(
                argument,
                "a folder" if folder else "a file",
                text=f"{path}, a {'file' if folder else 'folder'}",
            )
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{argument}: expected a writable place; got {path}")
        return
    above = path.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{argument}: expected a writable place; got {path}, under {above}")


def array(argument: str, path: Path) -> Any:
    """The array of a .npy file."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy lets out whatever a damaged header makes of it
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise checks.wrong(argument, "a .npy file", text=f"{path}: {first}") from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise checks.wrong(argument, "a .npy file of one array", text=f"{path}, a .npz file of several")
    return found


def smoothing_of(text: str) -> str | float:
    """A smoothing of log p from the command line."""
    if text in ("loo", "good-turing"):
        return text
    try:
        return float(text)
    except ValueError:
        raise checks.wrong("smoothing", "loo, good-turing or a number", text) from None


def check_titles(titles: Path | None, columns: tuple[str, ...]) -> None:
    """The options of a table of titles."""
    if columns and titles is None:
        raise checks.wrong("title_columns", "none without --titles", columns)
    if len(columns) not in (0, 2):
        raise checks.wrong("title_columns", "two, of ids and of titles", columns)


def read_titles_of(titles: Path | None, columns: tuple[str, ...]) -> Any:
    """The titles of a table; None where none is named. columns: names, or 0-based positions in a file
    without header."""
    from fastpop.data import read_titles

    if titles is None:
        return None
    by_place = all(name.isdigit() for name in columns)
    return read_titles(titles, *(int(name) if by_place else name for name in columns))
