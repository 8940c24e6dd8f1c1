"""Each bad input gets one error that says the file, the line, the column, and what was wanted."""

import csv
import gzip
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fastpop.data import Columns, Interactions, read_cases, read_log

pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")
pl = pytest.importorskip("polars", reason="polars, whose frames are read, is not installed")

HEAD = "u,i,t,w\n"
ROW = "1,2,3,1\n"
ROLES = {"user": "u", "item": "i", "time": "t", "weight": "w"}


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] if at >= 0 else flipped(raw, len(raw) + at)


PACKED = gzip.compress((HEAD + ROW * 5000).encode())

# name: (bytes, arguments, what the message must say)
WHOLE_FILE = {
    "missing column": (
        "u,i,when,w\n" + ROW,
        ROLES,
        r"a\.csv, line 1, column 't': expected a column of that name; got only 'u'",
    ),
    "missing position": (ROW, {"user": 0, "item": 9}, r"line 1, column 9: expected .* 4 columns"),
    "empty file": ("", ROLES, r"a\.csv: expected rows; got an empty file"),
    "header alone": (HEAD, ROLES, r"a\.csv: expected rows below the header"),
    "blank lines alone": ("\n\n", ROLES, r"a\.csv: expected rows; got only empty lines"),
    "truncated gzip": (PACKED[:-20], ROLES, r"a\.csv, near line \d+: .*whole gzip.*too early"),
    "corrupt gzip checksum": (flipped(PACKED, -6), ROLES, r"a\.csv, near line .*corrupt.*CRC"),
    "corrupt gzip length": (flipped(PACKED, -2), ROLES, r"a\.csv, near line .*corrupt"),
    "second gzip member corrupt": (
        PACKED + flipped(gzip.compress(ROW.encode()), -6),
        ROLES,
        r"near line 500[23]: .*corrupt",
    ),
    "rubbish after gzip": (PACKED + b"rubbish", ROLES, "corrupt"),
    "separator given wrong": (
        HEAD + ROW,
        {**ROLES, "separator": ";"},
        r"line 1: expected columns separated by ';'; got 'u,i,t,w' "
        r"\(separated by ','\?\)",
    ),
    "separator of a preset": (
        "userId;movieId;rating;timestamp\n1;2;3;4\n",
        {"preset": "movielens-csv"},
        r"separated by ','.*by ';'\?",
    ),
    "separator of a headless preset": (
        "1,2,3,4\n",
        {"preset": "movietweetings"},
        "line 1: expected 4 columns separated by '::'; got '1,2",
    ),
    "separator of sequences": (
        "1,2,3\n",
        {"preset": "sequence"},
        r"line 1: expected `user item item …` separated by spaces",
    ),
    "separator of sessions": ("1;2;3\n", {"preset": "sessions"}, "separated by spaces"),
    "duplicate header": (
        "u,i,t,w,u\n1,2,3,4,5\n",
        ROLES,
        "line 1, column 'u': expected each name once.*got 2 columns",
    ),
    "mixed line ends": (
        HEAD + ROW * 3 + "1,2,3,1\r\n" + ROW,
        ROLES,
        r"line 5: expected the line end of line 1 \(LF\).*got CRLF",
    ),
    "mixed line ends, the other way": (
        (HEAD + ROW * 3).replace("\n", "\r\n") + ROW + ROW,
        ROLES,
        r"line 5: expected the line end of line 1 \(CRLF\).*got LF",
    ),
    "carriage returns": ((HEAD + ROW).replace("\n", "\r"), ROLES, "line 1: .*carriage return"),
    "a stray carriage return": (HEAD + ROW + "1,2\r,3,1\n", ROLES, "line 3: .*carriage return"),
    "NUL byte": (HEAD + ROW + "1,2\0,3,1\n", ROLES, "line 3: expected UTF-8 text; got a NUL"),
    "UTF-16": ((HEAD + ROW).encode("utf-16"), ROLES, "line 1: expected UTF-8"),
    "not UTF-8": (
        (HEAD + ROW * 2).encode() + b"1,\xff,3,1\n",
        ROLES,
        "line 4: expected UTF-8 text; got byte 0xff",
    ),
    "cut inside a character": ((HEAD + ROW).encode() + "1,é".encode()[:-1], ROLES, "line 3: expected UTF-8"),
    "zip": (b"PK\x03\x04abcd", ROLES, "expected text, gzip or parquet; got a zip archive"),
    "half a parquet": (b"PAR1xxxxxxxxPAR1", ROLES, "expected a sound parquet file"),
}

