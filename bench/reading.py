"""Ways to read a log: parse, dense ids, sort by user and time. As a command, one in a process of its own.

python bench/reading.py CONTENDER FILE     # prints {"seconds", "cpu_seconds", "peak_bytes", …}
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MEMORY = "2GB"
THREADS = 2


def write_log(path: Path, rows: int, users: int = 1_000_000, items: int = 200_000) -> Path:
    """A CSV of user, item, time: ids `u…` and `i…`, items skewed, whole seconds, in no order."""
    import duckdb

    draft = path.with_suffix(".part")
    with duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY}) as connection:
        connection.execute("SELECT setseed(0.5)").fetchall()
        connection.execute(f"""
            COPY (SELECT 'u' || floor({users} * random())::BIGINT AS "user",
                         'i' || floor({items} * pow(random(), 3))::BIGINT AS item,
                         1600000000 + floor(50000000 * random())::BIGINT AS "time"
                  FROM range({rows})) TO '{draft}' (FORMAT csv, HEADER)""").fetchall()
    draft.rename(path)
    return path


def fastpop(path: str, folder: str) -> int:
    from fastpop import read_log

    return read_log(
        path,
        user="user",
        item="item",
        time="time",
        memory_limit=MEMORY,
        threads=THREADS,
        temp_folder=folder,
        progress=False,
    ).num_events


def duckdb_query(path: str, folder: str) -> int:
    import duckdb

    connection = duckdb.connect()
    for name, value in {
        "memory_limit": MEMORY,
        "temp_directory": f"{folder}/spill",
        "threads": THREADS,
    }.items():
        connection.execute(f"SET {name} = '{value}'")
    connection.execute(f"CREATE TABLE log AS SELECT * FROM read_csv('{path}')").fetchall()
    for column in ("user", "item"):
        connection.execute(
            f'CREATE TABLE {column}s AS SELECT "{column}" AS name, '
            f'row_number() OVER (ORDER BY "{column}") - 1 AS id '
            f'FROM (SELECT DISTINCT "{column}" FROM log)'
        ).fetchall()
    return connection.execute(f"""
        COPY (SELECT u.id AS "user", i.id AS item, log."time" FROM log
              JOIN users u ON log."user" = u.name JOIN items i ON log.item = i.name
              ORDER BY u.id, log."time") TO '{folder}/out.parquet' (FORMAT parquet)""").fetchall()[0][0]


def polars_streaming(path: str, folder: str) -> int:
    import polars as pl

    log = pl.scan_csv(path)
    for column in ("user", "item"):
        ids = log.select(column).unique().sort(column).with_row_index(f"{column}_id")
        log = log.join(ids, on=column, maintain_order="left").drop(column)
    log.sort("user_id", "time", maintain_order=True).sink_parquet(f"{folder}/out.parquet", engine="streaming")
    return pl.scan_parquet(f"{folder}/out.parquet").select(pl.len()).collect().item()


def pyarrow_table(path: str, folder: str) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv, parquet

    pa.set_cpu_count(THREADS)
    table = csv.read_csv(path)
    for at, column in enumerate(("user", "item")):
        encoded = table[column].dictionary_encode().unify_dictionaries().combine_chunks()
        order = pc.sort_indices(encoded.dictionary)
        rank = pc.sort_indices(order)
        table = table.set_column(at, column, rank.take(encoded.indices))
    table = table.take(pc.sort_indices(table, sort_keys=[("user", "ascending"), ("time", "ascending")]))
    parquet.write_table(table, f"{folder}/out.parquet")
    return table.num_rows


CONTENDERS: dict[str, Callable[[str, str], int]] = {
    "fastpop read_log": fastpop,
    "duckdb, plain query": duckdb_query,
    "polars, streaming": polars_streaming,
    "pyarrow": pyarrow_table,
}
IMPORTS = {  # before the clock starts
    "fastpop read_log": ("fastpop.data",),
    "duckdb, plain query": ("duckdb",),
    "polars, streaming": ("polars",),
    "pyarrow": ("pyarrow.compute", "pyarrow.csv", "pyarrow.parquet"),
}


def _peak() -> int:
    """Peak RSS in bytes. Not ru_maxrss where it can be helped, which begins with the parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(contender: str, path: str) -> None:
    for module in IMPORTS[contender]:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        start, cpu = time.perf_counter(), time.process_time()
        events = CONTENDERS[contender](path, folder)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = _peak()
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak, "events": events}))


if __name__ == "__main__":
    main(*sys.argv[1:])
