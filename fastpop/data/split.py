"""Splits: which events train a model, which choose it, and which judge it.

Every part shares the ids and the catalogue of the whole log. No count, history or `known` log
ever holds a test event; validation events enter the history and `known` at test time only.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastpop.checks import brief, number, one_of, wrong, wrong_type
from fastpop.data import columns
from fastpop.data.cases import Cases, build_cases
from fastpop.data.interactions import Interactions
from fastpop.frozen import deep_frozen, frozen_array

RULES = ("leave-last-out", "leave-last-n", "global-time", "random-by-user", "none")
TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Split:
    """Parts of a log.

    Attributes:
        train: events a model may be trained on.
        valid: cases that choose a model (history: train events), or None.
        test: cases that judge it (history: train and validation events), or None.
        known: train and validation events, what counts and histories may use at test time.
        part: [N] int8, 0 train, 1 validation, 2 test for each event of the log that was split.
        facts: JSON-able: the rule, the cut, users dropped and why, whether a k-core saw the test.
    """

    train: Interactions
    valid: Cases | None
    test: Cases | None
    known: Interactions
    part: np.ndarray
    facts: dict = field(default_factory=dict)

    __repr__ = brief

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", frozen_array(self.part))
        object.__setattr__(self, "facts", deep_frozen(self.facts))

    @property
    def users_in_train(self) -> np.ndarray:
        """`np.diff(train.offsets) > 0`: bool [U], users whom a user embedding can know."""
        return np.diff(self.train.offsets) > 0


def split(
    log: Interactions,
    rule: str = "leave-last-out",
    *,
    fraction: float = 0.1,
    n: int | None = None,
    cut: Any = None,
    seed: int = 0,
    new_users: str = "drop",
) -> Split:
    """Cut a log into train, validation and test by one rule.

    Rules:
        "leave-last-out": a user's last event is the test target, the last but one validates.
            A user with two events has no validation case, with one event no case at all.
        "leave-last-n": the same with the last n events as one set of targets (n: default 1). A
            user with fewer than n + 1 events stays in train, with fewer than 2n + 1 has no
            validation case.
        "global-time": events at or after a cut are the test. `cut` is unix seconds or an ISO
            date, or a pair (start of validation, start of test); without it the cut leaves about
            `fraction` of the events in the test. Validation is the last `fraction` before the
            cut. Events at one and the same second are never parted, so day stamps give a
            fraction only roughly. History is frozen at the cut; a user's distinct later items
            are one relevant set.
        "random-by-user": of each user's events, `n` or else round(fraction * events), at least
            one, at random for the test, as many again for validation; a user keeps at least one
            event in train. For logs without order; with order the history has later events too.
        "none": everything trains.

    Args:
        log: what to split.
        fraction: share of the events, in (0, 0.5].
        n: events per user, ≥ 1.
        cut: see "global-time".
        seed: for "random-by-user"; the result depends on nothing else.
        new_users: "drop" leaves users without any earlier event out of the cases (counted in
            facts), "keep" gives them cases with an empty history.
    Returns:
        Split. Repeats of an item within one set of targets count once; an item that the user had
        before is a legal target.
    Raises:
        ValueError: unknown rule, a rule about order on a log without it, a cut outside the log.
    """
    if not isinstance(log, Interactions):
        raise wrong_type("log", "Interactions (see read_log)", log)
    one_of("rule", rule, RULES)
    one_of("new_users", new_users, ("drop", "keep"))
    number("fraction", fraction, gt=0, le=0.5)
    if n is not None:
        number("n", n, ge=1, integer=True)
    if rule.startswith("leave-last") and not log.has_order:
        raise wrong("rule", "'random-by-user' or 'none' for a log with neither times nor order", rule)
    with columns.told(log.num_events, "splitting the log"):
        return _split(log, rule, fraction, n, cut, seed, new_users)


def _split(
    log: Interactions, rule: str, fraction: float, n: int | None, cut: Any, seed: int, new_users: str
) -> Split:
    """`split` once its arguments are checked."""
    facts: dict[str, Any] = {"rule": rule}
    if rule == "none":
        part = np.zeros(log.num_events, dtype=np.int8)
    elif rule in ("leave-last-out", "leave-last-n"):
        if rule == "leave-last-out" and n not in (None, 1):
            raise wrong("n", "1 with the rule 'leave-last-out' (or take 'leave-last-n')", n)
        facts["n"] = int(n or 1)
        part = last_n(log, facts["n"])
    elif rule == "global-time":
        part = _global_time(log, fraction, cut, facts)
    else:
        number("seed", seed, ge=0, integer=True)
        facts |= {"seed": int(seed)} | ({"n": int(n)} if n else {"fraction": float(fraction)})
        part = random_by_user(log, fraction, n, seed)
    return assembled(log, part, facts, new_users)


def event_halves(log: Interactions, seed: int = 0) -> tuple[Interactions, Interactions]:
    """`p = rng.permutation(N); log.take(p[:N // 2]), log.take(p[N // 2:])`: two disjoint halves.

    For a popularity estimate that is independent of the events a model was trained on. Events
    are halved, not users; both halves share ids and catalogue.
    """
    if not isinstance(log, Interactions):
        raise wrong_type("log", "Interactions (see read_log)", log)
    number("seed", seed, ge=0, integer=True)
    order = columns.permutation(np.random.default_rng(seed), log.num_events)
    in_first = np.zeros(log.num_events, dtype=bool)
    in_first[order[: log.num_events // 2]] = True
    del order
    first, second = (
        log.take(mask).with_facts(event_half={"half": name, "seed": int(seed)})
        for name, mask in (("A", in_first), ("B", ~in_first))
    )
    return first, second


def last_n(log: Interactions, n: int) -> np.ndarray:
    """part [N]: of a user with more than n events the last n are the test, of one with more than
    2n the n before them validate."""
    part = np.zeros(log.num_events, dtype=np.int8)
    count_U, end_U = np.diff(log.offsets), log.offsets[1:]
    for code, skipped in ((TEST, 0), (VALID, n)):
        end = end_U[count_U >= skipped + n + 1] - skipped
        for back in range(1, n + 1 if end.size else 1):
            part[end - back] = code
    return part


def _global_time(log: Interactions, fraction: float, cut: Any, facts: dict) -> np.ndarray:
    if log.time is None:
        raise wrong("rule", "a rule that needs no times, for the log has none", "global-time")
    if isinstance(cut, (tuple, list)):
        if len(cut) != 2:
            raise wrong("cut", "a time, or (start of validation, start of test)", cut)
        valid_cut, test_cut = (_seconds(c) for c in cut)
        if valid_cut >= test_cut:
            raise wrong("cut", "a start of validation before the start of test", cut)
    else:
        test_cut = _time_quantile(log.time, 1 - fraction) if cut is None else _seconds(cut)
        if int(log.time.min()) >= test_cut:
            raise wrong("cut", "events before the start of the test", text=f"{test_cut}")
        valid_cut = _time_quantile(log.time, 1 - fraction, test_cut)
    part = np.zeros(log.num_events, dtype=np.int8)
    part[log.time >= valid_cut] = VALID
    part[log.time >= test_cut] = TEST
    facts |= {"valid_cut": int(valid_cut), "test_cut": int(test_cut)}
    if cut is None or not isinstance(cut, (tuple, list)):
        facts["fraction"] = float(fraction)
    for code, name in ((TRAIN, "before the cut"), (TEST, "at or after the cut")):
        if not (part == code).any():
            raise wrong(
                "cut",
                f"events {name}",
                text=f"{(valid_cut, test_cut)} in a log from {int(log.time.min())} to {int(log.time.max())}",
            )
    return part


def _time_quantile(time: np.ndarray, share: float, below: int | None = None) -> int:
    size = time.size if below is None else int(np.count_nonzero(time < below))
    return columns.kth_smallest(time, min(int(np.ceil(share * size)), size - 1), below)


def _seconds(cut: Any) -> int:
    if isinstance(cut, str):
        try:
            return int(np.datetime64(cut, "s").astype(np.int64))
        except ValueError:
            raise wrong("cut", "unix seconds or an ISO date such as 2013-09-01", cut) from None
    number("cut", cut)
    return int(cut)


def random_by_user(log: Interactions, fraction: float, n: int | None, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    part = np.zeros(log.num_events, dtype=np.int8)
    for some, at in columns.user_pieces(log.offsets):
        count_U = np.diff(log.offsets[some.start : some.stop + 1])
        user_N = np.repeat(np.arange(count_U.size), count_U)
        # one stream for the whole log: pieces change no draw
        order = np.lexsort((generator.random(user_N.size), user_N))
        rank_N = np.empty(user_N.size, dtype=np.int64)
        rank_N[order] = np.arange(user_N.size)
        rank_N -= (log.offsets[some] - at.start)[user_N]
        held_U = (
            np.full_like(count_U, n) if n else np.maximum(np.rint(fraction * count_U).astype(np.int64), 1)
        )
        held_N, count_N = held_U[user_N], count_U[user_N]
        mine = part[at]
        mine[(rank_N < held_N) & (count_N >= held_N + 1)] = TEST
        between = (rank_N >= held_N) & (rank_N < 2 * held_N)
        mine[between & (count_N >= 2 * held_N + 1)] = VALID
    return part


def assembled(log: Interactions, part: np.ndarray, facts: dict, new_users: str = "drop") -> Split:
    """The Split of a log whose events go to these parts, [N] int8; facts are added to."""
    train = log.take(part == TRAIN)
    known = log.take(part != TEST)
    facts |= {
        "train_events": train.num_events,
        "valid_events": int(np.count_nonzero(part == VALID)),
        "test_events": int(np.count_nonzero(part == TEST)),
        "k_core_saw_test_events": "k_core" in log.facts,
        "ties_in_time": "broken by source row" if log.time is not None else "no times",
    }
    keep = new_users == "keep"
    valid = held_out_cases(log, part, VALID, train, train, keep, facts, "valid")
    test = held_out_cases(log, part, TEST, known, train, keep, facts, "test")
    told = {key: facts[key] for key in ("rule", "k_core_saw_test_events")}
    return Split(train.with_facts(split=told), valid, test, known.with_facts(split=told), part, facts)


def held_out_cases(
    log: Interactions,
    part: np.ndarray,
    code: int,
    before: Interactions,
    train: Interactions,
    keep_new: bool,
    facts: dict[str, Any],
    name: str,
) -> Cases | None:
    """Cases of one part: a user's events of that part are the targets, `before` the history."""
    held = log.take(part == code)
    if not held.num_events:
        return None
    users = np.flatnonzero(np.diff(held.offsets))
    cases, repeats = build_cases(users, before, held, keep_new)
    history_U = np.diff(before.offsets) > 0
    train_U = np.diff(train.offsets) > 0
    seen_V = np.zeros(log.num_items, dtype=bool)
    for at in columns.pieces(train.num_events):
        seen_V[train.item[at]] = True
        columns.let_go(train.item[at])
    facts |= {
        f"{name}_cases": cases.num_cases,
        f"{name}_users_without_history": int((~history_U[users]).sum()),
        f"{name}_users_without_train": int((history_U & ~train_U)[users].sum()),
        f"{name}_users_without_case": int(log.num_users - users.size),
        f"{name}_repeated_targets_merged": repeats,
        f"{name}_targets_not_in_train": int(np.count_nonzero(~seen_V[cases.target_item])),
    }
    if code == TEST:
        count_U = np.diff(log.offsets)
        facts["users_with_one_event"] = int((count_U == 1).sum())
    return cases
