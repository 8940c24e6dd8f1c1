"""Tables of lists as the lines that they would be, and columns by their own names."""

import pytest

from fastpop.data import bad_rows, read_log

SEQUENCE = {"preset": "sequence", "user": "u", "item": "i"}
FORMS = ["dict", "pandas", "polars", "arrow", "parquet"]


def form(name, table, tmp_path):
    if name == "dict":
        return table
    pa = pytest.importorskip("pyarrow")
    if name == "pandas":
        return pytest.importorskip("pandas").DataFrame(table)
    if name == "polars":
        return pytest.importorskip("polars").DataFrame(table)
    if name == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"
    return pa.table(table)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("bad", [[], None, [4, None]], ids=["empty", "none", "a gap"])
def test_a_list_that_is_no_sequence_is_an_error_by_its_row(name, bad, tmp_path):
    source = form(name, {"u": ["a", "b", "c"], "i": [[1, 2], bad, [3]]}, tmp_path)
    with pytest.raises(ValueError, match=r"row 2, column 'i': expected an id, none missing"):
        read_log(source, **SEQUENCE)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("bad", [[], [4, None, 5, None]], ids=["empty", "gaps"])
def test_a_bad_list_goes_whole_as_a_bad_line_does(name, bad, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text("a 1 2\nb" + "".join(f" {'NULL' if n is None else n}" for n in bad) + "\nc 3\n")
    expected = read_log(lines, preset="sequence", on_bad_row="skip")
    source = form(name, {"u": ["a", "b", "c"], "i": [[1, 2], bad, [3]]}, tmp_path)
    log = read_log(source, **SEQUENCE, on_bad_row="skip")
    for column in ("user", "item", "row", "user_ids", "item_ids"):
        assert getattr(log, column).tolist() == getattr(expected, column).tolist(), column
    for fact in ("records", "rows_read", "rows_rejected"):
        assert log.facts[fact] == expected.facts[fact], fact
    assert log.rejected.line == expected.rejected.line == (2,)


@pytest.mark.parametrize("name", ["dict", "pandas", "polars", "arrow"])
def test_a_bad_session_goes_whole(name, tmp_path):
    source = form(name, {"i": [["x", "y"], [], ["x", "NULL"], ["z"]]}, tmp_path)
    log = read_log(source, preset="sessions", item="i", on_bad_row="skip")
    assert (log.user_ids.tolist(), log.item_ids.tolist()) == ([0, 3], ["x", "y", "z"])
    assert (log.facts["records"], log.facts["rows_rejected"], log.rejected.line) == (4, 2, (2, 3))


def test_a_bad_list_goes_whole_where_it_spans_pieces(monkeypatch):
    monkeypatch.setattr("fastpop.data.staging.BLOCK", 64)
    items = [[1, 2], [*range(100), None], [3]]
    log = read_log({"u": ["a", "b", "c"], "i": items}, **SEQUENCE, on_bad_row="skip")
    assert (log.num_events, log.user_ids.tolist(), log.rejected.line) == (3, ["a", "c"], (2,))


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([[1, 2], [True]], "row 2, column 'i': expected an id"),
        ([[1, 2], [b"\xff"]], "row 2, column 'i': expected bytes that are UTF-8"),
        ([[1.0, 2.0], [2.0**53]], "row 2, column 'i': expected ids below"),
    ],
)
def test_values_of_lists_are_named_by_the_row_of_their_list(items, says):
    with pytest.raises((TypeError, ValueError), match=says):
        read_log({"u": [1, 2], "i": items}, **SEQUENCE)


@pytest.mark.parametrize("name", FORMS)
def test_names_that_differ_by_case_are_different(name, tmp_path):
    source = form(name, {"u": [1, 2], "i": [3, 4], "U": [5, 6]}, tmp_path)
    log = read_log(source, user="U", item="u")
    assert (log.user_ids.tolist(), log.item_ids.tolist()) == ([5, 6], [1, 2])


def test_a_name_that_a_parquet_file_has_twice_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    nested = pa.array([{"u": 1, "x": [1]}, {"u": 2, "x": []}])
    pq.write_table(pa.table([nested, [1, 2], [3, 4], [5, 6]], names=["n", "u", "i", "u"]), tmp_path / "t")
    with pytest.raises(ValueError, match=r"column 'u': expected each name once; got 2 columns"):
        read_log(tmp_path / "t", user="u", item="i")
    pq.write_table(pa.table([nested, [1, 2], [3, 4]], names=["n", "u", "i"]), tmp_path / "t")
    assert read_log(tmp_path / "t", user="u", item="i").item_ids.tolist() == [3, 4]


@pytest.mark.parametrize("name", FORMS)
def test_a_nul_in_a_table_is_named_by_row_and_column(name, tmp_path, monkeypatch):
    monkeypatch.setattr("fastpop.data.staging.BLOCK", 16)
    table = {"u": ["a\nb", 'c,"d', "e", "f"], "i": ["x" * 40, "y,", "z\0", "w\0"]}
    with pytest.raises(ValueError, match=r"row 3, column 'i': expected text without NUL"):
        read_log(form(name, table, tmp_path), user="u", item="i")
    lists = {"u": ["a", "b"], "i": [["x", "y"], ["z", "\0"]]}
    with pytest.raises(ValueError, match=r"row 2, column 'i': expected text without NUL"):
        read_log(form(name, lists, tmp_path), **SEQUENCE)


def test_a_set_is_no_column():
    with pytest.raises(TypeError, match="column 'u': expected an array or a list; got set"):
        read_log({"u": {1, 2}, "i": [1, 2]}, user="u", item="i")


def test_bad_rows_without_end_are_counted_and_kept_while_there_is_room(tmp_path, monkeypatch):
    path = tmp_path / "bad.csv"
    path.write_text("u,i\n1,2\n" + "".join(f"{n},{n},{n}\n" for n in range(5000)) + "3,4\n,5\n")
    monkeypatch.setattr(bad_rows, "SHARE_OF_REJECTED", 0.01)
    monkeypatch.setattr("fastpop.data.staging.BLOCK", 1 << 12)
    with pytest.warns(UserWarning, match="of 5,001 rejected rows, the first .* are kept"):
        log = read_log(path, user="u", item="i", on_bad_row="skip", memory_limit="20MB")
    facts = log.facts
    assert (facts["records"], facts["rows_read"], facts["rows_rejected"]) == (5003, 2, 5001)
    kept = len(log.rejected)
    assert 300 < kept < 20e6 * 0.01 / bad_rows.COST
    assert log.rejected.line == tuple(range(3, 3 + kept))
    assert log.rejected.text[-1] == f"{kept - 1},{kept - 1},{kept - 1}"
    assert f"the first {kept}" in facts["notes"][0]
