"""Any file or frame gives the log that plain arrays give."""

import csv
import gzip
import io
import re
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpop.data import PRESETS, Columns, Interactions, read_log, workbench

pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")
pl = pytest.importorskip("polars", reason="polars, whose frames are read, is not installed")

FIELDS = ("user", "item", "time", "weight", "row", "user_ids", "item_ids", "offsets")


def same(a: Interactions, b: Interactions) -> None:
    for name in FIELDS:
        left, right = getattr(a, name), getattr(b, name)
        if left is None or right is None:
            assert left is right, name
            continue
        np.testing.assert_array_equal(left, right, err_msg=name)
        assert left.dtype == right.dtype, name


def columns(kind: str, size: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    user = rng.integers(0, 40, size) * 13
    item = rng.integers(0, 60, size) + 10
    if kind == "str":
        user = np.array([f"u{u}" for u in user], dtype=object)
        item = np.array([f"Ä{i}" for i in item], dtype=object)
    # few distinct times: most order comes from the tie rule
    return {
        "who": user,
        "what": item,
        "when": rng.integers(0, 9, size) + 1_500_000_000,
        "w": rng.integers(0, 5, size) / 4,
    }


ROLES = {"user": "who", "item": "what", "time": "when", "weight": "w"}


def write_text(path, data, separator=",", end="\n", header=True):
    out = io.StringIO()
    if header:
        out.write(separator.join(data) + end)
    for row in zip(*data.values()):
        out.write(separator.join(map(str, row)) + end)
    raw = out.getvalue().encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def as_source(form, data, folder):
    table = pa.table({name: pa.array(list(values)) for name, values in data.items()})
    match form:
        case "dict":
            return data
        case "pandas":
            return pd.DataFrame(data)
        case "polars":
            return pl.DataFrame({k: v.tolist() for k, v in data.items()})
        case "lazy":
            return pl.LazyFrame({k: v.tolist() for k, v in data.items()})
        case "arrow":
            return table
        case "parquet":
            pq.write_table(table, folder / "log.parquet")
            return folder / "log.parquet"
        case "csv":
            return write_text(folder / "log.csv", data)
        case "crlf":
            return write_text(folder / "log.csv", data, end="\r\n")
        case "csv.gz":
            return write_text(folder / "log.csv.gz", data)
        case "tsv":
            return write_text(folder / "log.tsv", data, "\t")
        case "dat":
            return write_text(folder / "log.dat", data, "::")
        case "glob":
            for at in range(4):
                part = {k: v[at * 100 : (at + 1) * 100] for k, v in data.items()}
                write_text(folder / f"part-{at}.csv", part)
            return str(folder / "part-*.csv")
        case "list":
            for at in range(4):
                part = {k: v[at * 100 : (at + 1) * 100] for k, v in data.items()}
                write_text(folder / f"part-{9 - at}.csv", part)
            return [folder / f"part-{9 - at}.csv" for at in range(4)]
    raise AssertionError(form)


FORMS = [
    "dict",
    "pandas",
    "polars",
    "lazy",
    "arrow",
    "parquet",
    "csv",
    "crlf",
    "csv.gz",
    "tsv",
    "dat",
    "glob",
    "list",
]


@pytest.mark.parametrize("kind", ["int", "str"])
@pytest.mark.parametrize("form", FORMS)
def test_every_source_gives_the_same_log(form, kind, tmp_path):
    data = columns(kind)
    log = read_log(as_source(form, data, tmp_path), **ROLES)
    same(log, Interactions.from_arrays(*data.values()))
    assert log.has_order


ID_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=6).filter(
    lambda text: text.strip(" ")
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(ID_TEXT, ID_TEXT, st.integers(0, 5)), min_size=1, max_size=30),
    form=st.sampled_from(["csv", "tsv"]),
)
def test_strange_ids_survive_quoting(rows, form, tmp_path):
    """Quotes, separators, spaces and any script inside ids, written by the standard library."""
    path = tmp_path / f"log.{form}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(
            file, delimiter="," if form == "csv" else "\t", lineterminator="\n", quoting=csv.QUOTE_ALL
        )
        writer.writerow(["u", "i", "t"])
        writer.writerows(rows)
    user, item, time = zip(*rows)
    log = read_log(path, user="u", item="i", time="t", id_type="text", null_values=())
    same(
        log, Interactions.from_arrays([u.strip(" ") for u in user], [i.strip(" ") for i in item], list(time))
    )