# name: (text, arguments, line, what the message must say)
ONE_ROW = {
    "time": (
        HEAD + ROW * 3 + "1,2,x,1\n" + ROW,
        ROLES,
        5,
        "column 't': expected unix time in seconds.*; got 'x'",
    ),
    "no time": (HEAD + ROW * 3 + "1,2,,1\n", ROLES, 5, "column 't': .*got nothing"),
    "NaN time": (HEAD + ROW * 3 + "1,2,nan,1\n", ROLES, 5, "column 't': .*got 'nan'"),
    "infinite time": (HEAD + ROW * 3 + "1,2,inf,1\n", ROLES, 5, "column 't': .*got 'inf'"),
    "far time": (HEAD + ROW * 3 + "1,2,1511848894123,1\n", ROLES, 5, "before the year 5138"),
    "date": (
        HEAD + "1,2,2014-12-06 02,1\n1,2,2014-13-06 02,1\n",
        ROLES,
        3,
        "column 't': expected an ISO date.*YYYY-MM-DD HH; got '2014-13-06 02'",
    ),
    "negative weight": (
        HEAD + ROW + "1,2,3,-1\n",
        ROLES,
        3,
        "column 'w': expected a finite number >= 0; got '-1'",
    ),
    "NaN weight": (HEAD + ROW + "1,2,3,NaN\n", ROLES, 3, "column 'w': .*got 'NaN'"),
    "infinite weight": (HEAD + ROW + "1,2,3,inf\n", ROLES, 3, "column 'w': .*got 'inf'"),
    "no user": (
        HEAD + ROW + ",2,3,1\n" + ROW,
        ROLES,
        3,
        "column 'u': expected an id, none missing; got nothing",
    ),
    "no item": (HEAD + ROW + "1,,3,1\n" + ROW, ROLES, 3, "column 'i': .*none missing; got nothing"),
    "short row": (
        HEAD + ROW * 3 + "1,2,3\n" + ROW,
        ROLES,
        5,
        r"expected 4 fields separated by ','; got 3 \(ragged row\)",
    ),
    "long row": (HEAD + ROW * 3 + "1,2,3,4,5\n" + ROW, ROLES, 5, "expected 4 fields.*got 5"),
    "last row short": (HEAD + ROW * 3 + "1,2", ROLES, 5, "expected 4 fields.*got 2"),
    "short row among unread columns": (
        "u,i,a,b\n1,2,3,4\n1,2,3\n",
        {"user": "u", "item": "i"},
        3,
        "expected 4 fields.*got 3",
    ),
    "short .dat row": (
        "1::2::3::4\n1::2::3\n",
        {"preset": "movietweetings"},
        2,
        "expected 4 fields separated by '::'; got 3",
    ),
    "id that is no number": (
        "1::2::3::4\n1::tt2::3::4\n",
        {"preset": "movietweetings"},
        2,
        "column 'item': expected a whole number.*got 'tt2'",
    ),
    "id with a fraction": (
        "1::2::3::4\n1::5.7::3::4\n",
        {"preset": "movietweetings"},
        2,
        "column 'item': .*got '5.7'",
    ),
    "behavior": (
        "1,2,3,pv,4\n1,2,3,look,4\n",
        {"preset": "taobao-userbehavior"},
        2,
        "column 'behavior': expected one of 'pv', 'fav', 'cart', 'buy'; got 'look'",
    ),
    "rating": (
        "1,2,3\n1,2,good\n",
        {"preset": "coat", "min_rating": 2},
        2,
        "column 'rating': expected a finite number; got 'good'",
    ),
    "user without items": (
        "1 2 3\n4\n5 6\n",
        {"preset": "sequence"},
        2,
        "a user and at least one item; got '4'",
    ),
    "empty sequence": ("1 2 3\n\n5 6\n", {"preset": "sequence"}, 2, "got an empty line"),
    "empty session": ("1 2 3\n\n5 6\n", {"preset": "sessions"}, 2, "got an empty line"),
    "open quote": (HEAD + ROW + '"a,b,3,1\n', ROLES, 3, "a quote that is not closed"),
    "row after a quoted line break": (
        HEAD + '"a\nb",2,3,1\n1,2,x,1\n1,2,3,1\n',
        ROLES,
        4,
        "column 't': .*got 'x'",
    ),
}


