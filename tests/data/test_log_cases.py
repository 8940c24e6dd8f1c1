"""Logs of the kinds on which readers go wrong in silence: each is read as it stands, or refused."""

import decimal
import gzip
import io
import os
import re
import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from helpers_logs import items, put

from fastpop.data import Columns, Interactions, events, read_cases, read_log, scan, staging, workbench

UI = {"user": "u", "item": "i"}


# A path is a name.


@pytest.mark.parametrize(
    "name",
    [
        "clicks[1].csv",
        "clicks?.csv",
        "clicks*.csv",
        "cli{c,k}s.csv",
        "~clicks.csv",
        "k=v.csv",
        "a b'c\".csv",
        os.fsdecode(b"caf\xe9.csv"),
        "-",
    ],
)
@pytest.mark.parametrize("folder", [".", "day[1]", "u=9", "time=2024-01-01", "**"])
@pytest.mark.parametrize("form", ["csv", "parquet", "sequence"])
def test_the_file_of_that_name_is_read(name, folder, form, tmp_path):
    place = tmp_path / folder
    for other in ("clicks1.csv", "clicksx.csv", "k", "other.csv"):
        put(place / other, "u,i\n1,70\n2,80\n" if form == "csv" else "1 70\n2 80\n")
    path = place / name
    if form == "csv":
        log = read_log(put(path, "u,i\n1,7\n2,8\n"), **UI)
    elif form == "sequence":
        log = read_log(put(path, "1 7\n2 8\n"), preset="sequence")
    else:
        pq.write_table(pa.table({"u": [1, 2], "i": [7, 8]}), tmp_path / "plain")
        (tmp_path / "plain").rename(path)
        log = read_log(path, **UI)
    assert log.item_ids.tolist() == [7, 8]
    assert log.user_ids.tolist() == [1, 2]


def test_a_str_that_is_a_files_name_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "m*.csv", "u,i\n1,7\n")
    put(tmp_path / "m2.csv", "u,i\n1,9\n")
    assert read_log("m*.csv", **UI).item_ids.tolist() == [7]
    assert read_log("m2*.csv", **UI).item_ids.tolist() == [9]
    put(tmp_path / "day[1]" / "a.csv", "u,i\n1,5\n")
    put(tmp_path / "day1" / "a.csv", "u,i\n1,6\n")
    assert read_log("day[1]/*.csv", **UI).item_ids.tolist() == [5]  # brackets are no pattern
    with pytest.raises(FileNotFoundError, match=r"m\[2\]\.csv"):
        read_log("m[2].csv", **UI)
    with pytest.raises(FileNotFoundError, match=r"m\?\.csv"):
        read_log("m?.csv", **UI)
    with pytest.raises(FileNotFoundError, match="expected a file"):
        read_log(tmp_path / "x*.csv", **UI)  # a Path is a name


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "log.csv", "u,i\n1,7\n")
    assert read_log("~/log.csv", **UI).num_events == 1
    assert read_log("~/l*.csv", **UI).num_events == 1
    assert read_log("~/log.csv", **UI, temp_folder="~").num_events == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv"]


@pytest.mark.parametrize("column", ["u", "i", "t", "w"])
def test_folders_called_like_a_column_change_nothing(column, tmp_path):
    folder = tmp_path / f"{column}=2024-01-01"
    folder.mkdir()
    data = {"u": [1, 1], "i": [3, 4], "t": [1704100000, 1704090000], "w": [1.0, 2.0]}
    pq.write_table(pa.table(data), folder / "x.parquet")
    log = read_log(folder / "x.parquet", **UI, time="t", weight="w")
    assert log.time.tolist() == [1704090000, 1704100000]
    assert items(log) == [4, 3]
    assert log.weight.tolist() == [2.0, 1.0]


# Types come from the whole column.


