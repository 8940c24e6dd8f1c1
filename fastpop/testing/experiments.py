"""What every experiment has to do: a question asked by name, an answer of plain data, the same again."""

import contextlib
import importlib.util
import json
import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastpop
from fastpop import registry, report
from fastpop.data.interactions import Interactions
from fastpop.report.tables import WIDTH
from fastpop.studies import Answer, Setting, Study
from fastpop.studies.models import small
from fastpop.testing.judging import made_component, words_of
from fastpop.testing.training import check_options, small_log
from fastpop.training.folder import fingerprint

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")
WRITTEN = ("answer.json", "answer.txt")


class Stopped(Exception):
    """What a process is told that has to stop."""


def check_experiment(
    study: Any, log: Interactions | None = None, *, out: str | Path | None = None, anew: bool = True
) -> None:
    """Words and options; a quick run by name; an answer of plain data whose numbers are finite, whose
    intervals have two ends, whose tables and charts can be drawn; a folder in which it goes on to the same
    answer; a log that is as it was.

    Args:
        study: a name, an object, or a class that can be made without options.
        log: what is asked; None takes `small_log()`. Experiments that want more events are given more.
        out: a folder where it has answered the same (`fastpop experiment NAME LOG --quick`), which is then
            taken for the first answer; None: it is asked here.
        anew: answer a second time with nothing at hand, stopped at its first `Setting.lap`: the same seed
            gives the same answer.
    Raises:
        AssertionError: says what does not hold.
    Cost: two quick runs; one, or none beside `out`, where not anew.
    """
    part: Study = made_component("experiment", study)
    words_of(part, "question")
    assert part.needs in ("log", "time"), f"{part}: needs 'log' or 'time'; got {part.needs!r}"
    assert part.default_seeds >= 1, f"{part}: default_seeds of at least 1; got {part.default_seeds}"
    check_options(part)
    log = small_log() if log is None else log
    before = fingerprint(log, None)
    drawn = importlib.util.find_spec("matplotlib") is not None
    with tempfile.TemporaryDirectory() as made, _by_name(part) as asked:
        place = Path(made) / "answer" if out is None else Path(out)
        found = fastpop.experiment(
            asked, log, quick=True, out=place if drawn else None, progress=False
        ).answer
        for name, wanted in (("experiment", str(part)), ("question", part.question)):
            assert found[name] == wanted, f"{part}: {name} {wanted!r}; the answer has {found[name]!r}"
        check_answer(found, str(part))
        again = Path(made) / "again"
        if drawn:
            _check_written(part, found, place)
            shutil.copytree(place, again)
            for path in (*(again / name for name in WRITTEN), *again.glob("*.svg")):
                path.unlink()
            _check_same(part, found, _answer(part, log, found, again), "that went on")
        if anew:
            fresh = Path(made) / "fresh"
            with contextlib.suppress(Stopped):
                _answer(part, log, found, fresh, _stop)
            _check_same(part, found, _answer(part, log, found, fresh), "from the same seed")
    assert fingerprint(log, None) == before, f"{part}: the log is another one afterwards"


def check_answer(answer: Answer | Mapping[str, Any], name: str = "the answer") -> None:
    """Plain data as `fastpop.studies.Answer` says it: finite values, whole intervals, sentences of one line,
    rows as long as their columns, lines as long as their places on x; text of at most 80 columns.

    Raises AssertionError, which begins with `name`.
    """
    found = answer.to_dict() if isinstance(answer, Answer) else dict(answer)
    _check_plain(name, {key: found[key] for key in ("values", "sentences", "tables", "charts")})
    _check_values(name, found["values"])
    assert found["sentences"], f"{name}: at least one sentence"
    for sentence in found["sentences"]:
        _check_line(f"{name}: a sentence", sentence)
    for table in found["tables"]:
        _check_table(name, table)
    names = [chart["name"] for chart in found["charts"]]
    assert len(set(names)) == len(names), f"{name}: charts of different names; got {names}"
    for chart in found["charts"]:
        _check_chart(name, chart)
    told = {"experiment": name, "question": "?", "log": "a log", "made_by": {}} | found
    widest = max(report.study_text(told).splitlines(), key=len)
    assert len(widest) <= WIDTH, f"{name}: text of at most {WIDTH} columns; got {widest!r}"


@contextlib.contextmanager
def _by_name(part: Study) -> Iterator[str | Study]:
    """What to ask for within: its name, or itself where that is a name of another, or of other options."""
    known = registry.all_of("experiment").get(str(part))
    if known is None:
        with registry.registered("experiment", part):
            yield str(part)
        return
    named = made_component("experiment", known if isinstance(known, type) else str(part))
    yield str(part) if named == part else part


