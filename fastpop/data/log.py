"""read_log: any file or frame of events → Interactions, through DuckDB under a memory cap."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import number, one_of, wrong
from fastpop.data import presets
from fastpop.data.inputs import Table, TextTable, frame, parquet
from fastpop.data.interactions import Interactions
from fastpop.data.presets import Columns, Preset
from fastpop.data.scan import Scan, expand, kind_of, scan_text
from fastpop.data.staging import IdsAreText, Ledger, Reading, settle, stage
from fastpop.data.tokens import stage_lines
from fastpop.data.workbench import Workbench, quoted_text

FETCH_ROWS = 4_000_000  # rows handed from DuckDB to numpy at a time


def read_log(
    source: Any, *, preset: str | None = None, columns: Columns | None = None,
    user: str | int | None = None, item: str | int | None = None, time: str | int | None = None,
    weight: str | int | None = None, behavior: str | int | None = None,
    rating: str | int | None = None, separator: str | None = None,
    keep_behavior: str | Iterable[str] | None = None, min_rating: float | None = None,
    min_user_events: int = 1, min_item_events: int = 1, ordered: bool | None = None,
    on_bad_row: str = "raise", memory_limit: str = "2GB", threads: int | None = None,
    temp_folder: str | Path | None = None, progress: bool | None = None,
) -> Interactions:
    """`SELECT user, item, time FROM source ORDER BY user, time, row`, with dense ids.

    Every row is read and checked; exact duplicates stay, and events of a user at the same time
    stay in the order of their rows.

    Args:
        source: a path, a glob or a list of either (csv, tsv, `::`-separated, plain or gzip,
            parquet), a pandas, polars or arrow table, or a dict of arrays.
        preset: a known layout (`fastpop.available("presets")`).
        columns: roles of the columns of any other table; `user`, `item`, `time`, `weight`,
            `behavior`, `rating` give or change single ones. Names are looked up in the header,
            numbers are 0-based positions in a file without a header.
        separator: between fields; None takes the preset's, or finds out.
        keep_behavior: keep events of these kinds only, by name: view, fav, cart, buy where a
            preset knows the codes, otherwise what stands in the column.
        min_rating: keep events rated at least so. Ratings are ignored without it.
        min_user_events, min_item_events: k-core; it sees the whole log, and `facts` say so.
        ordered: whether rows without times stand in order. None: for sequences and sessions yes,
            for tables no.
        on_bad_row: "raise" names the first bad row; "skip" leaves bad rows out, counts them in
            `facts`, and keeps them in `rejected` (written to rejected.csv by `save`). A file
            that is damaged as a whole raises either way.
        memory_limit: what DuckDB may hold; beyond it the work spills to disk.
        threads: DuckDB's threads; the result does not depend on it.
        temp_folder: where to spill. Needs about the size of the unpacked log.
        progress: a bar after 5 s (None), at once (True), never (False).
    Returns:
        Interactions, ids dense in the order of the original ids. A column of whole numbers gives
        int64 ids, any other column str ids.
    Raises:
        ValueError, TypeError: a bad argument or a bad file; names file, line and column, what was
            expected and what was there. FileNotFoundError: no file. MemoryError: the cap is too
            small. ImportError: duckdb is missing (`Interactions.from_arrays` does without).
    Cost: the text is read twice (checked, then parsed); 32 bytes an event for the arrays.
    """
    one_of("on_bad_row", on_bad_row, ("raise", "skip"))
    number("min_user_events", min_user_events, least=1, integer=True)
    number("min_item_events", min_item_events, least=1, integer=True)
    layout = presets.resolve(preset, columns, {
        "user": user, "item": item, "time": time, "weight": weight, "behavior": behavior,
        "rating": rating,
    })
    kept = presets.behaviors_kept(layout, keep_behavior)
    if min_rating is not None:
        number("min_rating", min_rating)
        if layout.columns is None or layout.columns.rating is None:
            raise wrong("min_rating", "a log with a rating column (give rating=…)", min_rating)
    if separator is not None and (not isinstance(separator, str) or not 1 <= len(separator) <= 4):
        raise wrong("separator", "one to four characters", separator)
    ledger = Ledger(skip=on_bad_row == "skip")
    with Workbench(memory_limit, threads, temp_folder, progress) as bench:
        facts: dict[str, Any] = {"preset": preset}
        if layout.kind == "table":
            assert layout.columns is not None
            reading = _stage_tables(bench, source, layout, layout.columns, separator,
                                    min_rating is not None, ledger, facts)
        else:
            reading = _stage_tokens(bench, source, layout, ledger, facts)
        has_time = layout.columns is not None and layout.columns.time is not None
        has_weight = layout.columns is not None and layout.columns.weight is not None
        _filter(bench, kept, min_rating, layout, facts)
        log = _finish(bench, reading, has_time, has_weight)
    if ordered is None:
        ordered = layout.kind != "table"
    rejected = ledger.rejected()
    facts |= {"rows_rejected": len(rejected) if rejected else 0, "duplicates": "kept",
              "on_bad_row": on_bad_row}
    log = Interactions(
        log.user, log.item, log.time, log.weight, log.row, log.user_ids, log.item_ids, log.offsets,
        has_order=has_time or bool(ordered), facts=facts, rejected=rejected,
    )
    if min_user_events > 1 or min_item_events > 1:
        log = log.k_core(min_user_events, min_item_events)
    return log


def _scanned(bench: Workbench, files: list[Path]) -> dict[Path, Scan]:
    """Every text file looked through once; parquet has checks of its own."""
    scans = {}
    with bench.bar("check", sum(path.stat().st_size for path in files), "B") as bar:
        for path in files:
            if kind_of(path) != "parquet":
                scans[path] = scan_text(path, bar.update)
    return scans


def _open_tables(
    bench: Workbench, source: Any, layout: Preset, columns: Columns, separator: str | None,
) -> list[Table]:
    table = frame(bench, source, columns)
    if table is not None:
        return [table]
    files = expand(source)
    scans = _scanned(bench, files)
    return [
        TextTable(scans[path], layout, columns, separator) if path in scans
        else parquet(bench, path, columns)
        for path in files
    ]


def _stage_tables(
    bench: Workbench, source: Any, layout: Preset, columns: Columns, separator: str | None,
    use_rating: bool, ledger: Ledger, facts: dict,
) -> Reading:
    tables = _open_tables(bench, source, layout, columns, separator)
    reading = settle(bench, tables, columns, layout)
    while True:
        _create_staged(bench, reading)
        trial = Ledger(ledger.skip)
        try:
            rows = [stage(bench, t, reading, layout, columns, use_rating, trial) for t in tables]
            break
        except IdsAreText as turn:
            for role in turn.roles:
                reading.whole[role] = False
    ledger.__dict__.update(trial.__dict__)
    facts |= {
        "source": [table.label for table in tables], "rows_read": int(sum(rows)),
        "columns": {role: str(name) for role, name in columns.used().items()},
    }
    if columns.time is not None:
        facts["time_unit"] = reading.unit if reading.numeric_time else "date"
        facts["ties_in_time"] = "broken by source row"
    return reading


def _stage_tokens(
    bench: Workbench, source: Any, layout: Preset, ledger: Ledger, facts: dict,
) -> Reading:
    files = expand(source)
    scans = _scanned(bench, files)
    for path in files:
        if path not in scans:
            raise wrong(str(path), "lines of items", "=a parquet file")
    reading = Reading({"user": True, "item": True})
    while True:
        _create_staged(bench, reading)
        trial = Ledger(ledger.skip)
        lines = 0
        try:
            for path in files:
                lines += stage_lines(bench, scans[path], layout.kind, reading, trial, lines)
            break
        except IdsAreText as turn:
            for role in turn.roles:
                reading.whole[role] = False
    ledger.__dict__.update(trial.__dict__)
    facts |= {"source": [str(path) for path in files], "rows_read": lines}
    return reading


def _create_staged(bench: Workbench, reading: Reading) -> None:
    kind = {role: "BIGINT" if whole else "VARCHAR" for role, whole in reading.whole.items()}
    bench.run(
        f"CREATE OR REPLACE TABLE staged (\"user\" {kind['user']}, item {kind['item']}, "
        "tick DOUBLE, weight DOUBLE, behavior VARCHAR, rating DOUBLE, bad UTINYINT)"
    )


def _filter(
    bench: Workbench, kept: tuple[str, ...] | None, min_rating: float | None, layout: Preset,
    facts: dict,
) -> None:
    """Table `events`: what is left after bad rows and filters, with the row in the source."""
    if bench.value("SELECT count(*) FROM staged WHERE bad > 0"):
        # rejected rows do not count as rows: number the rest anew, in order
        bench.run("CREATE TABLE sound AS SELECT * FROM staged WHERE bad = 0 ORDER BY rowid")
        bench.run("DROP TABLE staged; ALTER TABLE sound RENAME TO staged")
    total = bench.value("SELECT count(*) FROM staged")
    if not total:
        raise wrong("source", "at least one good row", "=none: every row was rejected")
    tests = []
    if layout.columns is not None and layout.columns.behavior is not None:
        facts["behaviors"] = dict(bench.rows(
            "SELECT behavior, count(*) FROM staged GROUP BY behavior ORDER BY behavior"))
    if kept is not None:
        listed = ", ".join(f"'{quoted_text(name)}'" for name in kept)
        tests.append(f"behavior IN ({listed})")
        dropped = bench.value(f"SELECT count(*) FROM staged WHERE NOT {tests[-1]}")
        facts |= {"keep_behavior": list(kept), "dropped_by_behavior": dropped}
    if min_rating is not None:
        left = " AND ".join(["true", *tests])
        tests.append(f"rating >= {float(min_rating)!r}")
        dropped = bench.value(f"SELECT count(*) FROM staged WHERE {left} AND NOT {tests[-1]}")
        facts |= {"min_rating": float(min_rating), "dropped_by_rating": dropped}
    where = f"WHERE {' AND '.join(tests)}" if tests else ""
    bench.run(f'CREATE VIEW events AS SELECT rowid AS "row", "user", item, tick, weight '
              f"FROM staged {where}")
    if tests and not bench.value("SELECT count(*) FROM events"):
        raise wrong("keep_behavior, min_rating", "filters that leave an event",
                    f"=({kept}, {min_rating}), which drop all {total}")


def _finish(
    bench: Workbench, reading: Reading, has_time: bool, has_weight: bool,
) -> Interactions:
    """Dense ids, the sort, and the way to numpy in slices; all but the arrays stays in DuckDB."""
    for role in ("user", "item"):
        bench.run(f'CREATE TABLE {role}_map AS SELECT id FROM (SELECT DISTINCT "{role}" AS id '
                  "FROM events) ORDER BY id", label=f"{role} ids")
    tick = ", e.tick" if has_time else ""
    weight = ", e.weight" if has_weight else ""
    bench.run(f"""
        CREATE TABLE ordered AS
        SELECT u.rowid AS "user", i.rowid AS item, e."row"{tick}{weight}
        FROM events e JOIN user_map u ON e."user" = u.id JOIN item_map i ON e.item = i.id
        ORDER BY u.rowid{tick}, e."row"
    """, label="sort")
    bench.run("DROP VIEW events; DROP TABLE staged")
    bench.shrink()
    size = bench.value("SELECT count(*) FROM ordered")
    wanted: dict[str, type] = {"user": np.int64, "item": np.int64, "row": np.int64}
    wanted |= {"tick": np.int64} if has_time else {}
    wanted |= {"weight": np.float64} if has_weight else {}
    arrays = {name: np.empty(size, dtype=dtype) for name, dtype in wanted.items()}
    with bench.bar("fetch", size, " rows") as bar:
        for start in range(0, size, FETCH_ROWS):
            stop = min(start + FETCH_ROWS, size)
            part = bench.arrays('SELECT * FROM ordered '
                                f"WHERE rowid >= {start} AND rowid < {stop} ORDER BY rowid")
            for name, array in arrays.items():
                got = part[name]
                array[start:stop] = np.floor(got) if name == "tick" else got
            bar.update(stop - start)
    catalogues = {}
    for role in ("user", "item"):
        ids = bench.arrays(f"SELECT id FROM {role}_map ORDER BY rowid")["id"]
        ids = np.asarray(ids)
        catalogues[role] = ids.astype(np.int64) if reading.whole[role] else ids.astype(object)
    return Interactions._sorted(
        arrays["user"], arrays["item"], arrays.get("tick"), arrays.get("weight"), arrays["row"],
        catalogues["user"], catalogues["item"],
    )