def sources(table, tmp_path):
    """The same table of Python values as CSV, pandas, polars (where it has such columns), dict."""
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in table.items()})
    frame.to_csv(tmp_path / "x.csv", index=False)
    yield "csv", tmp_path / "x.csv"
    yield "pandas", frame
    yield "dict", {name: np.array(values, dtype=object) for name, values in table.items()}
    yield "lists", table
    text = {name: [None if v is None else str(v) for v in values] for name, values in table.items()}
    yield "polars", pl.DataFrame(text)
    pq.write_table(pa.table(text), tmp_path / "x.parquet")
    yield "parquet", tmp_path / "x.parquet"


@pytest.mark.parametrize(
    ("last", "users"),
    [
        ("007", 3000),
        (" 42 ", 2999),
        ("2999.0", 3000),
        ("x", 3000),
        (2999.0, 3000),
        (decimal.Decimal("2999"), 3000),
    ],
)
def test_the_last_user_is_read_as_it_stands(last, users, tmp_path):
    table = {"u": [*range(2999), last], "i": [1] * 3000}
    for form, source in sources(table, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log = read_log(source, **UI)
        assert log.num_users == users, form
        assert log.num_events == 3000, form
        assert log.user_ids.dtype == (object if last in ("007", "x") else np.int64), form


@pytest.mark.parametrize("last", [2.5, "5.7", decimal.Decimal("2.5"), "1e+2"])
def test_a_fraction_among_whole_ids_is_named(last, tmp_path):
    table = {"u": [*range(2999), last], "i": [1] * 3000}
    for form, source in sources(table, tmp_path):
        with pytest.raises(ValueError, match=r"(line 3001|row 3000), column 'u': expected a whole number"):
            read_log(source, **UI)
        log = read_log(source, **UI, on_bad_row="skip")
        assert (log.num_users, log.facts["rows_rejected"]) == (2999, 1), form


def test_late_fractions_of_weights_and_ratings(tmp_path):
    table = {"u": list(range(3000)), "i": [1] * 3000, "w": [1] * 2999 + [0.5], "r": [1] * 2999 + [4.5]}
    for form, source in sources(table, tmp_path):
        log = read_log(source, **UI, weight="w", rating="r", min_rating=4.2)
        assert log.weight.tolist() == [0.5], form
        assert log.facts["dropped_by_rating"] == 2999


def test_an_odd_id_among_whole_numbers_is_said(tmp_path):
    path = put(tmp_path / "a.csv", "u,i\n" + "".join(f"{n},1\n" for n in range(3000)) + "x1,1\n")
    with pytest.warns(UserWarning, match=r"line 3002, column 'u': 'x1' is no whole number, as 3,000 other"):
        log = read_log(path, **UI)
    assert log.user_ids.dtype == object
    assert "x1" in log.facts["notes"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_log(path, **UI, id_type="text").num_users == 3001
        assert read_log(path, **UI, null_values="x1", on_bad_row="skip").user_ids.dtype == np.int64
    with pytest.raises(ValueError, match=r"line 3002, column 'u': expected a whole number.*'x1'"):
        read_log(path, **UI, id_type="whole")


@pytest.mark.parametrize("word", ["NULL", "\\N", "nan", "", "NA", "None", "  "])
def test_null_values_are_missing_ids(word, tmp_path):
    path = put(tmp_path / "a.csv", "u,i\n" + "".join(f"{n},1\n" for n in range(3000)) + f"{word},1\n")
    with pytest.raises(ValueError, match="line 3002, column 'u': expected an id, none missing"):
        read_log(path, **UI)
    log = read_log(path, **UI, on_bad_row="skip")
    assert log.user_ids.dtype == np.int64
    assert log.num_users == log.facts["rows_read"] == 3000
    if word.strip():
        with pytest.warns(UserWarning, match="is no whole number"):
            assert word in read_log(path, **UI, null_values=()).user_ids


def test_null_values_of_ones_own(tmp_path):
    path = put(tmp_path / "a.csv", "u,i\n1,-\n?,2\n3,4\n")
    log = read_log(path, **UI, null_values=["-", "?"], on_bad_row="skip")
    assert (log.num_events, items(log)) == (1, [4])
    for source in (
        pd.DataFrame({"u": ["1", "?", "3"], "i": ["-", "2", "4"]}),
        pl.DataFrame({"u": ["1", "?", "3"], "i": ["-", "2", "4"]}),
    ):
        assert items(read_log(source, **UI, null_values=["-", "?"], on_bad_row="skip")) == [4]


def test_spaces_around_ids_are_no_part_of_them(tmp_path):
    path = put(tmp_path / "a.csv", "u, i\n1, 10\n2,10 \n3,\t11\n")
    assert read_log(path, **UI).item_ids.tolist() == [10, 11]
    assert read_log(put(tmp_path / "b.csv", "1, 10\n2,10 \n"), user=0, item=1).item_ids.tolist() == [10]
    assert read_log({"u": ["a ", "a"], "i": [" 1", "1"]}, **UI).num_users == 1


@pytest.mark.parametrize(
    "source",
    [
        {"u": np.array([1.5e9, 2e7], np.float32), "i": [1, 2]},
        pl.DataFrame({"u": [1.5e9, 2e7], "i": [1, 2]}, schema={"u": pl.Float32, "i": pl.Int64}),
        pa.table({"u": pa.array([1.0, 2.0**24], pa.float32()), "i": [1, 2]}),
    ],
)
def test_float32_ids_that_it_cannot_hold(source):
    with pytest.raises(ValueError, match=r"row \d, column 'u': expected ids below 2\*\*24.*FLOAT"):
        read_log(source, **UI)


def test_small_float32_ids_and_wide_decimals_are_whole_numbers():
    assert read_log({"u": np.array([1, 2], np.float32), "i": [1, 2]}, **UI).user_ids.tolist() == [1, 2]
    wide = pa.array([decimal.Decimal(7), decimal.Decimal(9)], pa.decimal128(38, 0))
    log = read_log(pa.table({"u": wide, "i": [1, 2]}), **UI)
    assert log.user_ids.dtype == np.int64
    assert log.user_ids.tolist() == [7, 9]
    with pytest.raises(ValueError, match=r"row 2, column 'u': expected ids below 2\*\*53"):
        read_log({"u": [1.0, 2.0**53], "i": [1, 2]}, **UI)


def test_float32_times_are_refused():
    for time in (np.array([1.7e9, 1.7e9], np.float32), pl.Series([1.7e9, 1.7e9], dtype=pl.Float32)):
        with pytest.raises(TypeError, match=r"column 't': expected times as .*; got FLOAT, which knows"):
            read_log({"u": [1, 2], "i": [1, 2], "t": time}, **UI, time="t")


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        np.array([True, False]),
        pd.Series([True, False]),
        pl.Series([True, False]),
        ["True", "False"],
        pa.array([True, False]),
    ],
)
def test_truth_values_are_no_ids(values, tmp_path):
    for role in ("u", "i"):
        with pytest.raises(TypeError, match=rf"column '{role}'"):
            read_log({"u": [1, 2], "i": [1, 2], role: values}, **UI)
    path = put(tmp_path / "a.csv", "u,i\nTrue,1\nFalse,2\n")
    with pytest.raises(TypeError, match="column 'u': expected ids of users; got truth values"):
        read_log(path, **UI)