def _answer(
    part: Study,
    log: Interactions,
    found: Mapping[str, Any],
    folder: Path,
    lap: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """What it answers where the setting is that of an answer that was found, but for the folder."""
    made_by = found["made_by"]
    setting = Setting(
        small(log), found["log"], made_by["quick"], made_by["seeds"], folder, progress=False, lap=lap
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that something in the folder is finished
        answer = part.run(setting)
    assert isinstance(answer, Answer), f"{part}: run gives an Answer; got {type(answer).__name__}"
    check_answer(answer, str(part))
    return answer.to_dict()


def _stop() -> None:
    raise Stopped


def _check_same(part: Study, found: Mapping[str, Any], again: Mapping[str, Any], which: str) -> None:
    """Bit for bit, as a file holds it."""
    for name, value in again.items():
        one, other = (json.loads(json.dumps(report.plain(it))) for it in (found[name], value))
        assert one == other, f"{part}: an answer {which} has other {name}: {_first(one, other)}"


def _first(one: Any, other: Any) -> str:
    """Where two differ first."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one | other:
            if one.get(key) != other.get(key):
                return f"{key}, {_first(one.get(key), other.get(key))}"
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(_first(a, b) for a, b in zip(one, other) if a != b)
    return f"{one!r} and {other!r}"


def _check_written(part: Study, found: Mapping[str, Any], place: Path) -> None:
    for name in (*WRITTEN, *(f"{chart['name']}.svg" for chart in found["charts"])):
        assert (place / name).is_file(), f"{part}: {name} in its folder"
    kept = json.loads((place / "answer.json").read_text(encoding="utf-8"))
    _check_same(part, kept, {key: found[key] for key in ("values", "sentences", "tables", "charts")}, "kept")


def _check_plain(where: str, value: Any) -> None:
    """dict, list, tuple, str, bool, int, finite float or None, all the way down."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            assert isinstance(key, str), f"{where}: names that are text; got {key!r}"
            _check_plain(f"{where}, {key}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_plain(where, inner)
    else:
        plain = value is None or isinstance(value, (str, bool, int, float))
        assert plain, f"{where}: plain data; got {type(value).__name__}"
        finite = not isinstance(value, float) or math.isfinite(value)
        assert finite, f"{where}: finite numbers; got {value}"


def _check_values(name: str, values: Mapping[str, Any]) -> None:
    assert values, f"{name}: at least one value"
    for key, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert number, f"{name}: value {key} a number; got {value!r}"
        stem, _, end = key.rpartition(".")
        if end not in ("low", "high"):
            continue
        missing = [one for one in (stem, f"{stem}.low", f"{stem}.high") if one not in values]
        assert not missing, f"{name}: {key} beside {' and '.join(missing)}"
        assert values[f"{stem}.low"] <= values[f"{stem}.high"], f"{name}: the interval of {stem} is turned"


def _check_line(what: str, text: Any) -> None:
    assert isinstance(text, str), f"{what} is text; got {text!r}"
    assert text.splitlines() == [text.strip()], f"{what} is one line of text; got {text!r}"


def _check_table(name: str, table: Mapping[str, Any]) -> None:
    _check_line(f"{name}: the title of a table", table["title"])
    what = f"{name}: table {table['title']!r}"
    assert table["columns"], f"{what}: at least one column"
    for column in table["columns"]:
        assert isinstance(column, str), f"{what}: columns with names; got {column!r}"
    for row in table["rows"]:
        assert len(row) == len(table["columns"]), f"{what}: a cell a column; got {row}"
        for cell in row:
            assert cell is None or isinstance(cell, (str, int, float)), (
                f"{what}: text or numbers; got {cell!r}"
            )


def _check_chart(name: str, chart: Mapping[str, Any]) -> None:
    what = f"{name}: chart {chart['name']!r}"
    assert FILE_NAME.fullmatch(chart["name"]), f"{what}: a name that a file can have"
    for word in ("title", "x", "y"):
        _check_line(f"{what}: its {word}", chart[word])
    assert chart["series"], f"{what}: at least one series"
    for series in chart["series"]:
        _check_series(f"{what}, series {series['name']!r}", series, chart)


def _check_series(what: str, series: Mapping[str, Any], chart: Mapping[str, Any]) -> None:
    x, y, low, high = (series[key] for key in ("x", "y", "low", "high"))
    assert x, f"{what}: at least one point"
    assert len(x) == len(y), f"{what}: as many y as x; got {len(y)} and {len(x)}"
    _check_ends(what, x, low, high)
    for axis, numbers in (("x", x), ("y", (*y, *low))):
        positive = not chart[f"log_{axis}"] or min(numbers) > 0
        assert positive, f"{what}: {axis} above 0, where the axis is logarithmic"
    if chart["ticks"]:
        assert max(x) < len(chart["ticks"]), f"{what}: x among the ticks; got {max(x)}"


def _check_ends(what: str, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
    assert len(low) == len(high), f"{what}: both ends of intervals, or none"
    assert len(low) in (0, len(x)), f"{what}: an interval at every x, or none; got {len(low)} and {len(x)}"
    assert all(a <= b for a, b in zip(low, high)), f"{what}: an interval is turned"
