"""read_log: any file or frame of events → Interactions, under a memory cap."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import pages
from fastpop.bars import waiting
from fastpop.checks import number, one_of, wrong
from fastpop.data import bad_rows, presets
from fastpop.data import faults as bad
from fastpop.data.events import Events, mark_behaviors, settle_fates
from fastpop.data.frames import frame_input, is_frame, parquet_input
from fastpop.data.inputs import Input, TextOptions, lines_input, table_input
from fastpop.data.interactions import Interactions, Rejected
from fastpop.data.presets import Columns, Preset
from fastpop.data.scan import expand
from fastpop.data.staging import Reading
from fastpop.data.workbench import Workbench


def read_log(
    source: Any,
    *,
    preset: str | None = None,
    columns: Columns | None = None,
    user: str | int | None = None,
    item: str | int | None = None,
    time: str | int | None = None,
    weight: str | int | None = None,
    behavior: str | int | None = None,
    rating: str | int | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    quote: str | None = '"',
    quoting: str | int | None = None,
    header: bool | None = None,
    null_values: str | Iterable[str] | None = None,
    id_type: str = "auto",
    keep_behavior: str | Iterable[str] | None = None,
    min_rating: float | None = None,
    min_user_events: int = 1,
    min_item_events: int = 1,
    ordered: bool | None = None,
    on_bad_row: str = "raise",
    memory_limit: str = "2GB",
    threads: int | None = None,
    temp_folder: str | Path | None = None,
    progress: bool | None = None,
) -> Interactions:
    """`SELECT user, item, time FROM source ORDER BY user, time, row`, with dense ids.

    Every row is read and checked; exact duplicates stay, and events of a user at the same time
    stay in the order of their rows. `docs/logs.md` has the rules, one a line.

    Args:
        source: a path, "-" (standard input), a str with `*` (a glob, unless a file has that name),
            or a list of these (csv, tsv, `::`-separated, plain or gzip, parquet); a pandas, polars
            or arrow table, or a dict of arrays.
        preset: a known layout (`fastpop.available("presets")`).
        columns: roles of the columns of any other table; `user`, `item`, `time`, `weight`,
            `behavior`, `rating` give or change single ones. Names are looked up in the header,
            numbers are 0-based positions in a file without a header.
        separator: between fields; None takes the preset's, or finds out.
        encoding: of the text, by Python's names: "utf-8", "latin-1", "cp1252", "utf-16", ….
        quote: the character around fields that hold separators or line ends; None: quotes are data.
        quoting: None takes quotes as they come, "all" wants them around every field, "none" takes
            them as data; also the constants of the module `csv`. By default there are none
            where the separator has several characters.
        header: whether the first record names the columns. None: it does where columns are given
            by name, or where it reads 0,1,2,….
        null_values: texts that stand for a missing value, besides the empty one. None: NULL, null,
            \\N, NaN, nan, None, NA, <NA>; () for none.
        id_type: "auto" reads a column of whole numbers as int64 and any other as str; "text" reads
            str, "whole" refuses what is no whole number.
        keep_behavior: keep events of these kinds only, by name: view, fav, cart, buy where a
            preset knows the codes, otherwise what stands in the column.
        min_rating: keep events rated at least so. Ratings are ignored without it.
        min_user_events, min_item_events: k-core; it sees the whole log, and `facts` say so.
        ordered: whether rows without times stand in order. None: for sequences and sessions yes,
            for tables no.
        on_bad_row: "raise" names the first bad row; "skip" leaves bad rows out, counts them in
            `facts`, and keeps them in `rejected` (written to rejected.csv by `save`). A file
            that is damaged as a whole raises either way.
        memory_limit: what reading may hold; beyond it work goes to disk. Arrays that take more
            than half of it are memory-mapped from a file without a name.
        threads: None takes the cores at hand; the result does not depend on it.
        temp_folder: where work goes beyond the memory. Needs about the size of the unpacked log.
        progress: bars after 5 s (None), at once (True), never (False).
    Returns:
        Interactions, ids dense in the order of the original ids. `facts`: rows_read and
        rows_rejected add up to records, which are counted apart.
    Raises:
        ValueError, TypeError: a bad argument or a bad file; names file, line and column, what was
            expected and what was there. FileNotFoundError: no file. MemoryError: the cap is too
            small. ImportError: duckdb, which reads frames and parquet, is missing.
    Cost: one pass over the text, 16 bytes per event while it is read, 32 for the arrays.
    """
    request = Request.of_options({name: value for name, value in locals().items() if name != "source"})
    with (
        Workbench(memory_limit, threads, temp_folder, progress) as bench,
        sorted_events(bench, source, request) as found,
    ):
        events = found.events
        arrays = events.arrays(bench)
        log = Interactions(
            arrays["user"],
            arrays["item"],
            arrays.get("time"),
            arrays.get("weight"),
            arrays["row"],
            np.asarray(events.user_ids),
            np.asarray(events.item_ids),
            events.offsets,
            has_order=found.has_order,
            facts=found.facts,
            rejected=found.rejected,
            storage=events.storage(bench),
        )
    if min_user_events > 1 or min_item_events > 1:
        log = log.k_core(min_user_events, min_item_events)
    return log


@dataclass(frozen=True)
class Request:
    """What `read_log` is asked for, checked."""

    preset: str | None
    layout: Preset
    text: TextOptions
    id_type: str
    kept: tuple[str, ...] | None
    min_rating: float | None
    ordered: bool
    skip: bool

    @classmethod
    def of_options(cls, given: dict[str, Any]) -> "Request":
        """From the arguments of `read_log` by name, all of them."""
        for name in ("min_user_events", "min_item_events"):
            number(name, given[name], ge=1, integer=True)
        text = TextOptions.of(
            *(given[name] for name in ("separator", "encoding", "quote", "quoting", "header", "null_values"))
        )
        roles = ("user", "item", "time", "weight", "behavior", "rating")
        return cls.of(
            given["preset"],
            given["columns"],
            {role: given[role] for role in roles},
            text,
            given["id_type"],
            given["keep_behavior"],
            given["min_rating"],
            given["ordered"],
            given["on_bad_row"],
        )

    @classmethod
    def of(
        cls,
        preset: str | None,
        columns: Columns | None,
        given: dict,
        text: TextOptions,
        id_type: str,
        keep_behavior: Any,
        min_rating: float | None,
        ordered: bool | None,
        on_bad_row: str,
    ) -> "Request":
        one_of("on_bad_row", on_bad_row, ("raise", "skip"))
        one_of("id_type", id_type, ("auto", "text", "whole"))
        layout = presets.resolve(preset, columns, given)
        kept = presets.behaviors_kept(layout, keep_behavior)
        if min_rating is not None:
            number("min_rating", min_rating)
            if layout.columns is None or layout.columns.rating is None:
                raise wrong("min_rating", "a log with a rating column (give rating=…)", min_rating)
        ordered = layout.kind != "table" if ordered is None else bool(ordered)
        return cls(preset, layout, text, id_type, kept, min_rating, ordered, on_bad_row == "skip")


@dataclass
class Found:
    """A source read and ready to be handed out in order."""

    events: Events
    facts: dict
    rejected: Rejected | None
    has_order: bool


@contextmanager
def sorted_events(bench: Workbench, source: Any, request: Request) -> Iterator[Found]:
    """Read and check `source`; what is found is good for the length of the block.

    `Found.events` gives the log's columns in order, as arrays or slice by slice, so that a log
    larger than memory can be written where it is to stand.
    """
    layout = request.layout
    inputs = _inputs(bench, source, request)
    bench.close_database()  # its memory is the reader's now
    reading = Reading(bench, request.text.null_values, raise_first=not request.skip)
    _read(bench, inputs, reading)
    times = bad.settle_times(reading, layout, bench)
    faults = bad.find(reading, layout, times, request.min_rating is not None)
    if layout.columns is not None and layout.columns.behavior is not None:
        mark_behaviors(reading, layout, faults)
    if not request.skip:
        bad_rows.raise_first(reading, faults, times, layout)
    notes: list[str] = []
    by_session = layout.kind == "sessions" and not any(one.trusted for one in inputs)
    whole = {"user": True, "item": True}
    for role in ("user", "item"):
        if not (role == "user" and by_session):
            whole[role] = bad.settle_ids(reading, role, request.id_type, layout, faults, notes)
            faults.spread_over_lines(reading)
    if not request.skip:
        bad_rows.raise_first(reading, faults, times, layout)
    facts = _facts(inputs, reading, request, times)
    all_kept = settle_fates(reading, faults, layout, request.kept, request.min_rating, facts)
    rejected, num_rejected = bad_rows.collect(reading, faults, times, layout)
    facts |= {
        "records": reading.records,
        "rows_read": reading.records - num_rejected,
        "rows_rejected": num_rejected,
        "blank_lines": reading.blanks,
        "duplicates": "kept",
        "on_bad_row": "skip" if request.skip else "raise",
    }
    if rejected is not None and len(rejected) < num_rejected:
        notes.append(
            f"of {num_rejected:,} rejected rows, the first {len(rejected):,} are kept in "
            f"`rejected`: more have no room (memory_limit={bench.memory_limit!r})"
        )
        warnings.warn(notes[-1], UserWarning, stacklevel=4)
    if notes:
        facts["notes"] = notes
    timed = times.kind != "none"
    weighted = layout.columns is not None and layout.columns.weight is not None
    with waiting("sorting the ids", show=bench.progress):
        events = Events.of(reading, times, weighted, whole, all_kept, by_session)
    yield Found(events, facts, rejected, timed or request.ordered)


def _inputs(bench: Workbench, source: Any, request: Request) -> list[Input]:
    layout, text = request.layout, request.text
    if isinstance(source, Interactions):
        raise wrong("source", "a file or a table to read", text="Interactions, which are read already")
    if is_frame(source):
        return [frame_input(bench, source, presets.table_columns(layout), layout.kind)]
    inputs = []
    for file in expand(source, bench.folder, bench.bar):
        if file.kind == "parquet":
            inputs.append(parquet_input(bench, file, presets.table_columns(layout), layout.kind))
        elif layout.kind != "table":
            if layout.columns is not None or layout.lists is not None:
                raise wrong(
                    "columns",
                    f"none with the preset {request.preset!r}, whose lines have none",
                    layout.columns or layout.lists,
                )
            inputs.append(lines_input(file, layout.kind, text))
        else:
            assert layout.columns is not None
            inputs.append(table_input(file, layout, layout.columns, text))
    return inputs


def _read(bench: Workbench, inputs: list[Input], reading: Reading) -> None:
    size = sum(one.file.path.stat().st_size for one in inputs)
    with bench.bar("read", size, "B") as bar:
        for one in inputs:
            reading.read(one, bar.update)
            if reading.stopped:
                break
    reading.buffers.clear()
    pages.give_back()


def _facts(inputs: list[Input], reading: Reading, request: Request, times: bad.Times) -> dict[str, Any]:
    facts: dict[str, Any] = {"preset": request.preset, "source": [one.label for one in inputs]}
    columns = request.layout.columns
    if columns is not None:
        facts["columns"] = {role: str(name) for role, name in columns.used().items()}
    if request.text.encoding != "utf-8":
        facts["encoding"] = request.text.encoding
    if times.kind != "none":
        facts["time_unit"] = times.unit if times.kind == "number" else "date"
        facts["ties_in_time"] = "broken by source row"
    return facts