def test_user_and_item_are_two_columns(tmp_path):
    path = put(tmp_path / "a.csv", "u,i\n1,2\n")
    for same in ({"user": "u", "item": "u"}, {"user": 0, "item": 0}):
        with pytest.raises(ValueError, match=r"columns\.item: expected another column than the user's"):
            read_log(path, **same)


def test_times_in_nanoseconds_keep_their_order():
    base = 1_700_000_000_000_000_000
    data = {"u": [1, 1, 1], "i": [1, 2, 3], "t": [base + 2, base + 1, base]}
    for source in (
        data,
        pd.DataFrame(data),
        {**data, "t": np.array(data["t"]).astype("datetime64[ns]")},
        pl.DataFrame(data),
    ):
        log = read_log(source, **UI, time="t")
        assert items(log) == [3, 2, 1]
        assert log.time.tolist() == [1_700_000_000] * 3


def test_dates_that_look_like_numbers_are_refused(tmp_path):
    path = put(tmp_path / "a.csv", "u,i,t\n1,2,20171124\n1,3,20171231\n")
    with pytest.raises(ValueError, match=r"column 't': expected unix time.*20171124.*time_format='%Y%m%d'"):
        read_log(path, **UI, time="t")
    for how in ({"time_format": "%Y%m%d"}, {"time_unit": "s"}):
        log = read_log(path, columns=Columns("u", "i", time="t", **how))
        assert log.time[0] == (1511481600 if "time_format" in how else 20171124)
    put(path, "u,i,t\n1,2,20171124\n1,3,20171332\n")  # no date: seconds
    assert read_log(path, **UI, time="t").time.tolist() == [20171124, 20171332]


