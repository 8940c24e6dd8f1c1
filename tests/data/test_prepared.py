"""The prepared folder: the same log as in memory, whatever is asked of it, and sound or refused."""

import contextlib
import copy
import json
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_logs import ARRAYS, same, same_cases, small_log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_files import largest_file, names

import fastpop
from fastpop.data import Cases, Interactions, PreparedWriter, columns, event_halves, split
from fastpop.data.batches import EventBatches, SequenceBatches
from fastpop.data.own_test import split_with_test
from fastpop.data.text_ids import TextIds
from fastpop.evaluation import DotScores, baselines, evaluate

TEXT = st.text(st.characters(exclude_characters="\0"), max_size=6)
IDS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-5, 5))


@pytest.fixture
def tiny_pieces(monkeypatch):
    """Every pass in many pieces, every column of a derived log in a file."""
    monkeypatch.setattr(columns, "PIECE", 7)
    monkeypatch.setattr(columns, "ON_DISK", 1)


@st.composite
def logs(draw) -> Interactions:
    size = draw(st.integers(1, 60))
    kind = draw(st.sampled_from([IDS, TEXT]))
    users = draw(st.lists(kind, min_size=1, max_size=12, unique=True))
    items = draw(st.lists(draw(st.sampled_from([IDS, TEXT])), min_size=1, max_size=20, unique=True))
    pick = np.random.default_rng(draw(st.integers(0, 999)))
    some_time = draw(st.booleans())
    return Interactions.from_arrays(
        [users[n] for n in pick.integers(0, len(users), size)],
        [items[n] for n in pick.integers(0, len(items), size)],
        pick.integers(-(10**10), 10**10, size) if some_time else None,
        pick.integers(0, 5, size) / 2 if draw(st.booleans()) else None,
        ordered=draw(st.booleans()),
        facts={"n": [1, {"é": None}], "x": 0.5},
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(logs())
def test_saved_opened_and_in_memory_are_one_log(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("p") / "time=7" / "a[1]"
    assert log.save(folder) == folder
    opened, loaded = Interactions.open(folder), Interactions.load(folder)
    same(log, opened)
    same(log, loaded)
    same(log, Interactions.open(folder, verify=True))
    for name in ARRAYS:
        if getattr(log, name) is not None:
            assert getattr(loaded, name).dtype == getattr(log, name).dtype, name
    opened.save(folder)  # over the very files that are mapped
    same(log, opened)
    same(log, Interactions.load(folder))
    assert log.item_counts().tobytes() == opened.item_counts().tobytes()
    assert log.user_counts().tolist() == opened.user_counts().tolist()
    assert opened.encode_users(log.user_ids).tolist() == list(range(log.num_users))
    assert opened.decode_items(opened.item).tolist() == log.decode_items(log.item).tolist()
    for user in range(log.num_users):
        assert opened.history(user).dtype == np.int64
        assert opened.history(user).tolist() == log.history(user).tolist()


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_everything_behind_a_log_gives_the_same_bits(tmp_path, tiny_pieces, text, weighted):
    log = small_log(users=90, items=300, events=1500, weighted=weighted)
    if text:
        log = Interactions.from_arrays(
            [f"ü{u}" for u in log.user], [f"{i}" for i in log.item], log.time, log.weight
        )
    log.save(tmp_path / "p")
    opened = Interactions.open(tmp_path / "p")
    assert opened.user.dtype == np.uint8
    assert opened.item.dtype == (np.uint8 if log.num_items <= 256 else np.uint16)
    rules = ["leave-last-out", "global-time", "random-by-user", "none"]
    for rule, options in [
        *((r, {}) for r in rules),
        ("leave-last-n", {"n": 3}),
        ("random-by-user", {"n": 2, "seed": 5}),
        ("global-time", {"cut": (700, 1100)}),
        ("global-time", {"new_users": "keep"}),
    ]:
        a, b = split(log, rule, **options), split(opened, rule, **options)
        assert a.part.tolist() == b.part.tolist()
        assert a.facts == b.facts
        same(a.train, b.train)
        same(a.known, b.known)
        same_cases(a.valid, b.valid)
        same_cases(a.test, b.test)
        assert b.train.item.dtype == opened.item.dtype
        if b.test is not None:
            assert b.test.history_item.dtype == opened.item.dtype
    same(log.k_core(4, 3), opened.k_core(4, 3))
    for a, b in zip(event_halves(log, 3), event_halves(opened, 3)):
        same(a, b)
    mask = np.arange(log.num_events) % 3 == 0
    same(log.take(mask), opened.take(mask))
    same(log.take([5, 5, 1000]), opened.take([5, 5, 1000]))
    with_test = split_with_test(log.take(~mask), log.take(mask))
    for a, b in (
        (with_test, split_with_test(opened.take(~mask), opened.take(mask))),
        (with_test, split_with_test(opened.take(~mask), log.take(mask))),
    ):
        same_cases(a.test, b.test)
        assert a.facts == b.facts
        same(a.train, b.train)
    for a, b in (
        (EventBatches(log, 64, 1), EventBatches(opened, 64, 1)),
        (SequenceBatches(log, 7, 64, 1), SequenceBatches(opened, 7, 64, 1)),
    ):
        assert a.target_counts().tobytes() == b.target_counts().tobytes()
        for left, right in zip(a.epoch(2), b.epoch(2), strict=True):
            for name in ("user", "target", "history", "weight"):
                x, y = getattr(left, name), getattr(right, name)
                assert (x is None) == (y is None)
                if x is not None:
                    assert x.dtype == y.dtype
                    assert x.tobytes() == y.tobytes()
    a, b = split(log), split(opened)
    for known, cases in ((a.known, b.test), (b.known, a.test)):
        for make in (baselines.markov_scorer, baselines.ease_scorer):
            want, got = make(a.known, a.test), make(known, cases)
            assert want(slice(3, 20)).numpy().tobytes() == got(slice(3, 20)).numpy().tobytes()
    rng = np.random.default_rng(0)
    dots = DotScores(rng.normal(size=(a.test.num_cases, 3)), rng.normal(size=(log.num_items, 3)))
    for mask_seen in (True, False):
        want, got = (
            evaluate(dots, part.test, counts=part.train.item_counts(), mask_seen=mask_seen) for part in (a, b)
        )
        assert want.metrics == got.metrics
        assert want.cases_key == got.cases_key


@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_training_on_a_folder_is_training_on_the_log(tmp_path, one_thread, encoder):
    log = small_log(weighted=True)
    log.save(tmp_path / "p")
    quick = {"epochs": 2, "dim": 4, "num_negatives": 8, "progress": False, "encoder": encoder}
    want = fastpop.train(log, **quick)
    for given_log in (tmp_path / "p", str(tmp_path / "p"), Interactions.open(tmp_path / "p")):
        got = fastpop.train(given_log, out=tmp_path / "run", **quick)
        assert got.metrics == want.metrics
        assert got.audit(permutations=9).to_dict() == want.audit(permutations=9).to_dict()
        users = log.user_ids[:4]
        assert got.recommend(users, 3).item.tolist() == want.recommend(users, 3).item.tolist()
        back = fastpop.load(tmp_path / "run")
        assert back.metrics == want.metrics
        assert back.recommend(users, 3).item.tolist() == want.recommend(users, 3).item.tolist()
        shutil.rmtree(tmp_path / "run")
    with pytest.raises(TypeError, match="log: expected Interactions"):
        fastpop.train(3, **quick)
    (tmp_path / "log.csv").write_text("u,i\n1,2\n")
    for path in ("nowhere", "log.csv"):
        with pytest.raises(TypeError, match=r"the path of a prepared folder; got .*, which is no folder"):
            fastpop.train(tmp_path / path, **quick)
    with pytest.raises(ValueError, match=r"expected a saved log, with log\.json"):
        fastpop.train(tmp_path, **quick)


@pytest.mark.parametrize(
    ("size", "kind"), [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_the_narrowest_type_that_holds_the_ids(tmp_path, size, kind):
    log = Interactions.from_arrays([0, 1], [0, size - 1], user_ids=[0, 1], item_ids=np.arange(size))
    opened = Interactions.open(log.save(tmp_path / "p"))
    assert opened.item.dtype == kind
    assert opened.item.tolist() == [0, size - 1]
    assert opened.user.dtype == "uint8"
    assert columns.narrowest(2**32 + 1) == np.int64


def test_a_log_without_events_or_ids(tmp_path):
    log = Interactions.from_arrays([], [])
    same(log, Interactions.open(log.save(tmp_path / "p"), verify=True))
    log = Interactions.from_arrays([], [], user_ids=["a"], item_ids=["x", "y"])
    same(log, Interactions.load(log.save(tmp_path / "p")))


def test_half_surrogates_and_order_of_text_ids():
    words = sorted({"", "a", "ß", "\ud800x", "\U0001f600", "\uffff", "zz", *map(str, range(300))})
    data = b"".join(word.encode("utf-8", "surrogatepass") for word in words)
    ends = np.cumsum([0] + [len(word.encode("utf-8", "surrogatepass")) for word in words])
    ids, plain = TextIds(np.frombuffer(data, np.uint8), ends), np.array(words, dtype=object)
    assert ids.rises()
    for index in (
        0,
        -1,
        slice(2, 9),
        slice(None, None, -2),
        [3, 1],
        plain == "a",
        np.array([[1, 2], [0, 3]]),
    ):
        assert np.array_equal(np.asarray(ids[index]), np.asarray(plain[index]))
    few, many = ["a", "b", "", "~"], [*words, "b"] * 5
    for wanted in (few, many):
        assert np.searchsorted(ids, wanted).tolist() == np.searchsorted(plain, wanted).tolist()
    assert (ids == plain).all()
    assert list(ids) == words
    assert repr(ids) == "TextIds(['', '0', '1', ...], size=307)"
    assert pickle.loads(pickle.dumps(ids)).tolist() == words
    with pytest.raises(IndexError):
        ids[[307]]


def test_an_opened_log_can_be_copied_and_sent(tmp_path):
    log = small_log()
    opened = Interactions.open(log.save(tmp_path / "p"))
    for other in (pickle.loads(pickle.dumps(opened)), copy.deepcopy(opened), copy.copy(opened)):
        same(log, other)
        with pytest.raises(TypeError, match="read-only"):
            other.facts["x"] = 1
    with pytest.raises(ValueError, match="read-only"):
        opened.item[0] = 1
    assert repr(opened) == repr(log)


def test_facts_are_frozen_and_still_data(tmp_path):
    log = Interactions.from_arrays([1], [1], facts={"a": {"b": [1, {"c": 2}]}, "t": (1, [2])})
    for change in (
        lambda f: f["a"].update(x=1),
        lambda f: f["a"]["b"].append(1),
        lambda f: f["a"]["b"][1].pop("c"),
        lambda f: f.__setitem__("a", 1),
        lambda f: f.clear(),
        lambda f: f["t"][1].extend([3]),
        lambda f: f.__ior__({"a": 1}),
    ):
        with pytest.raises(TypeError, match="results are read-only"):
            change(log.facts)
    plain = {"a": {"b": [1, {"c": 2}]}, "t": (1, [2])}
    assert log.facts == plain
    assert json.loads(json.dumps(log.facts)) == json.loads(json.dumps(plain))
    assert pickle.loads(pickle.dumps(log.facts)) == plain
    assert copy.deepcopy(log.facts) == plain
    assert type(log.facts | {"z": 1}) is dict
    mine = dict(log.facts)
    mine["a"] = 0  # a copy is the caller's
    assert log.facts == plain


def test_splits_leave_the_callers_log_alone():
    log = small_log()
    before = json.dumps(log.facts)
    mask = np.arange(log.num_events) % 5 == 0
    for parts in (split_with_test(log, log.take(mask)), split(log), split_with_test(log, split(log).test)):
        assert parts.known.facts["split"]["rule"] in ("own-test", "leave-last-out")
        with pytest.raises(TypeError, match="read-only"):
            parts.facts["rule"] = "x"
    event_halves(log)
    log.k_core(2, 2)
    assert json.dumps(log.facts) == before


@pytest.mark.parametrize("kind", [int, str])
def test_any_changed_byte_is_found(tmp_path, kind):
    log = small_log(weighted=True)
    log = Interactions.from_arrays(list(map(kind, log.user)), list(map(kind, log.item)), log.time, log.weight)
    folder = log.save(tmp_path / "p")
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in [0, len(whole) - 1, *rng.sample(range(len(whole)), 5)]:
            raw = bytearray(whole)
            raw[at] ^= 1 << rng.randrange(8)
            path.write_bytes(raw)
            for read in (Interactions.load, lambda p: Interactions.open(p, verify=True)):
                with pytest.raises(ValueError, match=r"p(/|: )"):
                    read(folder)
            if path.name == "log.json":  # the card is checked whenever a log is opened
                with pytest.raises(ValueError, match=r"log\.json: expected"):
                    Interactions.open(folder)
        for cut in (b"", whole[:-1], whole + b"\0"):
            path.write_bytes(cut)
            with pytest.raises(ValueError, match=r"expected (the file that was saved|the card|JSON)"):
                Interactions.open(folder)
        path.unlink()
        with pytest.raises(ValueError, match=r"expected (the file|a saved log)"):
            Interactions.open(folder)
        path.write_bytes(whole)
    same(log, Interactions.load(folder))


def test_a_card_that_is_whole_but_lies_is_found(tmp_path):
    from fastpop.data.prepared import card_text

    folder = small_log().save(tmp_path / "p")
    card = json.loads((folder / "log.json").read_text())
    card.pop("sha256")
    for change, says in [
        ({"num_events": 5}, r"user\.npy: expected a column of"),
        ({"num_items": 2}, r"item_ids\.npy: expected a column"),
        ({"files": {**card["files"], "../x": {"bytes": 1, "sha256": ""}}}, r"the file \.\./x"),
        ({"has_weight": True}, r"weight\.npy: expected a column"),
        ({"user_ids": "str"}, r"user_ids\.utf8\.npy: expected a column"),
    ]:
        (folder / "log.json").write_text(card_text(card | change))
        with pytest.raises(ValueError, match=says):
            Interactions.open(folder)


PATHS = [
    "run[1]",
    "weight=2",
    "time=7",
    "user=3",
    "item=5",
    "id=4",
    "a*b",
    "q?",
    "{1,2}",
    "é",
    "it's",
    os.fsdecode(b"not-utf8-\xff"),
    "-rf",
    "back\\slash",
    "new\nline",
    " space ",
    "%20",
    "~x",
]


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_a_name(tmp_path, name):
    other, log = small_log(seed=1), small_log()
    other.save(tmp_path / "run1")
    other.save(tmp_path / "ab")
    folder = tmp_path / name / name
    log.save(folder)
    same(log, Interactions.load(folder))
    same(log, Interactions.open(folder))
    cases = split(log).test
    cases.save(folder.parent / "cases")
    same_cases(Cases.load(folder.parent / "cases"), cases)


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    log = small_log()
    assert log.save("~/s") == tmp_path / "home" / "s"
    same(log, Interactions.open("~/s"))
    same(log, Interactions.load(Path("~/s")))
    split(log).test.save("~/cases")
    Cases.load("~/cases")
    assert names(tmp_path) == ["home"]


def write_parquet_log(log: Interactions, folder: Path) -> None:
    """What version 1 wrote."""
    import hashlib

    import duckdb

    from fastpop.data.paths import engine_name

    folder.mkdir(parents=True)
    events = {
        name: np.asarray(getattr(log, name), dtype=np.float64 if name == "weight" else np.int64)
        for name in ("user", "item", "row", "time", "weight")
        if getattr(log, name) is not None
    }
    tables = {"events": events, "user_ids": {"id": log.user_ids}, "item_ids": {"id": log.item_ids}}
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register("t", {key: np.asarray(value) for key, value in table.items()})
            connection.execute(
                f"COPY (SELECT * FROM t) TO '{engine_name(folder)}/{name}.parquet' (FORMAT parquet)"
            )
            connection.unregister("t")
    kind = {
        side: "str" if ids.dtype.kind == "O" else "int64"
        for side, ids in (("user_ids", log.user_ids), ("item_ids", log.item_ids))
    }
    (folder / "log.json").write_text(
        json.dumps(
            {
                "format": "fastpop interactions",
                "version": 1,
                "num_events": log.num_events,
                "num_users": log.num_users,
                "num_items": log.num_items,
                "has_order": log.has_order,
                "has_time": log.time is not None,
                "has_weight": log.weight is not None,
                **kind,
                "sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()},
                "facts": log.facts,
            }
        )
    )


@pytest.mark.parametrize("name", ["plain", "weight=2", "time=7", "run[1]", os.fsdecode(b"\xff")])
@pytest.mark.parametrize("kind", [int, str])
def test_logs_saved_as_parquet_still_load(tmp_path, name, kind):
    log = small_log(weighted=True)
    log = Interactions.from_arrays(list(map(kind, log.user)), list(map(kind, log.item)), log.time, log.weight)
    write_parquet_log(small_log(seed=1), tmp_path / "run1" / "log")
    folder = tmp_path / name / "log"
    write_parquet_log(log, folder)
    same(log, Interactions.load(folder))
    same(log, Interactions.open(folder))
    raw = bytearray((folder / "events.parquet").read_bytes())
    raw[40] ^= 1
    (folder / "events.parquet").write_bytes(raw)
    with pytest.raises(ValueError, match=r"events\.parquet: expected the file that was saved"):
        Interactions.load(folder)
    log.save(folder)  # an older log is replaced by one of today
    same(log, Interactions.open(folder))
    assert "events.parquet" not in names(folder)


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    log = small_log(events=5000)
    with largest_file(3000), pytest.raises(OSError, match=f"got {tmp_path / 'p'}: File too large"):
        log.save(tmp_path / "p")
    assert names(tmp_path) == []
    log.take([0]).save(tmp_path / "p")
    with largest_file(3000), pytest.raises(OSError, match="File too large"):
        log.save(tmp_path / "p")
    assert Interactions.load(tmp_path / "p").num_events == 1
    with largest_file(3000), pytest.raises(OSError, match=f"got {tmp_path / 'c'}: File too large"):
        split(log).test.save(tmp_path / "c")
    assert names(tmp_path) == ["p"]


def test_no_room_for_a_derived_log_is_said_before_it_is_written(tmp_path, tiny_pieces, monkeypatch):
    opened = Interactions.open(small_log(events=5000).save(tmp_path / "p"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    says = rf"expected room for [\d,]+ bytes of temporary files; got {tmp_path}: File too large"
    with largest_file(3000), pytest.raises(OSError, match=says):
        split(opened)
    assert names(tmp_path) == ["p"]


def test_the_writer_refuses_what_is_no_log(tmp_path):
    @contextlib.contextmanager
    def ready(**options):
        folder = tmp_path / str(random.random())
        folder.mkdir()
        with PreparedWriter(folder, time=True, weight=True, **options) as out:
            out.add_ids("user", np.array([5, 7]))
            out.add_ids("item", np.array(["a", "b"], dtype=object))
            yield out

    good = {"user": [0, 1], "item": [1, 0], "row": [3, 4], "time": [9, 8], "weight": [1.0, 0.0]}
    for change, says in [
        ({"user": [1, 0]}, "user: expected users in order"),
        ({"user": [0, 2]}, r"user: expected ids in \[0, 2\)"),
        ({"item": [0, -1]}, r"item: expected ids in \[0, 2\)"),
        ({"user": [0, 0]}, "time: expected each user's events in order"),
        ({"row": [3, 9]}, r"row: expected rows in \[0, 9\)"),
        ({"weight": [1.0, np.nan]}, "weight: expected finite numbers"),
        ({"time": [1]}, "time: expected 2 entries"),
    ]:
        with ready(row_stop=9) as out, pytest.raises(ValueError, match=says):
            out.add(**{name: np.array(value) for name, value in (good | change).items()})
    with ready() as out:
        out.add(**{name: np.array(value) for name, value in good.items()})
        for change, says in [
            ({"user": [0, 1]}, "users in order"),
            ({"time": [7, 7], "user": [1, 1]}, "order of time"),
        ]:
            with pytest.raises(ValueError, match=says):
                out.add(**{name: np.array(value) for name, value in (good | change).items()})
        with pytest.raises(ValueError, match="every id before the first event"):
            out.add_ids("user", np.array([9]))
    with ready() as out, pytest.raises(ValueError, match="user_ids: expected ids in rising order"):
        out.add_ids("user", np.array([7]))
    with ready() as out, pytest.raises(TypeError, match=r"user_ids: expected ids of one kind \(int64\)"):
        out.add_ids("user", np.array(["x"], dtype=object))


def test_the_writer_takes_slices_of_any_size(tmp_path):
    log = small_log(weighted=True)
    log = Interactions.from_arrays(log.user, [f"i{i}" for i in log.item], log.time, log.weight)
    log.save(tmp_path / "whole")
    (tmp_path / "sliced").mkdir()
    with PreparedWriter(tmp_path / "sliced", time=True, weight=True) as out:
        for n in range(log.num_users):
            out.add_ids("user", log.user_ids[n : n + 1])
        for at in columns.pieces(log.num_items, 7):
            out.add_ids("item", log.item_ids[at])
        for at in columns.pieces(log.num_events, 13):
            out.add(log.user[at], log.item[at], log.row[at], time=log.time[at], weight=log.weight[at])
            out.add(log.user[:0], log.item[:0], log.row[:0], time=log.time[:0], weight=log.weight[:0])
        out.finish(facts=log.facts)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "sliced" / path.name).read_bytes(), path.name
