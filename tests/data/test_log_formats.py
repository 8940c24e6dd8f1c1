"""A random table gives the same log, or the same error, in every form that is read."""

import csv
import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpop.data import read_log, staging

FIELDS = ("user", "item", "time", "weight", "row", "user_ids", "item_ids", "offsets")
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=8)
WHOLE = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(0, 20)
IDS = st.sampled_from([TEXTS, WHOLE, SMALL, st.sampled_from(["a", "b", "c d", 'e"f', "g,h", "i\tj", "k\nl"])])


@st.composite
def tables(draw):
    size = draw(st.integers(1, 25))

    def column(values):
        return draw(st.lists(values, min_size=size, max_size=size))

    return {
        "u": column(draw(IDS)),
        "i": column(draw(IDS)),
        "t": column(draw(st.sampled_from([st.integers(0, 3), st.integers(10**9, 2 * 10**9)]))),
        "w": column(st.floats(0, 1e6, allow_nan=False)),
    }


def forms(table, folder):
    """(name, source, how) of each form."""
    frame = pd.DataFrame(table)
    for separator, name in ((",", "a.csv"), ("\t", "a.tsv"), ("::", "a.dat"), (";", "a.txt")):
        if separator == "::" and any(isinstance(v, str) for k in "ui" for v in table[k]):
            continue  # has no quotes
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            if separator == "::":
                file.write("::".join(table) + "\n")
                file.writelines("::".join(map(repr, row)) + "\n" for row in zip(*table.values()))
            else:
                writer = csv.writer(
                    file, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
                )
                writer.writerow(table)
                writer.writerows(zip(*table.values()))
        yield name, folder / name, {"separator": separator}
    (folder / "a.csv.gz").write_bytes(gzip.compress((folder / "a.csv").read_bytes()))
    yield "gzip", folder / "a.csv.gz", {}
    (folder / "b.csv").write_bytes((folder / "a.csv").read_bytes().decode().encode("utf-16"))
    yield "utf-16", folder / "b.csv", {"encoding": "utf-16"}
    arrow = pa.table({name: pa.array(values) for name, values in table.items()})
    pq.write_table(arrow, folder / "a.parquet")
    yield "parquet", folder / "a.parquet", {}
    yield "arrow", arrow, {}
    yield "pandas", frame, {}
    yield "objects", frame.astype(object), {}
    yield "polars", pl.DataFrame(arrow), {}
    yield "lazy", pl.LazyFrame(arrow), {}
    yield (
        "arrays",
        {
            name: np.array(values, object if isinstance(values[0], str) else None)
            for name, values in table.items()
        },
        {},
    )
    yield "lists", table, {}


def outcome(source, how):
    try:
        return read_log(source, user="u", item="i", time="t", weight="w", **how)
    except (ValueError, TypeError) as error:
        return str(error)


def compare(table, folder):
    first = None
    for name, source, how in forms(table, folder):
        got = outcome(source, how)
        if first is None:
            first = got
        elif isinstance(first, str) or isinstance(got, str):
            assert type(first) is type(got), (name, first, got)
            said = got.split("expected")[1].replace("nothing or NaN", "nothing")
            assert first.split("expected")[1] == said, name
        else:
            for field in FIELDS:
                left, right = getattr(got, field), getattr(first, field)
                np.testing.assert_array_equal(left, right, err_msg=f"{name} {field}")
                assert left.dtype == right.dtype, (name, field)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_every_form_gives_the_same_log(table, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "BLOCK", 100)
    compare(table, tmp_path)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_every_form_gives_the_same_log_at_length(table, tmp_path):
    compare(table, tmp_path)