@pytest.mark.parametrize("time", ["2014-02-30", "2014-01-01 24:00", "9999-12-31", "02/03/2014", "1e400x"])
def test_dates_that_are_none(time, tmp_path):
    with pytest.raises(ValueError, match="line 2, column 't': expected an ISO date"):
        read_log(put(tmp_path / "a.csv", f"u,i,t\n1,2,{time}\n"), **UI, time="t")


def test_what_is_masked_is_missing():
    with pytest.raises(ValueError, match="row 2, column 'u': expected an id, none missing"):
        read_log({"u": np.ma.array([1, 2], mask=[0, 1]), "i": [1, 2]}, **UI)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            pa.table([[1], [2], [3]], names=["u", "u", "i"]),
            "column 'u': expected each name once; got 2 columns",
        ),
        (pd.DataFrame([[1, 2, 3]], columns=["u", "u", "i"]), "column 'u': expected each name once"),
        (
            {"u": torch.ones(2).bfloat16(), "i": [1, 2]},
            "column 'u': expected numbers that are whole or float32",
        ),
        ({"u": np.array([1j, 2]), "i": [1, 2]}, "column 'u': expected numbers, text or dates"),
        (pl.Series([1, 2]), "source: expected a table"),
        ([{"u": 1, "i": 2}], "source: expected a path"),
        (io.BytesIO(b"u,i"), "source: expected a path"),
    ],
)
def test_tables_that_are_none(source, says):
    with pytest.raises((ValueError, TypeError), match=re.escape(says)):
        read_log(source, **UI)


def test_streams_and_sets_of_arrow_are_tables():
    table = pa.table({"u": [1, 2], "i": [3, 4]})
    for source in (table.to_reader(), pa.dataset.dataset(table), pa.record_batch({"u": [1, 2], "i": [3, 4]})):
        assert read_log(source, **UI).num_events == 2


# Lists and bytes.


def test_lists_are_refused_by_their_type_or_taken_as_sequences(tmp_path):
    data = {"u": [7, 8], "i": [[3, 4, 5], [4]]}
    pq.write_table(pa.table(data), tmp_path / "x.parquet")
    for source in (pl.DataFrame(data), pa.table(data), tmp_path / "x.parquet", pd.DataFrame(data), data):
        with pytest.raises(TypeError, match=r"'i': expected one value a row as item; got (BIGINT\[\]|list)"):
            read_log(source, **UI)
        log = read_log(source, preset="sequence", **UI)
        assert log.user_ids.tolist() == [7, 8]
        assert [log.decode_items(log.history(u)).tolist() for u in (0, 1)] == [[3, 4, 5], [4]]
        assert log.has_order
        sessions = read_log(source, preset="sessions", item="i")
        assert [sessions.decode_items(sessions.history(u)).tolist() for u in (0, 1)] == [[3, 4, 5], [4]]
    fixed = pl.DataFrame({"u": [1], "i": pl.Series([[5, 6]], dtype=pl.Array(pl.Int64, 2))})
    assert items(read_log(fixed, preset="sequence", **UI)) == [5, 6]
    with pytest.raises(TypeError, match="expected lists of items"):
        read_log(pl.DataFrame({"u": [1], "i": [2]}), preset="sequence", **UI)
    with pytest.raises(TypeError, match=r"STRUCT"):
        read_log(pl.DataFrame({"u": [1], "i": [{"a": 2}]}), **UI)