def test_whole_numbers_become_int64_and_leading_zeros_do_not(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("u,i\n7,1\n-3,2\n9223372036854775807,3\n")
    assert read_log(path, user="u", item="i").user_ids.tolist() == [-3, 7, 2**63 - 1]
    path.write_text("u,i\n007,1\n7,2\n")
    assert read_log(path, user="u", item="i").user_ids.tolist() == ["007", "7"]
    path.write_text("u,i\n7,1\n9223372036854775808,2\n")
    assert read_log(path, user="u", item="i").user_ids.tolist() == ["7", "9223372036854775808"]


def test_text_after_the_sample_turns_the_column_to_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("u,i\n" + "1,2\n" * 3000 + "x,2\n")
    log = read_log(path, user="u", item="i")
    assert log.user_ids.tolist() == ["1", "x"]
    assert log.item_ids.tolist() == [2]
    assert log.num_events == 3001


def test_imdb_ids_with_leading_zeros_are_numbers(tmp_path):
    path = tmp_path / "ratings.dat"
    path.write_text("1::0104257::8::1364690142\n2::104257::0::1364690143\n1::000::5::7\n")
    log = read_log(path, preset="movietweetings")
    assert log.item_ids.tolist() == [0, 104257]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1511848894", 1511848894),
        ("1511848894123", 1511848894),
        ("1511848894123456", 1511848894),
        ("1511848894.75", 1511848894),
        ("-5", -5),
        ("-0.5", -1),
        ("2014-12-06 02", 1417831200),
        ("2014-12-06", 1417824000),
        ("2014-12-06T02:03:04Z", 1417831384),
        ("2014-12-06T02:03:04+02:00", 1417824184),
        ("2014-12-06 02:03:04.9", 1417831384),
        ("2014-12-06 02:03", 1417831380),
    ],
)
def test_times(text, seconds, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"u,i,t\n1,2,{text}\n")
    assert read_log(path, user="u", item="i", time="t").time.tolist() == [seconds]