def put(tmp_path, raw):
    path = tmp_path / "a.csv"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


@pytest.mark.parametrize("mode", ["raise", "skip"])
@pytest.mark.parametrize("name", WHOLE_FILE)
def test_a_bad_file_is_named(name, mode, tmp_path):
    raw, how, says = WHOLE_FILE[name]
    path = put(tmp_path, raw)
    with pytest.raises(ValueError) as error:
        read_log(path, on_bad_row=mode, **how)
    assert re.search(says, str(error.value)), error.value
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ONE_ROW)
def test_a_bad_row_is_named(name, tmp_path):
    text, how, line, says = ONE_ROW[name]
    path = put(tmp_path, text)
    with pytest.raises(ValueError) as error:
        read_log(path, **how)
    assert f"{path}, line {line}" in str(error.value), error.value
    assert re.search(says, str(error.value)), error.value


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ONE_ROW)
def test_a_bad_row_can_be_skipped_and_is_kept_beside_the_log(name, packed, tmp_path):
    text, how, line, says = ONE_ROW[name]
    path = put(tmp_path, gzip.compress(text.encode()) if packed else text)
    log = read_log(path, on_bad_row="skip", **how)
    assert log.facts["rows_rejected"] == 1
    log.save(tmp_path / "saved")
    with (tmp_path / "saved" / "rejected.csv").open(newline="") as file:
        head, row = csv.reader(file)
    assert head == ["file", "line", "reason", "text"]
    assert row[:2] == [str(path), str(line)]
    assert re.search(says, row[2]), row
    assert Interactions.load(tmp_path / "saved").rejected == log.rejected
    if '\n"' not in text and "preset" not in how:
        good = [at for at in range(2, len(text.splitlines()) + 1) if at != line]
        assert log.num_events == log.facts["rows_read"] == log.facts["records"] - 1
        assert '"' in text or log.num_events == len(good)
        assert sorted(log.row.tolist()) == list(range(log.num_events))


def test_many_faults_in_two_files_each_keep_their_line(tmp_path):
    """Ragged, empty and unreadable rows together: line numbers must not slip."""
    rng = np.random.default_rng(5)
    faults = ["1,2,3", "1,2,3,4,5", ",", "x,y,z,w", "1,2,zz,1", ",2,3,1", "1,2,3,-4"]
    want = []
    for name in ("a.csv", "b.csv"):
        lines = ["u,i,t,w"]
        for _ in range(500):
            if rng.random() < 0.3:
                lines.append(faults[rng.integers(len(faults))])
                want.append((str(tmp_path / name), len(lines), lines[-1]))
            else:
                lines.append("1,2,3,1")
        lines.append("1,2,3,1")
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    log = read_log(str(tmp_path / "*.csv"), on_bad_row="skip", **ROLES)
    got = list(zip(log.rejected.file, log.rejected.line, log.rejected.text))
    assert got == want
    assert log.num_events == 1002 - len(want)
    assert log.facts["records"] == 1002
    assert log.facts["rows_read"] == 1002 - len(want)


