"""The reader of blocks against its specification, and the sort of events against numpy."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop.data.text_ids import TextIds
from fastpop.kernels.event_order import _cpu as event_order
from fastpop.kernels.event_order import reference as order_reference
from fastpop.kernels.log_rows import _cpu, reference

FAULTS = {_cpu.RAGGED: "ragged", _cpu.AFTER_QUOTE: "text after quote", _cpu.OPEN_QUOTE: "open quote"}


def padded(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw + b"\0" * _cpu.PADDING, dtype=np.uint8)


def read(raw: bytes, layout, reader=None):
    reader = _cpu.RowReader(["NULL"]) if reader is None else reader
    return reader, reader.read(layout, padded(raw), 0, len(raw), 0)


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(alphabet='ab,;"\n\r :', max_size=60),
    separator=st.sampled_from([",", ";", "::", ",;"]),
    quote=st.sampled_from(['"', ""]),
    width=st.integers(2, 3),
)
def test_records_are_those_of_the_reference(text, separator, quote, width):
    text = text + "\n" if not text.endswith("\n") else text
    expected, blanks = reference.records(text, separator, quote, width)
    layout = _cpu.layout(
        separator=separator,
        quote=quote,
        num_fields=width,
        position={"user": 0, "item": 1, "behavior": width - 1},
    )
    reader, found = read(text.encode(), layout)
    assert found["blanks"] == blanks
    assert found["records"] == len(expected)
    assert found["records"] + blanks + found["inside"] == found["lines"] == text.count("\n")
    faulty = [(r.first_line, r.last_line, r.fault) for r in expected if r.fault]
    assert [(f[2], f[3], FAULTS[f[0]]) for f in found["faults"]] == faulty
    good = [r for r in expected if r.fault is None]
    assert found["rows"] == len(good)
    lines = found["line"].tolist() or list(range(len(good)))
    assert lines == [r.first_line for r in good]
    for role, at in (("user", 0), ("item", 1), ("behavior", width - 1)):
        texts = reader.texts(_cpu.ROLES.index(role))
        got = [None if code < 0 else texts[code] for code in found[role].tolist()]
        assert got == [r.fields[at].strip(" \t") or None for r in good]


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet='ab,"\n\r', max_size=50), cut=st.integers(0, 50))
def test_a_block_is_cut_between_records(text, cut):
    """What is before the cut and what is behind it are the records of the whole."""
    text += "\n"
    layout = _cpu.layout(separator=",", quote='"', num_fields=2)
    raw = text[:cut].encode()
    at = _cpu.last_record_end(layout, padded(raw), 0, len(raw))
    whole, _ = reference.records(text, ",", '"', 2)
    parts = [reference.records(part, ",", '"', 2)[0] for part in (text[:at], text[at:])]
    lines = text[:at].count("\n")
    shown = [(r.fields, r.first_line, r.fault) for r in whole]
    assert shown == [
        (r.fields, r.first_line + n * lines, r.fault) for n, part in enumerate(parts) for r in part
    ]


@pytest.mark.parametrize("long", [False, True])
def test_many_distinct_texts_keep_their_codes(long):
    """Through every growth of the table, short texts and long ones."""
    size = 50_000
    names = [f"{'x' * 20 if long else ''}{n * 7919 % size}" for n in range(size)]
    raw = "".join(f"{name},{name}é\n" for name in names + names[::-1]).encode()
    reader, found = read(raw, _cpu.layout(separator=",", num_fields=2))
    assert reader.texts(0) == names
    assert reader.texts(1) == [name + "é" for name in names]
    np.testing.assert_array_equal(found["user"], [*range(size), *range(size)[::-1]])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("7", "whole"),
        ("-7", "whole"),
        ("0", "whole"),
        (str(2**63 - 1), "whole"),
        (str(-(2**63)), "whole"),
        ("-0", "padded"),
        ("007", "padded"),
        ("+7", "padded"),
        (str(2**63), "text"),
        ("7.0", "point"),
        ("-7.000", "point"),
        ("7.", "text"),
        (".7", "text"),
        ("7.5", "fraction"),
        ("9007199254740992.0", "fraction"),
        ("1e+20", "fraction"),
        ("1.5e-07", "fraction"),
        ("12e5", "text"),
        ("7e", "text"),
        ("0x10", "text"),
        ("1_000", "text"),
        ("1.2.3", "text"),
        ("True", "word"),
        ("false", "word"),
        ("Trueish", "text"),
        ("é", "text"),
        ("-", "text"),
        ("+", "text"),
        ("1e+", "text"),
    ],
)
def test_kinds_of_ids(text, kind):
    reader, _ = read(f"{text},1\n".encode(), _cpu.layout(separator=",", num_fields=2))
    count, place, shown, kinds = _cpu.count_ids([reader], "user", [None])
    assert [name for name, n in count.items() if n] == [kind]
    assert (place[kind], shown[kind]) == (0, text)
    assert _cpu.ID_KINDS[kinds[0][0]] == kind


def test_ids_of_several_readers_are_one_catalogue():
    layout = _cpu.layout(separator=",", num_fields=2)
    parts = ["b,10\na,9\nlonger than sixteen bytes!,7\n", "a,7\nc,8\nlonger than sixteen bytes?,10\n"]
    readers = [read(part.encode(), layout)[0] for part in parts]
    ids, maps = _cpu.dense_ids(readers, "user", [None, None], False)
    assert TextIds(*ids).tolist() == [
        "a",
        "b",
        "c",
        "longer than sixteen bytes!",
        "longer than sixteen bytes?",
    ]
    assert [m.tolist() for m in maps] == [[1, 0, 3], [0, 2, 4]]
    ids, maps = _cpu.dense_ids(readers, "item", [None, np.array([1, 0, 1], np.uint8)], True)
    assert ids.tolist() == [7, 9, 10]
    assert [m.tolist() for m in maps] == [[2, 1, 0], [0, -1, 2]]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 200),
    ranges=st.integers(1, 5),
    weighted=st.booleans(),
    real=st.booleans(),
    filtered=st.booleans(),
)
def test_events_are_in_the_order_of_lexsort(seed, size, ranges, weighted, real, filtered):
    rng = np.random.default_rng(seed)
    users = int(rng.integers(1, 20))
    user = rng.integers(0, users, size).astype(np.int32)
    item = rng.integers(0, 9, size).astype(np.int32)
    tick = rng.normal(size=size).round(1) if real else rng.integers(-5, 5, size)
    bits = event_order.ordered_bits(tick.astype(np.float64)) if real else tick.astype(np.int64)
    weight = rng.random(size) if weighted else None
    fate = rng.integers(0, 3, size).astype(np.uint8) if filtered else None
    kept = np.ones(size, bool) if fate is None else fate == event_order.KEPT
    number = np.arange(size) if fate is None else np.cumsum(fate != event_order.REJECTED) - 1
    cut = size // 3
    blocks = [slice(0, cut), slice(cut, size)]
    rows, first = [], 0
    for block in blocks:
        part = None if fate is None else fate[block]
        rows.append(
            (
                len(user[block]),
                first,
                user[block],
                item[block],
                bits[block],
                None if weight is None else weight[block],
                part,
            )
        )
        first += len(user[block]) if part is None else int((part != event_order.REJECTED).sum())
    counts = np.zeros(users, dtype=np.int64)
    for block_rows in rows:
        event_order.count_events(block_rows, counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    out = {name: np.zeros(offsets[-1], dtype=np.int64) for name in ("user", "item", "time", "row")}
    out_weight = np.zeros(offsets[-1]) if weighted else None
    bounds = np.linspace(0, users, ranges + 1).astype(int)
    for a, b in pairwise(bounds):
        part = event_order.EventRange(offsets, a, b, weighted)
        for block_rows in rows:
            part.add(block_rows)
        where = slice(offsets[a], offsets[b])
        part.finish(
            first=a,
            last=b,
            per_second=1,
            real=real,
            unit=1.0,
            **{name: array[where] for name, array in out.items()},
            weight=None if out_weight is None else out_weight[where],
        )
    order = np.flatnonzero(kept)[order_reference.order(user[kept], tick[kept])]
    np.testing.assert_array_equal(out["user"], user[order])
    np.testing.assert_array_equal(out["item"], item[order])
    np.testing.assert_array_equal(out["row"], number[order])
    np.testing.assert_array_equal(out["time"], np.floor(tick[order]).astype(np.int64))
    if weighted:
        np.testing.assert_array_equal(out_weight, weight[order])