def test_bytes_are_utf8_or_refused(tmp_path):
    good, bad = ["café".encode(), b"b"], ["café".encode("latin-1"), b"b"]
    pq.write_table(pa.table({"u": [1, 2], "i": good}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"u": [1, 2], "i": bad}), tmp_path / "y.parquet")
    for source in (
        tmp_path / "x.parquet",
        pl.DataFrame({"u": [1, 2], "i": good}),
        {"u": [1, 2], "i": good},
        pd.DataFrame({"u": [1, 2], "i": good}),
        {"u": [1, 2], "i": np.array(good)},
    ):
        assert read_log(source, **UI).item_ids.tolist() == ["b", "café"]
    for source in (tmp_path / "y.parquet", pl.DataFrame({"u": [1, 2], "i": bad}), {"u": [1, 2], "i": bad}):
        with pytest.raises(ValueError, match="row 1, column 'i': expected bytes that are UTF-8"):
            read_log(source, **UI)


# What is no regular file.


def test_a_named_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "u,i\n" + "".join(f"{n},{n % 7}\n" for n in range(100_000))
    for raw in (text.encode(), gzip.compress(text.encode())):
        writer = threading.Thread(target=pipe.write_bytes, args=(raw,))
        writer.start()
        log = read_log(pipe, **UI)
        writer.join()
        assert log.num_events == 100_000
        assert log.facts["source"] == [str(pipe)]


def test_a_pipe_that_nobody_writes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "PATIENCE", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe, a named pipe without a writer"):
        read_log(tmp_path / "pipe", **UI)
    with pytest.raises(ValueError, match="a named pipe"):
        read_cases(tmp_path / "pipe", Interactions.from_arrays([1], [1]))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_devices_are_refused(path):
    with pytest.raises((ValueError, OSError), match=r"a device|a terminal|No such device"):
        read_log(path, **UI)


SHELL = (
    "import sys, fastpop; print(fastpop.read_log(sys.argv[1], user='u', item='i', on_bad_row='skip'"
    ").facts['records'])"
)


@pytest.mark.parametrize("how", ["-", "/dev/stdin", "<(cat a.csv)", "a file as -"])
def test_standard_input_and_process_substitution(how, tmp_path):
    put(tmp_path / "a.csv", "u,i\n1,2\n3,\n")
    command = {
        "-": 'cat a.csv | $0 -c "$1" -',
        "/dev/stdin": 'cat a.csv | $0 -c "$1" /dev/stdin',
        "<(cat a.csv)": '$0 -c "$1" <(cat a.csv)',
        "a file as -": '$0 -c "$1" - < a.csv',
    }[how]
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, SHELL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "2", done.stderr


# The reader stops when told, and leaves nothing.