def test_milliseconds_order_events_within_a_second(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("u,i,t\n1,9,1511848894900\n1,8,1511848894100\n")
    log = read_log(path, user="u", item="i", time="t")
    assert log.decode_items(log.item).tolist() == [8, 9]


def test_compact_dates_by_their_format(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("u,i,t\n1,2,20171124\n")
    log = read_log(path, columns=Columns("u", "i", time="t", time_format="%Y%m%d"))
    assert log.time.tolist() == [1511481600]


@pytest.mark.parametrize("dtype", ["datetime64[s]", "datetime64[D]", "datetime64[ns]"])
def test_frame_dates(dtype):
    when = np.array(["2014-12-06", "2014-12-05"], dtype=dtype)
    for source in (
        {"u": [1, 1], "i": [1, 2], "t": when},
        pd.DataFrame({"u": [1, 1], "i": [1, 2], "t": pd.to_datetime(when, utc=True)}),
    ):
        log = read_log(source, user="u", item="i", time="t")
        assert log.time.tolist() == [1417737600, 1417824000]
        assert log.decode_items(log.item).tolist() == [2, 1]


def test_presets_without_a_real_log(tmp_path):
    path = tmp_path / "u.data"
    path.write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    assert read_log(path, preset="movielens-100k").user_ids.tolist() == [186, 196]
    path = tmp_path / "ratings.dat"
    path.write_text("1::1193::5::978300760\n1::661::3::978302109\n")
    log = read_log(path, preset="movielens-dat", min_rating=4)
    assert log.item_ids.tolist() == [1193]
    assert {
        "alibaba-mobile",
        "taobao-userbehavior",
        "movielens-100k",
        "movielens-csv",
        "movielens-dat",
        "movietweetings",
        "ciao",
        "sequence",
        "sessions",
    } <= PRESETS.keys()


def test_sequences_and_sessions(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("7 b a\n\t3  c   b \n7 d\n\n")
    log = read_log(path, preset="sequence")
    assert log.user_ids.tolist() == [3, 7]
    assert [log.decode_items(log.history(u)).tolist() for u in (0, 1)] == [["c", "b"], ["b", "a", "d"]]
    assert log.time is None
    assert log.has_order
    sessions = read_log([path, path], preset="sessions")
    assert sessions.num_users == 6
    assert sessions.decode_items(sessions.history(4)).tolist() == ["3", "c", "b"]


def test_a_very_long_sequence_is_whole(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("1 " + " ".join(str(i % 1000) for i in range(1_000_000)) + "\n2 5\n")
    log = read_log(path, preset="sequence")
    assert log.user_counts().tolist() == [1_000_000, 1]
    np.testing.assert_array_equal(log.item[:3000], np.arange(3000) % 1000)


def test_filters_are_counted(tmp_path):
    data = {
        "u": [1, 1, 2, 2],
        "i": [1, 2, 1, 2],
        "kind": ["view", "buy", "view", "buy"],
        "stars": [5, 1, 2, 2],
    }
    log = read_log(
        data, user="u", item="i", behavior="kind", rating="stars", keep_behavior="buy", min_rating=2
    )
    assert log.num_events == 1
    assert log.row.tolist() == [3]
    assert log.facts["behaviors"] == {"buy": 2, "view": 2}
    assert log.facts["dropped_by_behavior"] == 2
    assert log.facts["dropped_by_rating"] == 1  # of those that the first filter left


def test_tables_without_times_have_no_order_unless_told():
    data = {"u": [1, 1], "i": [1, 2]}
    assert not read_log(data, user="u", item="i").has_order
    assert read_log(data, user="u", item="i", ordered=True).has_order


def test_k_core_is_noted():
    data = columns("int")
    log = read_log(data, **ROLES, min_user_events=7, min_item_events=4)
    assert np.diff(log.offsets).min() >= 7
    assert np.bincount(log.item, minlength=log.num_items).min() >= 4
    assert 0 < log.facts["k_core"]["dropped_events"] == 400 - log.num_events
    assert log.facts["k_core"]["saw_test_events"] is True


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_and_memory_change_nothing(threads, tmp_path):
    """A table several times the cap's working set, sorted with spilling, tie rule intact."""
    rng = np.random.default_rng(3)
    size = 300_000
    data = {"u": rng.integers(0, 5000, size), "i": rng.integers(0, 900, size), "t": rng.integers(0, 20, size)}
    path = tmp_path / "big.csv"
    pd.DataFrame(data).to_csv(path, index=False)
    log = read_log(
        path, user="u", item="i", time="t", threads=threads, memory_limit="100MB", temp_folder=tmp_path
    )
    same(log, Interactions.from_arrays(*data.values()))
    assert [p.name for p in tmp_path.iterdir()] == ["big.csv"]  # nothing is left behind


def test_byte_order_marks_and_doubled_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffu,i\nO"Neil,1\n"a ""b"" c",1\n'.encode())
    assert read_log(path, user="u", item="i").user_ids.tolist() == ['O"Neil', 'a "b" c']
    path.write_bytes("\ufeff5,2\n1,2\n".encode())
    assert read_log(path, user=0, item=1).user_ids.tolist() == [1, 5]
    path.write_bytes("\ufeff5 2\n1 2\n".encode())
    assert read_log(path, preset="sequence").user_ids.tolist() == [1, 5]


def test_progress_is_shown_when_asked_or_when_it_lasts(tmp_path, capsys, monkeypatch):
    path = write_text(tmp_path / "log.csv", columns("int"))
    read_log(path, **ROLES, progress=False)
    assert capsys.readouterr().err == ""
    read_log(path, **ROLES)
    assert capsys.readouterr().err == ""  # over long before five seconds
    read_log(path, **ROLES, progress=True)
    assert {"read", "sort"} <= set(re.findall(r"\r(\w+) +\d+%", capsys.readouterr().err))
    monkeypatch.setattr(workbench, "SHOW_AFTER", 0.05)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with workbench.Workbench() as bench, bench.bar("check", 3, "B") as bar:
        for _ in range(3):
            time.sleep(0.12)  # longer than the wait, and than tqdm's time between two draws
            bar.update(1)
    assert "check" in capsys.readouterr().err


def test_too_small_a_cap_says_so():
    data = columns("int")
    with pytest.raises(MemoryError, match="memory_limit: expected enough"):
        read_log(data, **ROLES, memory_limit="1KB")


def test_a_missing_duckdb_is_one_clear_error(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match="reading frames and parquet needs the package 'duckdb'"):
        read_log({"u": [1], "i": [1]}, user="u", item="i")
    path = write_text(tmp_path / "log.csv", columns("str"))
    assert read_log(path, **ROLES).num_events == 400  # text needs none
