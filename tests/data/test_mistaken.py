"""Files that look like something else: dates like numbers, separators like data, text like an archive."""

import bz2

import pytest

from fastpop.data import Columns, read_log


def put(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("times", "time_format", "first"),
    [
        (("20171124", "20171130"), "%Y%m%d", 1511481600),
        (("2017112410", "2017113023"), "%Y%m%d%H", 1511517600),
        (("201711241030", "201711302359"), "%Y%m%d%H%M", 1511519400),
        (("20171124103059", "20171130235900"), "%Y%m%d%H%M%S", 1511519459),
    ],
)
def test_dates_run_together_are_no_unix_time(times, time_format, first, tmp_path):
    path = put(tmp_path, "u,i,t\n" + "".join(f"1,{n},{time}\n" for n, time in enumerate(times)))
    with pytest.raises(ValueError, match=f"column 't': .*time_format='{time_format}'"):
        read_log(path, user="u", item="i", time="t")
    columns = Columns(user="u", item="i", time="t", time_format=time_format)
    assert read_log(path, columns=columns).time[0] == first
    seconds = read_log(path, columns=Columns(user="u", item="i", time="t", time_unit="us"))
    assert seconds.time[0] == int(times[0]) // 10**6


def test_a_bad_row_does_not_hide_dates_run_together(tmp_path):
    path = put(tmp_path, "u,i,t\n1,2,20171124\n1,3,xx\n1,4,\n1,5,20171125\n")
    with pytest.raises(ValueError, match="time_format='%Y%m%d'"):
        read_log(path, user="u", item="i", time="t", on_bad_row="skip")


@pytest.mark.parametrize(
    "times",
    ["20171124 20171324", "2017112410 2017112424", "2000000000 2017112410", "20171124103059 20171124106000"],
)
def test_numbers_that_are_no_dates_are_unix_time(times, tmp_path):
    rows = "".join(f"1,{n},{time}\n" for n, time in enumerate(times.split()))
    assert read_log(put(tmp_path, "u,i,t\n" + rows), user="u", item="i", time="t").num_events == 2


def test_a_comma_in_every_line_does_not_make_a_csv(tmp_path):
    even = put(tmp_path, "1\t10\tHello, World\n2\t20\tBye, World\n", "log.txt")
    with pytest.raises(ValueError, match=r"line 1: expected one separator; got lines that ',' and '\\t'"):
        read_log(even, user=0, item=1)
    assert read_log(even, user=0, item=1, separator="\t").item_ids.tolist() == [10, 20]
    uneven = put(tmp_path, "1\t10\tHello, World\n2\t20\tBye\n", "log.txt")
    assert read_log(uneven, user=0, item=1).item_ids.tolist() == [10, 20]
    genres = put(tmp_path, "1,10,Action|Drama\n2,20,War\n", "log.dat")
    assert read_log(genres, user=0, item=1).item_ids.tolist() == [10, 20]
    quoted = put(tmp_path, '1,10,"a\tb"\n2,20,"c\td"\n', "log.txt")
    assert read_log(quoted, user=0, item=1).item_ids.tolist() == [10, 20]
    named = put(tmp_path, "1\t10\tHello, World\n2\t20\tBye, World\n", "log.tsv")
    assert read_log(named, user=0, item=1).item_ids.tolist() == [10, 20]


@pytest.mark.parametrize("first", ["BZh", "BZh9", "PAR1", "PAR1 "])
def test_a_header_is_no_archive(first, tmp_path):
    path = put(tmp_path, f"{first},u,i\n1,2,3\n")
    assert read_log(path, user="u", item="i").item_ids.tolist() == [3]


@pytest.mark.parametrize("text", [b"", b"u,i\n1,2\n"])
def test_an_archive_is_one(text, tmp_path):
    with pytest.raises(ValueError, match="got a bzip2 file: unpack it first"):
        read_log(put(tmp_path, bz2.compress(text)), user="u", item="i")


def test_codecs_that_make_no_text_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"encoding: expected an encoding such as utf-8.*'undefined'"):
        read_log(put(tmp_path, "u,i\n1,2\n"), user="u", item="i", encoding="undefined")
    with pytest.raises(ValueError, match=r"a\.csv, near byte \d+: expected unicode-escape text"):
        read_log(put(tmp_path, "u,i\n\\ud800,2\n"), user="u", item="i", encoding="unicode_escape")