STOP = """
import sys, fastpop
fastpop.read_log(sys.argv[1], user='u', item='i', temp_folder=sys.argv[2], progress=False)
try:  # with everything imported: an import that ctrl-C ends makes Python die of it at exit, caught or not
    print('reading', flush=True)
    while True:
        fastpop.read_log(sys.argv[1], user='u', item='i', temp_folder=sys.argv[2], progress=False)
except KeyboardInterrupt:
    print('stopped')
"""


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("after", [0.05, 0.4, 0.9])
def test_interrupts_leave_nothing_behind(form, after, tmp_path):
    import signal
    import time

    size = 500_000
    table = pa.table({"u": np.arange(size) % 5000, "i": np.arange(size) % 77})
    path = tmp_path / f"log.{form}"
    pq.write_table(table, path) if form == "parquet" else table.to_pandas().to_csv(path, index=False)
    (tmp_path / "temp").mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", STOP, str(path), str(tmp_path / "temp")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "reading\n"
    time.sleep(after)
    while not list((tmp_path / "temp").iterdir()) and child.poll() is None:
        time.sleep(0.002)  # it is reading now
    child.send_signal(signal.SIGINT)
    begin = time.monotonic()
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "stopped\n"), err
    assert not re.search("Traceback|terminate", err), err
    assert time.monotonic() - begin < 20
    assert list((tmp_path / "temp").iterdir()) == []


def test_large_arrays_lie_in_a_file_without_a_name(tmp_path):
    rng = np.random.default_rng(0)
    data = {
        "u": rng.integers(0, 3000, 600_000),
        "i": rng.integers(0, 50, 600_000),
        "t": rng.integers(0, 9, 600_000),
        "w": rng.random(600_000),
    }
    path = tmp_path / "a.csv"
    pd.DataFrame(data).to_csv(path, index=False)
    log = read_log(path, **UI, time="t", weight="w", memory_limit="16MB", temp_folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    whole = Interactions.from_arrays(*data.values())
    for name in ("user", "item", "time", "weight", "row", "offsets"):
        np.testing.assert_array_equal(getattr(log, name), getattr(whole, name), err_msg=name)
    assert log.k_core(2, 2).num_events == whole.k_core(2, 2).num_events


# Progress moves, by what has been read.


@pytest.mark.parametrize("packed", [False, True])
def test_bars_count_bytes_and_events(packed, tmp_path, monkeypatch):
    raw = ("u,i\n" + "".join(f"{n % 999},{n % 77}\n" for n in range(200_000))).encode()
    path = put(tmp_path / "a.csv", gzip.compress(raw) if packed else raw)
    monkeypatch.setattr(staging, "BLOCK", 1 << 16)
    monkeypatch.setattr(events, "RANGE", 1 << 18)
    moves: dict[str, list[float]] = {}

    class Bar:
        def __init__(self, label, total, unit):
            self.mine = moves.setdefault(label, [])
            moves.setdefault(f"{label} total", []).append(total)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, amount):
            self.mine.append(amount)

    monkeypatch.setattr(workbench.Workbench, "bar", lambda _, *about: Bar(*about))
    read_log(path, **UI)
    assert list(moves) == ["read", "read total", "sort", "sort total"]
    assert moves["read total"] == [path.stat().st_size]
    assert sum(moves["read"]) == path.stat().st_size
    assert sum(moves["sort"]) == 200_000 == moves["sort total"][0]
    assert sum(amount > 0 for amount in moves["sort"]) > 3
    assert packed or sum(amount > 0 for amount in moves["read"]) > 3


def test_one_reader_goes_on_where_ids_are_many(tmp_path, monkeypatch):
    """Each thread's reader numbers ids anew; beyond a share of the memory one alone does."""
    rows = "".join(f"user{n * 7919 % 100_003},{n}\n" for n in range(100_003))
    path = put(tmp_path / "a.csv", "u,i\n" + rows)
    monkeypatch.setattr(staging, "BLOCK", 1 << 15)
    monkeypatch.setattr(staging, "SHARE_OF_TEXTS", 0.02)
    log = read_log(path, **UI, threads=3)
    np.testing.assert_array_equal(
        log.decode_users(log.user[np.argsort(log.row)])[:3], ["user0", "user7919", "user15838"]
    )
    assert (log.num_users, log.num_items) == (100_003, 100_003)
    with pytest.raises(MemoryError, match="memory_limit: expected room for the distinct ids"):
        read_log(
            put(path, "u,i\n" + "".join(f"{'x' * 50}{n},{n}\n" for n in range(200_000))),
            **UI,
            memory_limit="16MB",
        )
