"""The frozen log: sorted, dense, read-only, and the same after a trip to disk."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop.data import Interactions, columns

EVENTS = st.lists(
    st.tuples(st.integers(-5, 5), st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=60
)


@settings(deadline=None)
@given(EVENTS)
def test_order_is_user_time_row_and_ids_are_in_order(events):
    user, item, time = (list(column) for column in zip(*events))
    log = Interactions.from_arrays(user, item, time)
    want = sorted(range(len(events)), key=lambda r: (user[r], time[r], r))
    assert log.row.tolist() == want
    assert log.user_ids.tolist() == sorted(set(user))
    assert log.item_ids.tolist() == sorted(set(item))
    assert log.decode_users(log.user).tolist() == [user[r] for r in want]
    assert log.decode_items(log.item).tolist() == [item[r] for r in want]
    for dense in range(log.num_users):
        mine = [item[r] for r in want if user[r] == log.user_ids[dense]]
        assert log.decode_items(log.history(dense)).tolist() == mine
    assert log.item_counts().tolist() == [item.count(i) for i in sorted(set(item))]


@settings(deadline=None)
@given(EVENTS, st.integers(1, 4), st.integers(1, 4))
def test_k_core_against_a_plain_loop(events, min_user, min_item):
    left = list(events)
    while True:
        users, items = [e[0] for e in left], [e[1] for e in left]
        fewer = [e for e in left if users.count(e[0]) >= min_user and items.count(e[1]) >= min_item]
        if len(fewer) == len(left):
            break
        left = fewer
    log = Interactions.from_arrays(*map(list, zip(*events)))
    if not left:
        with pytest.raises(ValueError, match="a core with events left"):
            log.k_core(min_user, min_item)
        return
    core = log.k_core(min_user, min_item)
    got = zip(
        core.decode_users(core.user).tolist(), core.decode_items(core.item).tolist(), core.time.tolist()
    )
    assert sorted(got) == sorted(left)
    assert core.num_users == len({e[0] for e in left})
    assert core.facts["k_core"]["dropped_events"] == len(events) - len(left)


def test_order_without_times_is_the_order_of_rows():
    log = Interactions.from_arrays(["b", "a", "b"], [3, 2, 1])
    assert log.time is None
    assert log.has_order
    assert log.history(1).tolist() == [2, 0]
    assert not Interactions.from_arrays([1], [1], ordered=False).has_order
    assert Interactions.from_arrays([1], [1], [5], ordered=False).has_order


def test_arrays_are_read_only():
    time = np.array([5, 4])
    log = Interactions.from_arrays([1, 1], [1, 2], time, [1.0, 2.0])
    for name in ("user", "item", "time", "weight", "row", "user_ids", "item_ids", "offsets"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(log, name)[0] = 0
    time[0] = 99  # the caller's own array stays the caller's
    assert log.time.tolist() == [4, 5]
    with pytest.raises(AttributeError):
        log.user = None


def test_weights_count():
    log = Interactions.from_arrays([1, 1, 2], [1, 2, 1], weight=[0.5, 2, 0.25])
    assert log.item_counts().tolist() == [0.75, 2.0]
    assert log.item_counts().dtype == np.float64
    assert log.user_counts().tolist() == [2, 1]


def test_counts_without_first_events(monkeypatch):
    """Exact whatever the weights, and whatever the pieces: users of none, one and several events."""
    log = Interactions.from_arrays(
        [0, 0, 0, 2, 3, 3],
        [1, 0, 1, 2, 2, 1],
        [0, 1, 2, 0, 0, 1],
        [0.1, 0.2, 0.3, 5, 7, 0.4],
        user_ids=np.arange(5),
        item_ids=np.arange(4),
    )
    for piece in (1, 2, 100):
        monkeypatch.setattr(columns, "PIECE", piece)
        assert log.item_counts(first_events=False).tolist() == [0.2, 0.3 + 0.4, 0, 0]
        plain = Interactions.from_arrays(log.user, log.item, user_ids=np.arange(5), item_ids=np.arange(4))
        assert plain.item_counts(first_events=False).tolist() == [1, 2, 0, 0]
    none = log.take(np.zeros(6, bool))
    assert none.item_counts(first_events=False).tolist() == [0, 0, 0, 0]


def test_real_times_order_and_then_round_down():
    log = Interactions.from_arrays([1, 1, 1], [1, 2, 3], [0.9, 0.1, -0.5])
    assert log.time.tolist() == [-1, 0, 0]
    assert log.item.tolist() == [2, 1, 0]


def test_given_catalogues_may_have_more_than_the_events():
    log = Interactions.from_arrays([1, 0], [2, 2], user_ids=["a", "b"], item_ids=[5, 6, 7, 8])
    assert (log.num_users, log.num_items) == (2, 4)
    assert log.item_counts().tolist() == [0, 0, 2, 0]
    assert log.history(1).tolist() == [2]


def test_take_keeps_catalogue_and_order():
    log = Interactions.from_arrays([1, 1, 2, 2], [4, 5, 6, 4], [3, 1, 2, 9])
    some = log.take([3, 0])
    assert some.num_items == 3
    assert some.user.tolist() == [0, 1]
    assert some.row.tolist() == [1, 3]
    assert log.take(np.array([True, False, False, True])).row.tolist() == [1, 3]
    assert log.take([]).num_events == 0
    assert log.take([0, 0]).num_events == 2
    with pytest.raises(ValueError, match="mask_or_index: expected shape"):
        log.take(np.array([True]))
    with pytest.raises(ValueError, match="mask_or_index: expected ids in"):
        log.take([4])
    with pytest.raises(TypeError, match="mask_or_index"):
        log.take([0.5])


@pytest.mark.parametrize("ids", [[3, 5, 9], ["b", "x", "ä"]])
def test_encode_and_decode(ids):
    log = Interactions.from_arrays([ids[2], ids[0], ids[1]], [ids[0]] * 3)
    assert log.decode_users(log.encode_users(ids)).tolist() == ids
    assert log.decode_users([[0, 1], [2, 2]]).tolist() == [ids[:2], [ids[2]] * 2]
    with pytest.raises(ValueError, match=r"users: expected ids of this log .* position 1"):
        log.encode_users([ids[0], 4 if ids[0] == 3 else "nobody"])
    with pytest.raises(ValueError, match="does not have"):
        log.encode_users([10**9] if ids[0] == 3 else ["zzz"])
    with pytest.raises(ValueError, match="which the log does not have"):
        log.encode_items(["3"] if ids[0] == 3 else [3])
    with pytest.raises(ValueError, match=r"index: expected ids in \[0, 3\)"):
        log.decode_users([3])
    assert log.encode_users([]).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (([1, 2], [1]), ValueError, r"item: expected as many entries as user \(2\); got 1"),
        (([1, 2], [1, None]), ValueError, "item: .*none missing; got None at position 1"),
        (([1, 2], [1, float("nan")]), ValueError, "item: .*none missing; got nan at position 1"),
        (([1, 2], np.array(["a", None], dtype=object)), ValueError, "item: .*none missing"),
        (([1, "a"], [1, 2]), TypeError, "user: expected ids of one kind"),
        (([1.5, 2.0], [1, 2]), TypeError, "user: expected ids that are whole numbers or strings"),
        (([True, False], [1, 2]), TypeError, "user: expected ids"),
        (([[1, 2]], [1, 2]), ValueError, "user: expected a 1-d array"),
        (([1, 2], [2**63, 1]), ValueError, r"item: expected ids below 2\*\*63"),
        (([1, 2], [1, 2], [1]), ValueError, r"time: expected shape \[2\]"),
        (([1, 2], [1, 2], [1, float("nan")]), ValueError, "time: expected finite numbers; got nan"),
        (
            ([1, 2], [1, 2], np.array(["2014", "NaT"], dtype="datetime64[s]")),
            ValueError,
            "time: expected no missing times; got NaT at position 1",
        ),
        (([1, 2], [1, 2], None, [1, -1]), ValueError, "weight: expected numbers >= 0; got -1.0 at"),
        (([1, 2], [1, 2], None, [1, float("nan")]), ValueError, "weight: expected finite"),
        (([1, 2], [1, 2], None, ["a", "b"]), TypeError, "weight: "),
    ],
)
def test_bad_arrays(arguments, error, says):
    with pytest.raises(error, match=says):
        Interactions.from_arrays(*arguments)


def test_bad_catalogues():
    with pytest.raises(ValueError, match=r"item_ids: expected ids in rising order.*5 after 6"):
        Interactions.from_arrays([1], [1], item_ids=[6, 5])
    with pytest.raises(ValueError, match=r"item: expected ids in \[0, 2\); got 2 at position 1"):
        Interactions.from_arrays([1, 1], [0, 2], item_ids=[5, 6])
    with pytest.raises(TypeError, match="item: expected dense indices"):
        Interactions.from_arrays([1], ["a"], item_ids=["a"])


@pytest.mark.parametrize("kind", ["int", "str"])
@pytest.mark.parametrize("extras", [True, False])
def test_save_and_load(kind, extras, tmp_path):
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 50, 300), rng.integers(0, 90, 300)
    if kind == "str":
        user, item = [f"ü'{u}" for u in user], [f"i{i}" for i in item]
    more = (rng.integers(0, 9, 300), rng.random(300)) if extras else ()
    log = Interactions.from_arrays(user, item, *more, ordered=False, facts={"n": np.int64(3)})
    assert log.save(tmp_path / "a" / "log") == tmp_path / "a" / "log"
    back = Interactions.load(tmp_path / "a" / "log")
    for name in ("user", "item", "time", "weight", "row", "user_ids", "item_ids", "offsets"):
        left, right = getattr(log, name), getattr(back, name)
        if left is None:
            assert right is None
            continue
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)
    assert back.facts == {"n": 3}
    assert back.has_order is log.has_order
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["log"]


def small() -> Interactions:
    return Interactions.from_arrays([1, 1, 2], [4, 5, 6], [3, 1, 2])


def test_save_replaces_a_saved_log_and_nothing_else(tmp_path):
    small().save(tmp_path / "log")
    small().take([0]).save(tmp_path / "log")
    assert Interactions.load(tmp_path / "log").num_events == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="holds something else"):
        small().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_failed_save_leaves_the_old_log(tmp_path, monkeypatch):
    small().save(tmp_path / "log")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        small().take([0]).save(tmp_path / "log")
    assert Interactions.load(tmp_path / "log").num_events == 3
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_facts_that_json_cannot_hold(tmp_path):
    log = Interactions.from_arrays([1], [1], facts={"x": object()})
    with pytest.raises(TypeError, match="facts: expected a dict that JSON can hold"):
        log.save(tmp_path / "log")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["user.npy", "item.npy", "time.npy", "row.npy", "offsets.npy", "user_ids.npy", "item_ids.npy"]
)
def test_damage_is_found(name, tmp_path):
    small().save(tmp_path / "log")
    path = tmp_path / "log" / name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"{name}: expected the file that was saved"):
        Interactions.load(tmp_path / "log")
    path.unlink()
    with pytest.raises(ValueError, match=f"expected the file {name}"):
        Interactions.load(tmp_path / "log")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "expected format"),
        ({"version": 99}, "expected version 2; got 99"),
        ({"num_events": 4}, "expected the card that was saved; got another"),
    ],
)
def test_a_foreign_card_is_found(change, says, tmp_path):
    small().save(tmp_path / "log")
    card = tmp_path / "log" / "log.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(ValueError, match=says):
        Interactions.load(tmp_path / "log")
    card.write_text("{")
    with pytest.raises(ValueError, match=r"log\.json: expected JSON"):
        Interactions.load(tmp_path / "log")


def test_no_saved_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a saved log"):
        Interactions.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"with log\.json"):
        Interactions.load(tmp_path)


def test_importing_the_room_imports_no_reader():
    import subprocess
    import sys

    code = (
        "import sys, fastpop.data as d; d.Interactions.from_arrays([1], [1]); "
        "d.split(d.bundled_log()); "
        "print([m for m in ('duckdb', 'pandas', 'polars', 'pyarrow', 'tqdm', 'torch') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
