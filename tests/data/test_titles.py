"""Titles of items, of tables in every form."""

import gzip

import numpy as np
import pytest

from fastpop.data import Titles, read_titles

WANT = {"1": "Toy Story, again", "2": "Heat"}
TEXTS = {
    "comma": 'movieId,title,genres\n1,"Toy Story, again",x\n2,Heat,y\n',
    "tab": "item_id\ttitle\n1\tToy Story, again\n2\tHeat\n",
    "semicolon": "id;name\r\n1;Toy Story, again\r\n2;Heat\r\n",
    "mark": '\ufeffITEM,Title\n1,"Toy Story, again"\n2,Heat\n\n',
    "gaps": 'id,title\n1,"Toy Story, again"\n2,Heat\n3,\n,none\n',
}


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("packed", [False, True])
def test_text_in_every_form(form, packed, tmp_path):
    path = tmp_path / "items"
    raw = TEXTS[form].encode()
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert dict(read_titles(path).by_id) == WANT


def test_a_file_without_header(tmp_path):
    path = tmp_path / "movies.dat"
    path.write_bytes("1::Toy Story, again::Animation\n2::Amélie::Comedy\n".encode("latin-1"))
    found = read_titles(path, 0, 1, encoding="latin-1")
    assert found.of([2, 1, 7]).tolist() == ["Amélie", "Toy Story, again", None]
    with pytest.raises(ValueError, match="expected text in utf-8"):
        read_titles(path, 0, 1)
    with pytest.raises(ValueError, match="row 1: expected at least 8 fields; got 3"):
        read_titles(path, 0, 7, encoding="latin-1")
    with pytest.raises(ValueError, match="id, title: expected both by name or both by position"):
        read_titles(path, 0, "title")


def test_tables_in_memory_and_parquet(tmp_path):
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    columns = {"item": [1, 2, None], "title": ["Toy Story, again", "Heat", "lost"]}
    frame = pandas.DataFrame(columns)  # whose ids are floats
    table = polars.DataFrame(columns)
    table.write_parquet(tmp_path / "items.parquet")
    for source in (columns, frame, table, table.to_arrow(), tmp_path / "items.parquet", WANT, Titles(WANT)):
        assert dict(read_titles(source).by_id) == WANT
    assert read_titles(frame, id="item", title="title").of(np.array([2])).tolist() == ["Heat"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,title\n1,x\n", {}, "id: expected the name of a column .*got columns a, title"),
        ("id,b\n1,x\n", {}, "title: expected the name of a column"),
        ("id,title\n1,x\n", {"title": "name"}, "title: expected one of 'id', 'title'; got 'name'"),
        ("id,title\n1,x\n1,y\n", {}, "expected one title an item; got 'x' and 'y' for item 1"),
        ("id,title\n1\n", {}, "row 2: expected at least 2 fields; got 1"),
        ("", {}, "expected rows with an id and a title; got an empty file"),
        ("id,title\n", {}, "expected rows with an id and a title; got none"),
    ],
)
def test_what_is_wrong_is_named(text, options, message, tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_titles(path, **options)


def test_what_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_titles(tmp_path / "none.csv")


@pytest.mark.parametrize("bytes_", [b"PAR1", b"PAR1junkPAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_parquet_file_that_is_none_is_one_error(bytes_, tmp_path):
    pytest.importorskip("duckdb")
    path = tmp_path / "titles.parquet"
    path.write_bytes(bytes_)
    with pytest.raises(ValueError, match=r"titles\.parquet: expected a sound parquet file; got "):
        read_titles(path)


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"titles: expected a file; got '.*none\.csv', which does not exist"
    ):
        read_titles(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"titles: expected a file; got '.*', a folder"):
        read_titles(tmp_path)


def test_one_column_is_not_both(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item_id,title\n1,a\n")
    with pytest.raises(
        ValueError, match=r"id, title: expected two columns of .*items\.csv; got \('title', 'title'\)"
    ):
        read_titles(path, id="title", title="title")


def test_titles_say_of_how_many_items_they_are():
    titles = read_titles({1: "One", "2": "Two", 9: "Nine"})
    titles.check([1, np.int64(2)])
    titles.check({"9"})
    titles.check([])  # nothing to name
    with pytest.warns(UserWarning, match="^titles for 1 of 1,001 items; the others are shown by their ids$"):
        titles.check(range(3, 1004))
    with pytest.raises(
        ValueError,
        match=r"^titles: expected a table by ids of items, as 'i1'; got titles for 0 of 2 items, by ids as "
        r"'1'$",
    ):
        titles.check(["i1", "i2"])
