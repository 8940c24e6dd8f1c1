"""Every real log loads from its raw file, with exactly the rows it has."""

import gzip
from collections import Counter

import numpy as np
import pytest

from fastpop.data import Columns, Interactions, bundled_log, bundled_path, read_log, split, split_with_test

pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")

LOGS = {
    "tianchi-mobile-2k.csv.gz": ({"preset": "alibaba-mobile"}, 1_999, 34, 1_689, True),
    "taobao-userbehavior-10k.csv.gz": ({"preset": "taobao-userbehavior"}, 10_000, 114, 7_623, True),
    "movietweetings-100k.ratings.dat.gz": ({"preset": "movietweetings"}, 100_000, 16_554, 10_506, True),
    "ciao.ratings.csv.gz": ({"preset": "ciao"}, 284_086, 7_375, 105_114, True),
    "ml-latest-small-2016.ratings.csv.gz": ({"preset": "movielens-csv"}, 100_004, 671, 9_066, True),
    "amazon-beauty-5core.seq.txt.gz": ({"preset": "sequence"}, 198_502, 22_363, 12_101, True),
    "lastfm-s3rec.seq.txt.gz": ({"preset": "sequence"}, 52_551, 1_090, 3_646, True),
    "coat.biased.csv.gz": ({"columns": Columns(0, 1, rating=2)}, 6_960, 290, 300, False),
    "coat.random.csv.gz": ({"preset": "coat"}, 4_640, 290, 300, False),
    "steam200k.game_purchase.dat.gz": ({"user": "User_ID", "item": "Game_ID"}, 129_511, 12_393, 5_155, False),
    "nowplaying.train_sessions.txt.gz": ({"preset": "sessions"}, 953_381, 128_077, 60_416, True),
}


@pytest.mark.parametrize("name", LOGS)
def test_loads_with_its_counts(shared_data, name):
    how, events, users, items, ordered = LOGS[name]
    log = read_log(shared_data / name, **how)
    assert (log.num_events, log.num_users, log.num_items) == (events, users, items)
    assert log.has_order is ordered
    assert log.facts["rows_rejected"] == 0
    assert log.rejected is None
    assert log.item_counts().sum() == events
    assert log.user_ids.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "separator", "header", "at"),
    [
        ("ciao.ratings.csv.gz", ",", True, (0, 1, 5)),
        ("movietweetings-100k.ratings.dat.gz", "::", False, (0, 1, 3)),
        ("taobao-userbehavior-10k.csv.gz", ",", False, (0, 1, 4)),
    ],
)
def test_every_event_equals_a_plain_reading(shared_data, name, separator, header, at):
    """Against a parser of three lines: same events, same order, ties by row."""
    with gzip.open(shared_data / name, "rt") as file:
        rows = [line.rstrip("\n").split(separator) for line in file][header:]
    user, item, time = (np.array([int(row[i]) for row in rows]) for i in at)
    log = read_log(shared_data / name, **LOGS[name][0])
    order = sorted(range(len(rows)), key=lambda r: (user[r], time[r], r))
    np.testing.assert_array_equal(log.row, order)
    np.testing.assert_array_equal(log.decode_users(log.user), user[order])
    np.testing.assert_array_equal(log.decode_items(log.item), item[order])
    np.testing.assert_array_equal(log.time, time[order])


@pytest.mark.parametrize("name", ["amazon-beauty-5core.seq.txt.gz", "lastfm-s3rec.seq.txt.gz"])
def test_every_sequence_equals_its_line(shared_data, name):
    log = read_log(shared_data / name, preset="sequence")
    with gzip.open(shared_data / name, "rt") as file:
        for line in file:
            user, *items = map(int, line.split())
            dense = int(log.encode_users([user])[0])
            assert log.decode_items(log.history(dense)).tolist() == items