def test_the_first_bad_line_is_the_one_named(tmp_path):
    path = put(tmp_path, HEAD + ROW + "1,2,x,1\n" + "1,2\n" + ROW)
    with pytest.raises(ValueError, match="line 3, column 't'"):
        read_log(path, **ROLES)
    path = put(tmp_path, HEAD + ROW + "1,2\n" + "1,2,x,1\n" + ROW)
    with pytest.raises(ValueError, match="line 3: expected 4 fields"):
        read_log(path, **ROLES)


def test_nothing_but_bad_rows(tmp_path):
    path = put(tmp_path, HEAD + "1,2,3,-1\n")
    with pytest.raises(ValueError, match="every row was rejected"):
        read_log(path, on_bad_row="skip", **ROLES)


@pytest.mark.parametrize("source", ["nowhere.csv", "nowhere-*.csv", ["nowhere.csv"]])
def test_missing_files(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"source: expected a .*nowhere"):
        read_log(source, user="u", item="i")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"preset": "netflix"}, ValueError, "preset: expected one of 'alibaba-mobile', .*'netflix'"),
        ({}, ValueError, "expected a preset .*none of them"),
        ({"user": "u"}, ValueError, "expected a preset .*or user=… and item=…"),
        ({"user": "u", "item": 1}, ValueError, "all names or all positions"),
        ({**ROLES, "keep_behavior": "buy"}, ValueError, "keep_behavior: .*behavior column"),
        ({**ROLES, "min_rating": 3}, ValueError, "min_rating: .*rating column"),
        (
            {"preset": "taobao-userbehavior", "keep_behavior": "bought"},
            ValueError,
            "keep_behavior: expected one of 'view'",
        ),
        ({"preset": "sequence", "user": "u"}, ValueError, "columns: expected none with the preset"),
        ({**ROLES, "memory_limit": "2 apples"}, ValueError, "memory_limit: expected a size"),
        ({**ROLES, "on_bad_row": "ignore"}, ValueError, "on_bad_row: expected one of"),
        ({**ROLES, "min_user_events": 0}, ValueError, "min_user_events: .*>= 1"),
        ({**ROLES, "threads": 0}, ValueError, "threads: .*>= 1"),
        ({**ROLES, "temp_folder": "/nowhere"}, ValueError, "temp_folder: expected an existing"),
        ({**ROLES, "separator": ""}, ValueError, "separator: expected one to four"),
        ({"columns": {"user": "u"}}, TypeError, r"columns: expected fastpop\.data\.Columns"),
        ({**ROLES, "min_item_events": 99}, ValueError, "a core with events left"),
    ],
)
def test_bad_arguments(arguments, error, says, tmp_path):
    path = put(tmp_path, HEAD + ROW)
    with pytest.raises(error, match=says):
        read_log(path, **arguments)


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ({"u": [1, 2], "i": [3, None]}, ValueError, "arrays, row 2, column 'i': .*none missing"),
        ({"u": [1, 2], "i": [3.0, np.nan]}, ValueError, "arrays, row 2, column 'i': .*none missing"),
        ({"u": [1, 2], "i": [3.0, 3.5]}, ValueError, "arrays, row 2, column 'i': .*got 3.5"),
        ({"u": [1, 2], "i": [3]}, ValueError, "arrays: expected columns of one length"),
        ({"u": [], "i": []}, ValueError, "arrays: expected rows"),
        ({"u": [1, 2]}, ValueError, "arrays, column 'i': expected a column of that name"),
        (7, TypeError, "source: expected a path"),
        ([], ValueError, "source: expected at least one file"),
    ],
)
def test_bad_frames(source, error, says):
    with pytest.raises(error, match=says):
        read_log(source, user="u", item="i")


