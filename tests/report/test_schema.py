"""comparison.json is what its contract says: a real comparison holds its keys, and no others."""

from typing import NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from helpers_logs import small_log

import fastpop
from fastpop.report import comparison_text, schema, write_compare_report
from fastpop.report.compare_tables import all_tables


def differences(value, kind, place=""):
    """Where a value is not what a TypedDict says, as text."""
    if get_origin(kind) is NotRequired:
        kind = get_args(kind)[0]
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        optional = {key for key, hint in hints.items() if get_origin(hint) is NotRequired} | (
            set() if kind.__total__ else set(hints)
        )
        found = [f"{place}: no key {key!r}" for key in hints if key not in value and key not in optional]
        found += [f"{place}: another key {key!r}" for key in value if key not in hints]
        return found + [
            line
            for key in hints
            if key in value
            for line in differences(value[key], hints[key], f"{place}.{key}")
        ]
    if get_origin(kind) is list:
        return [
            line
            for n, inner in enumerate(value)
            for line in differences(inner, get_args(kind)[0], f"{place}[{n}]")
        ]
    known = get_args(kind)
    if known and all(isinstance(word, str) for word in known) and value not in known:
        return [f"{place}: {value!r} is none of {known}"]
    return []


@pytest.fixture(scope="module")
def real():
    return fastpop.compare(
        small_log(events=2000),
        seeds=2,
        arms=["standard", "frozen"],
        epochs=2,
        dim=4,
        batch_size=128,
        num_negatives=16,
        learning_rate=0.03,
        permutations=19,
        popularity_weights=[0, 1],
        progress=False,
    )


def test_a_real_comparison_is_as_the_contract_says(real):
    assert differences(real.comparison, schema.Comparison) == []
    assert {arm["kind"] for arm in real.comparison["arms"]} == {"trained", "afterwards", "reference"}
    for key in ("matched", "pairs", "scatter", "nulls", "exposure", "curves", "differences"):
        assert real.comparison[key], key


def test_the_contract_is_not_empty(real):
    wrong = {**real.comparison, "more": 1, "readings": ["last"]}
    del wrong["headline"]
    wrong["rows"] = [{**real.rows[0], "seeds": 3}]
    assert differences(wrong, schema.Comparison) == [
        ": no key 'headline'",
        ": another key 'more'",
        ".readings[0]: 'last' is none of ('best', 'equal')",
        ".rows[0]: another key 'seeds'",
    ]


def test_all_of_a_real_comparison_is_shown(real, tmp_path):
    assert [table.name for table in all_tables(real.comparison)] == [
        "fit",
        "matched",
        "energies",
        "p",
        "geometry",
    ]
    assert max(map(len, comparison_text(real.comparison).splitlines())) <= 80
    page = write_compare_report(tmp_path / "r.html", real.comparison).read_text()
    assert page.count("<svg role") == 3 + 1 + 4 + 1 + 4