def test_alibaba_duplicates_hours_and_behaviors(shared_data):
    path = shared_data / "tianchi-mobile-2k.csv.gz"
    log = read_log(path, preset="alibaba-mobile")
    assert log.facts["behaviors"] == {"view": 1876, "fav": 18, "cart": 70, "buy": 35}
    with gzip.open(path, "rt", newline="") as file:
        rows = file.read().split("\r\n")[1:]
    assert len(rows) == 1_999
    assert len(set(rows)) == 1_895  # and all duplicates are in the log
    first, last = np.datetime64("2014-11-18", "s"), np.datetime64("2014-12-19", "s")
    assert log.time.min() >= first.astype(int)
    assert log.time.max() < last.astype(int)
    assert (log.time % 3600 == 0).all()
    bought = read_log(path, preset="alibaba-mobile", keep_behavior=("buy", "cart"))
    assert bought.num_events == 35 + 70
    assert bought.facts["dropped_by_behavior"] == 1876 + 18


def test_ciao_zero_ratings_stay_unless_filtered(shared_data):
    path = shared_data / "ciao.ratings.csv.gz"
    kept = read_log(path, preset="ciao", min_rating=1)
    assert kept.num_events == 284_086 - 34
    assert kept.facts["dropped_by_rating"] == 34


def test_taobao_rows_outside_the_window_load(shared_data):
    log = read_log(shared_data / "taobao-userbehavior-10k.csv.gz", preset="taobao-userbehavior")
    start = np.datetime64("2017-11-24T16:00", "s").astype(int)
    stop = np.datetime64("2017-12-03T16:00", "s").astype(int)
    assert ((log.time < start) | (log.time >= stop)).sum() == 4


def test_one_event_users_are_counted(shared_data):
    log = read_log(shared_data / "movietweetings-100k.ratings.dat.gz", preset="movietweetings")
    parts = split(log)
    assert parts.facts["users_with_one_event"] == 7_457
    assert parts.test.num_cases == 16_554 - 7_457


def test_coat_brings_its_own_test(shared_data):
    log = read_log(shared_data / "coat.biased.csv.gz", preset="coat")
    test = read_log(shared_data / "coat.random.csv.gz", preset="coat", min_rating=4)
    parts = split_with_test(log, test)
    assert parts.known.num_events == 6_960
    assert parts.facts["valid_rule"] == "random-by-user"
    wanted = Counter(zip(test.decode_users(test.user).tolist(), test.decode_items(test.item).tolist()))
    cases = parts.test
    case = np.repeat(cases.user, np.diff(cases.target_offsets))
    got = Counter(
        zip(parts.train.decode_users(case).tolist(), parts.train.decode_items(cases.target_item).tolist())
    )
    assert got == wanted


def test_nowplaying_prefixes(shared_data):
    log = read_log(shared_data / "nowplaying.train_sessions.txt.gz", preset="sessions")
    path = shared_data / "nowplaying.test_prefix_target.tsv.gz"
    parts = split_with_test(log, path, valid=None)
    assert parts.train.num_events == 953_381
    assert parts.test.num_cases == 89_824
    with gzip.open(path, "rt") as file:
        for case in range(1000):
            prefix, target = next(file).rstrip("\n").split("\t")
            assert log.decode_items(parts.test.history(case)).tolist() == [int(i) for i in prefix.split()]
            assert log.decode_items(parts.test.targets(case)).tolist() == [int(target)]


def test_bundled_log_is_the_raw_file(shared_data):
    assert bundled_path().read_bytes() == (shared_data / "movietweetings-100k.ratings.dat.gz").read_bytes()


def test_bundled_log_needs_numpy_only_and_equals_read_log():
    log, read = bundled_log(), read_log(bundled_path(), preset="movietweetings")
    assert (log.num_events, log.num_users, log.num_items) == (100_000, 16_554, 10_506)
    for name in ("user", "item", "time", "row", "user_ids", "item_ids", "offsets"):
        np.testing.assert_array_equal(getattr(log, name), getattr(read, name), err_msg=name)
    notice = bundled_path().with_name("movietweetings-100k.LICENSE.txt").read_text()
    assert "Copyright (c) 2013 Simon Dooms" in notice
    assert isinstance(log, Interactions)
