"""Splits: nothing of the test reaches what a model may know, and every event is somewhere."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop.data import Cases, Interactions, event_halves, read_cases, split, split_with_test

RULES = {
    "leave-last-out": {},
    "leave-last-n": {"n": 2},
    "global-time": {"fraction": 0.2},
    "random-by-user": {"fraction": 0.3, "seed": 4},
}
EVENTS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 12)), min_size=3, max_size=80
)


def make(events) -> Interactions:
    return Interactions.from_arrays(*map(list, zip(*events)))


def random_log(seed=0, size=600, users=40, items=30, times=50) -> Interactions:
    rng = np.random.default_rng(seed)
    return Interactions.from_arrays(
        rng.integers(0, users, size), rng.integers(0, items, size), rng.integers(0, times, size)
    )


def rows(log: Interactions, index) -> Counter:
    return Counter(zip(log.user[index].tolist(), log.item[index].tolist(), log.row[index].tolist()))


def plainly(log: Interactions, part: np.ndarray, code: int) -> dict[int, tuple[list, list]]:
    """user → (history, targets) by a loop: the definition of a case."""
    out = {}
    for user in range(log.num_users):
        span = range(log.offsets[user], log.offsets[user + 1])
        history = [int(log.item[n]) for n in span if part[n] < code]
        targets = [int(log.item[n]) for n in span if part[n] == code]
        if history and targets:
            out[user] = (history, list(dict.fromkeys(targets)))
    return out


def as_dict(cases: Cases | None) -> dict[int, tuple[list, list]]:
    if cases is None:
        return {}
    return {
        int(cases.user[c]): (cases.history(c).tolist(), cases.targets(c).tolist())
        for c in range(cases.num_cases)
    }


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None)
@given(events=EVENTS)
def test_parts_are_a_partition_and_cases_follow_the_definition(rule, events):
    log = make(events)
    if rule == "global-time" and np.unique(log.time).size < 3:
        return  # nothing to cut
    try:
        parts = split(log, rule, **RULES[rule])
    except ValueError:
        if rule != "global-time":
            raise
        return
    everything = slice(None)
    held = [log.take(parts.part == code) for code in (1, 2)]
    assert sum((rows(h, everything) for h in held), rows(parts.train, everything)) == rows(log, everything)
    assert rows(parts.known, everything) == rows(parts.train, everything) + rows(held[0], everything)
    assert as_dict(parts.valid) == plainly(log, np.where(parts.part == 2, 9, parts.part), 1)
    assert as_dict(parts.test) == plainly(log, parts.part, 2)
    for piece in (parts.train, parts.known):
        assert piece.num_items == log.num_items
        assert piece.num_users == log.num_users
    assert (
        parts.facts["train_events"] + parts.facts["valid_events"] + parts.facts["test_events"]
        == log.num_events
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_no_test_event_reaches_train_history_or_known(rule, seed):
    """Replace every test event's item, and its weight, by poison: what a model may know, and
    every history, stay the same to the byte; only the targets change."""
    log = random_log(seed)
    log = Interactions.from_arrays(
        log.user, log.item, log.time, np.ones(log.num_events), item_ids=np.arange(31)
    )
    parts = split(log, rule, **RULES[rule])
    item, weight = log.item.copy(), log.weight.copy()
    item[parts.part == 2] = 30  # an item that nothing else has
    weight[parts.part == 2] = 1e9
    poisoned = split(replace(log, item=item, weight=weight), rule, **RULES[rule])
    for name in ("train", "known"):
        before, after = getattr(parts, name), getattr(poisoned, name)
        for array in ("user", "item", "time", "weight", "row", "offsets", "user_ids", "item_ids"):
            assert getattr(before, array).tobytes() == getattr(after, array).tobytes(), array
        assert before.item_counts().tobytes() == after.item_counts().tobytes()
        assert after.item_counts()[30] == 0
    for name in ("valid", "test"):
        before, after = getattr(parts, name), getattr(poisoned, name)
        assert before.user.tobytes() == after.user.tobytes()
        assert before.history_offsets.tobytes() == after.history_offsets.tobytes()
        assert before.history_item.tobytes() == after.history_item.tobytes()
    assert parts.valid.target_item.tobytes() == poisoned.valid.target_item.tobytes()
    assert set(poisoned.test.target_item.tolist()) == {30}


def test_no_validation_event_reaches_train():
    log = random_log(1)
    parts = split(log)
    item = log.item.copy()
    item[parts.part == 1] = (item[parts.part == 1] + 1) % log.num_items
    changed = split(replace(log, item=item))
    assert parts.train.item.tobytes() == changed.train.item.tobytes()
    assert parts.valid.history_item.tobytes() == changed.valid.history_item.tobytes()
    assert parts.test.history_item.tobytes() != changed.test.history_item.tobytes()


def test_leave_last_out_by_hand():
    log = Interactions.from_arrays(
        ["a", "a", "a", "a", "b", "b", "c"], [1, 2, 3, 1, 4, 5, 6], [1, 2, 3, 4, 9, 8, 7]
    )
    parts = split(log)
    item = dict(zip(log.item_ids.tolist(), range(6)))
    assert as_dict(parts.valid) == {0: ([item[1], item[2]], [item[3]])}
    assert as_dict(parts.test) == {
        0: ([item[1], item[2], item[3]], [item[1]]),  # a repeat is a legal target
        1: ([item[5]], [item[4]]),
    }
    assert parts.train.num_events == 2 + 1 + 1  # c's only event trains
    assert parts.facts["users_with_one_event"] == 1
    assert parts.facts["test_users_without_case"] == 1
    assert parts.facts["test_targets_not_in_train"] == 1
    assert parts.users_in_train.tolist() == [True, True, True]


def test_leave_last_n_by_hand():
    log = Interactions.from_arrays([1] * 7 + [2] * 3 + [3] * 2, [0, 1, 2, 3, 4, 5, 5, 0, 1, 2, 0, 1])
    parts = split(log, "leave-last-n", n=2)
    assert as_dict(parts.test) == {0: ([0, 1, 2, 3, 4], [5]), 1: ([0], [1, 2])}
    assert as_dict(parts.valid) == {0: ([0, 1, 2], [3, 4])}
    assert parts.facts["test_repeated_targets_merged"] == 1
    assert parts.train.num_events == 3 + 1 + 2


def test_ties_are_broken_by_row():
    log = Interactions.from_arrays([1, 1, 1, 1], [9, 7, 8, 6], [5, 5, 5, 5])
    parts = split(log)
    assert log.decode_items(parts.test.targets(0)).tolist() == [6]
    assert log.decode_items(parts.valid.targets(0)).tolist() == [8]
    assert log.decode_items(parts.test.history(0)).tolist() == [9, 7, 8]


def test_global_time_by_hand():
    #                 train: t < 20; valid: 20 ≤ t < 30; test: t ≥ 30
    user = [1, 1, 1, 1, 2, 2, 3, 4, 4, 4]
    item = [5, 6, 7, 7, 5, 8, 9, 5, 6, 6]
    time = [10, 20, 30, 31, 20, 30, 30, 10, 31, 30]
    log = Interactions.from_arrays(user, item, time)
    parts = split(log, "global-time", cut=(20, 30))
    dense = {i: d for d, i in enumerate(log.item_ids.tolist())}
    assert as_dict(parts.valid) == {0: ([dense[5]], [dense[6]])}
    assert as_dict(parts.test) == {
        0: ([dense[5], dense[6]], [dense[7]]),
        1: ([dense[5]], [dense[8]]),
        3: ([dense[5]], [dense[6]]),
    }
    assert parts.facts["test_users_without_history"] == 1  # user 3
    assert parts.facts["test_users_without_train"] == 1  # user 2: validation only
    assert parts.facts["valid_users_without_history"] == 1
    assert parts.users_in_train.tolist() == [True, False, False, True]
    kept = split(log, "global-time", cut=(20, 30), new_users="keep")
    assert kept.test.user.tolist() == [0, 1, 2, 3]
    assert kept.test.history(2).size == 0


@settings(deadline=None, max_examples=50)
@given(events=EVENTS, fraction=st.floats(0.05, 0.5))
def test_global_time_never_looks_ahead(events, fraction):
    log = make(events)
    try:
        parts = split(log, "global-time", fraction=fraction)
    except ValueError:
        return
    last_known = parts.known.time.max()
    assert last_known < log.time[parts.part == 2].min()
    assert (parts.part == 2).mean() >= fraction / 2 or log.num_events < 20
    if parts.train.num_events and (parts.part == 1).any():
        assert parts.train.time.max() < log.time[parts.part == 1].min()


def test_global_time_cuts_by_date_and_refuses_empty_sides():
    day = 86_400
    log = Interactions.from_arrays([1] * 10, range(10), np.arange(10) * day)
    parts = split(log, "global-time", cut="1970-01-08", fraction=0.3)
    assert parts.facts["test_cut"] == 7 * day
    assert (parts.part == 2).sum() == 3
    assert (parts.part == 1).sum() == 2
    for cut in (0, "1969-01-01", 99 * day, (day, 50 * day)):
        with pytest.raises(ValueError, match="cut: expected events"):
            split(log, "global-time", cut=cut)
    with pytest.raises(ValueError, match="cut: expected a start of validation before"):
        split(log, "global-time", cut=(5, 5))
    with pytest.raises(ValueError, match="cut: expected unix seconds or an ISO date"):
        split(log, "global-time", cut="soon")


def test_random_by_user_is_a_function_of_the_seed():
    log = random_log(2)
    a, b, c = (split(log, "random-by-user", seed=s) for s in (0, 0, 1))
    assert a.part.tobytes() == b.part.tobytes()
    assert a.part.tobytes() != c.part.tobytes()
    counts = np.diff(log.offsets)
    held = np.maximum(np.rint(0.1 * counts), 1)
    test_U = np.bincount(log.user[a.part == 2], minlength=log.num_users)
    valid_U = np.bincount(log.user[a.part == 1], minlength=log.num_users)
    assert (test_U == np.where(counts >= held + 1, held, 0)).all()
    assert (valid_U == np.where(counts >= 2 * held + 1, held, 0)).all()


def test_random_by_user_takes_every_event_equally_often():
    """Chi-square over 2,000 seeds: which of ten events is held out."""
    log = Interactions.from_arrays([1] * 10, range(10))
    hits = sum((split(log, "random-by-user", n=1, seed=s).part == 2).astype(int) for s in range(2000))
    assert ((hits - 200) ** 2 / 200).sum() < 27.9  # 99.9 % of chi-square with 9 degrees


def test_none_trains_on_everything():
    log = random_log()
    parts = split(log, "none")
    assert parts.valid is None
    assert parts.test is None
    assert parts.train.num_events == parts.known.num_events == log.num_events


def test_a_k_core_is_known_to_have_seen_the_test():
    log = random_log()
    assert split(log).facts["k_core_saw_test_events"] is False
    assert split(log.k_core(3, 3)).facts["k_core_saw_test_events"] is True


@pytest.mark.parametrize(
    ("rule", "how", "says"),
    [
        ("last", {}, "rule: expected one of 'leave-last-out'"),
        ("leave-last-out", {"n": 3}, "n: expected 1 with the rule"),
        ("leave-last-n", {"n": 0}, "n: expected an integer >= 1"),
        ("global-time", {"fraction": 0.9}, "fraction: .*<= 0.5"),
        ("global-time", {"fraction": 0.0}, "fraction: .*> 0"),
        ("random-by-user", {"seed": -1}, "seed: "),
        ("leave-last-out", {"new_users": "x"}, "new_users: expected one of"),
    ],
)
def test_bad_arguments(rule, how, says):
    with pytest.raises(ValueError, match=says):
        split(random_log(), rule, **how)


def test_rules_that_need_what_the_log_lacks():
    log = Interactions.from_arrays([1, 1], [1, 2], ordered=False)
    with pytest.raises(ValueError, match="rule: expected 'random-by-user' or 'none'"):
        split(log)
    with pytest.raises(ValueError, match="rule: expected a rule that needs no times"):
        split(Interactions.from_arrays([1, 1], [1, 2]), "global-time")
    with pytest.raises(TypeError, match="log: expected Interactions"):
        split({"user": [1]})


def test_event_halves_are_disjoint_and_whole():
    log = random_log(size=601)
    a, b = event_halves(log, seed=3)
    assert {a.num_events, b.num_events} == {300, 301}
    assert sorted([*a.row, *b.row]) == list(range(601))
    assert a.item_ids.tobytes() == log.item_ids.tobytes()
    again = event_halves(log, seed=3)[0]
    assert again.row.tobytes() == a.row.tobytes()
    assert event_halves(log, seed=4)[0].row.tobytes() != a.row.tobytes()
    assert "event_half" not in log.facts


def test_own_test_part_joins_the_catalogue_and_not_the_counts():
    log = Interactions.from_arrays(["a", "a", "c", "c"], [2, 4, 4, 6], ordered=False)
    test = Interactions.from_arrays(["c", "a", "b", "a", "a"], [4, 3, 2, 6, 3], ordered=False)
    parts = split_with_test(log, test, valid=None)
    assert parts.train.user_ids.tolist() == ["a", "b", "c"]
    assert parts.train.item_ids.tolist() == [2, 3, 4, 6]
    assert parts.known.item_counts().tolist() == [1, 0, 2, 1]
    assert as_dict(parts.test) == {0: ([0, 2], [1, 3]), 2: ([2, 3], [2])}
    assert parts.facts["users_only_in_test"] == 1
    assert parts.facts["items_only_in_test"] == 1
    assert parts.facts["test_users_without_history"] == 1
    assert parts.facts["test_pairs_also_in_log"] == 1
    assert parts.facts["test_repeated_targets_merged"] == 1
    assert parts.facts["test_targets_not_in_train"] == 1


@settings(deadline=None, max_examples=40)
@given(EVENTS, EVENTS, EVENTS)
def test_own_test_events_reach_nothing(events, one, two):
    """Two test parts over the same catalogue: everything but the test cases is the same."""
    log = make(events)
    ids = {"user_ids": range(7), "item_ids": range(10)}
    tests = [Interactions.from_arrays(*map(list, zip(*e)), **ids) for e in (one, two)]
    a, b = (split_with_test(log, t) for t in tests)
    for name in ("train", "known"):
        for array in ("user", "item", "time", "row", "offsets", "user_ids", "item_ids"):
            assert getattr(getattr(a, name), array).tobytes() == getattr(getattr(b, name), array).tobytes()
    assert as_dict(a.valid) == as_dict(b.valid)
    assert rows(a.known, slice(None)) == Counter(
        zip(
            a.known.encode_users(log.decode_users(log.user)).tolist(),
            a.known.encode_items(log.decode_items(log.item)).tolist(),
            log.row.tolist(),
        )
    )


def test_own_test_as_cases_or_as_a_file(tmp_path):
    log = Interactions.from_arrays([0, 0, 0, 1, 1, 1], [1, 2, 3, 3, 2, 1])
    path = tmp_path / "test.tsv"
    path.write_text("1 2\t3\n3\t1\n")
    by_file = split_with_test(log, path)
    by_cases = split_with_test(log, read_cases(path, log))
    for parts in (by_file, by_cases):
        assert parts.test.user.tolist() == [-1, -1]
        assert parts.test.history(0).tolist() == [0, 1]
        assert parts.facts["valid_rule"] == "leave-last-out"
        assert parts.known.num_events == 6
        assert as_dict(parts.valid) == {0: ([0, 1], [2]), 1: ([2, 1], [0])}
        assert parts.train.item.tolist() == [0, 1, 2, 1]


def test_own_test_of_another_kind():
    log = Interactions.from_arrays([0, 0], [1, 2])
    with pytest.raises(ValueError, match=r"test: expected item ids of the log's kind \(int64\)"):
        split_with_test(log, Interactions.from_arrays([0], ["1"]))
    with pytest.raises(ValueError, match="test: expected cases over the log's 2 items; got 5"):
        split_with_test(log, Cases([0], [0, 1], [0], [0, 1], [1], 5))
    loose = Interactions.from_arrays([0, 0], [1, 2], ordered=False)
    with pytest.raises(ValueError, match="valid: expected 'random-by-user'"):
        split_with_test(loose, loose, valid="leave-last-out")


def test_cases_take():
    cases = split(random_log()).test
    for index in (slice(3, 9), [5, 2, 2], np.arange(cases.num_cases) % 3 == 0, []):
        some = cases.take(index)
        numbers = np.arange(cases.num_cases)[index] if len(np.atleast_1d(index)) else []
        assert some.num_cases == len(numbers)
        for new, old in enumerate(numbers):
            assert some.user[new] == cases.user[old]
            assert some.history(new).tolist() == cases.history(old).tolist()
            assert some.targets(new).tolist() == cases.targets(old).tolist()
    with pytest.raises(ValueError, match="index: expected ids in"):
        cases.take([cases.num_cases])
    with pytest.raises(ValueError, match="read-only"):
        cases.history_item[0] = 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([0], [0, 2], [0], [0, 1], [1], 5), "history_offsets: expected offsets that rise"),
        (([0], [0, 1, 1], [0], [0, 1], [1], 5), r"history_offsets: expected shape \[2\]"),
        (([0], [0, 1], [5], [0, 1], [1], 5), r"history_item: expected ids in \[0, 5\)"),
        (([0], [0, 1], [0], [1, 1], [1], 5), "target_offsets: expected offsets that rise"),
    ],
)
def test_bad_cases(arguments, says):
    with pytest.raises(ValueError, match=says):
        Cases(*arguments)
