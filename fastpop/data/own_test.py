"""Logs that bring their own test part: randomised ratings, or prefixes with a target."""

from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import number, one_of, wrong, wrong_type
from fastpop.data import columns
from fastpop.data import ids as edge
from fastpop.data.cases import Cases, build_cases
from fastpop.data.interactions import Interactions
from fastpop.data.paths import local_path
from fastpop.data.split import TEST, TRAIN, VALID, Split, held_out_cases, last_n, random_by_user
from fastpop.data.store import is_saved_log, open_log
from fastpop.data.tokens import read_cases


def split_with_test(
    log: Interactions,
    test: Any,
    *,
    valid: str | None = "auto",
    fraction: float = 0.1,
    seed: int = 0,
    new_users: str = "drop",
) -> Split:
    """Train and validate on `log`, test on `test`.

    Args:
        log: everything a model may know.
        test: Interactions, or the path of a prepared folder (each user's distinct items are one
            set of targets; the history is the user's events in `log`), Cases in the catalogue of
            `log`, or a file of lines `prefix<TAB>target` (see `read_cases`).
        valid: how validation is cut from `log`: "leave-last-out", "random-by-user", None (all
            of `log` trains), or "auto": leave-last-out where the log has an order.
        fraction, seed: for "random-by-user".
        new_users: users of the test without an event in `log`: "drop" (counted) or "keep" with
            an empty history.
    Returns:
        Split, whose `known` is the whole of `log`. Where `test` is Interactions, its users and
        items join the catalogue of every part, with no event of theirs. `part` is about `log`.
    Raises:
        ValueError: ids of another kind, Cases of another catalogue.
    """
    if not isinstance(log, Interactions):
        raise wrong_type("log", "Interactions (see read_log)", log)
    one_of("valid", valid, ("auto", "leave-last-out", "random-by-user", None))
    one_of("new_users", new_users, ("drop", "keep"))
    number("fraction", fraction, gt=0, le=0.5)
    number("seed", seed, ge=0, integer=True)
    facts: dict[str, Any] = {"rule": "own-test", "k_core_saw_test_events": False}
    if isinstance(test, (str, Path)) and is_saved_log(folder := local_path(test, "test")):
        test = open_log(Interactions, folder)
    if isinstance(test, Interactions):
        log, test = one_catalogue(log, test, facts)
    elif not isinstance(test, Cases):
        test = read_cases(test, log)
    if isinstance(test, Cases) and test.num_items != log.num_items:
        raise wrong("test", f"cases over the log's {log.num_items} items", text=f"{test.num_items}")
    if valid == "auto":
        valid = "leave-last-out" if log.has_order else "random-by-user"
    if valid == "leave-last-out" and not log.has_order:
        raise wrong("valid", "'random-by-user' or None for a log with neither times nor order", valid)
    part = np.zeros(log.num_events, dtype=np.int8)
    if valid is not None:
        held = last_n(log, 1) if valid == "leave-last-out" else random_by_user(log, fraction, None, seed)
        part[held == TEST] = VALID
    facts |= {"valid_rule": valid, "fraction": float(fraction), "seed": int(seed)}
    train = log.take(part == TRAIN)
    facts |= {"train_events": train.num_events, "valid_events": int(np.count_nonzero(part == VALID))}
    keep = new_users == "keep"
    valid_cases = held_out_cases(log, part, VALID, train, train, keep, facts, "valid")
    test_cases = _test_cases(log, test, keep, facts)
    told = {"rule": "own-test"}
    return Split(
        train.with_facts(split=told), valid_cases, test_cases, log.with_facts(split=told), part, facts
    )


def one_catalogue(log: Interactions, test: Interactions, facts: dict) -> tuple[Interactions, Interactions]:
    """Both logs over the union of their ids; dense order is kept, so the sort stands."""
    both = {}
    for side in ("user", "item"):
        have, more = getattr(log, f"{side}_ids"), getattr(test, f"{side}_ids")
        if have.size and more.size and have.dtype.kind != more.dtype.kind:
            kind = "str" if have.dtype.kind == "O" else "int64"
            raise wrong("test", f"{side} ids of the log's kind ({kind})", more)
        both[side] = _union(have, more)
        facts[f"{side}s_only_in_test"] = int(both[side].size - have.size)

    def over_both(part: Interactions) -> Interactions:
        moved = {}
        for side, ids in both.items():
            old, column = getattr(part, f"{side}_ids"), getattr(part, side)
            if ids is old:
                moved[side] = column
                continue
            kind = np.promote_types(column.dtype, columns.narrowest(ids.size))
            moved[side] = columns.mapped_through(
                np.searchsorted(ids, old), column, part.storage.empty(column.size, kind)
            )
        return Interactions._sorted(
            moved["user"],
            moved["item"],
            part.time,
            part.weight,
            part.row,
            both["user"],
            both["item"],
            has_order=part.has_order,
            facts=part.facts,
            rejected=part.rejected,
            storage=part.storage,
        )

    return over_both(log), over_both(test)


def _union(have: Any, more: Any) -> Any:
    """np.union1d of two catalogues; the first itself where the second adds nothing."""
    if more is have or (edge.find(have, np.asarray(more)) >= 0).all():
        return have
    return np.union1d(have, more)


def _test_cases(log: Interactions, test: Interactions | Cases, keep: bool, facts: dict) -> Cases:
    seen_V = log.item_counts() > 0
    if isinstance(test, Interactions):
        users = np.flatnonzero(np.diff(test.offsets))
        cases, repeats = build_cases(users, log, test, keep)
        facts |= {
            "test_events": test.num_events,
            "test_repeated_targets_merged": repeats,
            "test_users_without_history": int((np.diff(log.offsets)[users] == 0).sum()),
            "test_pairs_also_in_log": _pairs_also_in(log, test),
        }
    else:
        cases = test
        facts |= {"test_file": dict(test.facts)} if test.facts else {}
    facts |= {
        "test_cases": cases.num_cases,
        "test_targets_not_in_train": int((~seen_V[cases.target_item]).sum()),
    }
    return cases


def _pairs_also_in(log: Interactions, test: Interactions) -> int:
    """Events of the test whose (user, item) is an event of the log too; both over one catalogue."""
    count = 0
    for some, _ in columns.user_pieces(log.offsets + test.offsets):
        asked, known = (_pairs(part, some) for part in (test, log))
        count += int(np.count_nonzero(np.isin(asked, known)))
    return count


def _pairs(log: Interactions, users: slice) -> np.ndarray:
    """user * V + item of the users' events."""
    at = slice(int(log.offsets[users.start]), int(log.offsets[users.stop]))
    return log.user[at].astype(np.int64) * log.num_items + log.item[at]