@pytest.mark.parametrize("form", ["dict", "pandas", "polars", "arrow"])
def test_rows_of_frames_can_be_skipped(form):
    rng = np.random.default_rng(1)
    good = rng.random(5000) < 0.9
    data = {"u": np.arange(5000), "i": np.arange(5000) % 7, "w": np.where(good, 1.0, -2.0)}
    source = {"dict": dict, "pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}
    log = read_log(source[form](data), user="u", item="i", weight="w", on_bad_row="skip")
    assert log.num_events == good.sum()
    assert [line - 1 for line in log.rejected.line] == np.flatnonzero(~good).tolist()
    first = int(np.flatnonzero(~good)[0])
    assert log.rejected.text[0] == f"u={first}, i={first % 7}, w=-2.0"
    assert log.rejected.reason[0].endswith("expected a finite number >= 0; got -2.0")


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_bad_weights_in_frames(weight):
    with pytest.raises(ValueError, match="row 2, column 'w': expected a finite number >= 0"):
        read_log({"u": [1, 2], "i": [3, 4], "w": [1.0, weight]}, user="u", item="i", weight="w")


def test_a_folder_is_not_a_log(tmp_path):
    with pytest.raises(ValueError, match=r"Interactions\.open"):
        read_log(tmp_path, user="u", item="i")


@pytest.mark.parametrize(
    "kwargs",
    [{"user": None, "item": "i"}, {"user": -1, "item": 0}, {"user": "u", "item": "i", "time_unit": "h"}],
)
def test_bad_columns(kwargs):
    with pytest.raises(ValueError, match="columns\\."):
        Columns(**kwargs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2\t3\n1 2 3\n", "line 2: expected `item item …<TAB>target`; got '1 2 3'"),
        ("1\t2\t3\n", "line 1: expected"),
        ("\t3\n", "line 1: expected"),
        ("1 2\t3\n\n1\t2\n", "line 2: expected"),
        ("1 9\t3\n", "line 1: expected items of the log.*9"),
        ("1 x\t3\n", "line 1: expected items of the log.*'x'"),
    ],
)
def test_bad_case_files(text, says, tmp_path):
    log = Interactions.from_arrays([1, 1, 1], [1, 2, 3])
    with pytest.raises(ValueError, match=says):
        read_cases(put(tmp_path, text), log, unknown="raise")


def test_unknown_items_of_cases_are_counted(tmp_path):
    log = Interactions.from_arrays([1, 1, 1], [1, 2, 3])
    cases = read_cases(put(tmp_path, "1 9 2\t3\n9\t1\n1\t9\n2\t1 9 3\n"), log)
    assert cases.num_cases == 2
    assert [cases.history(c).tolist() for c in (0, 1)] == [[0, 1], [1]]
    assert [cases.targets(c).tolist() for c in (0, 1)] == [[2], [0, 2]]
    assert cases.facts == {
        "cases_read": 4,
        "prefix_items_unknown": 2,
        "targets_unknown": 2,
        "cases_dropped": 2,
    }


def test_positions_on_a_file_with_a_header_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,2,1500000000\n3,4,1500000001\n")
    with pytest.raises(ValueError, match=r"line 1: expected whole numbers.*then give the columns by name"):
        read_log(path, user=0, item=1)
    path.write_text("ana,2,1500000000\n3,4,1500000001\nbob,4,1500000001\n")
    assert read_log(path, user=0, item=1).num_events == 3


def test_seconds_among_milliseconds_are_named(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,t\n1,2,1380000000000\n1,3,1380000001\n1,4,1380000002000\n")
    with pytest.raises(ValueError, match=r"line 3.*milliseconds, after 1973"):
        read_log(path, user="u", item="i", time="t")


@pytest.mark.parametrize("time", [[1e300, 1.0], [np.uint64(2**64 - 1), np.uint64(1)]])
def test_times_beyond_any_clock_are_refused(time):
    with pytest.raises(ValueError, match="time: expected seconds before the year 5138"):
        Interactions.from_arrays([1, 2], [3, 4], np.array(time))
