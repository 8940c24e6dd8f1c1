"""Text on which readers go wrong in silence: quotes, line breaks, headers, encodings."""

import csv
import gzip
import io

import pandas as pd
import pytest
from helpers_logs import items, put

from fastpop.data import read_log

UI = {"user": "u", "item": "i"}


# Quotes, line breaks, headers, encodings.

HEROES = """user\titem\ttitle
1\t1\tLow\n2\t2\t"Heroes\n3\t3\tLodger\n4\t4\tStage\n5\t5\tBlue Monday 12"\n6\t6\tx
"""


def test_a_quote_that_is_data_swallows_nothing(tmp_path):
    path = put(tmp_path / "a.tsv", HEROES)
    for mode in ("raise", "skip"):
        with pytest.raises(ValueError, match=r"line 3: .*a quote .* would swallow the rows to line 6"):
            read_log(path, user="user", item="item", on_bad_row=mode)
        with pytest.raises(ValueError, match="line 3"):
            read_log(path, user="user", item="item", quoting="minimal", on_bad_row=mode)
    for off in ({"quoting": "none"}, {"quote": None}, {"quoting": csv.QUOTE_NONE}, {"quote": ""}):
        log = read_log(path, user="user", item="item", **off)
        assert (log.num_events, log.facts["records"]) == (6, 6)


@pytest.mark.parametrize(
    "text",
    [
        'u,i,r\n1,1,"a\n2,2,b\n3,3,c"\n4,4,d\n',
        'u,r,i\n1,"a,1\n2,b,2\n3,c",3\n',
        'u,i,r\n1,1,"a\n2,2,b\n3,3,"c"\n',
        'u,i,r\n1,1,x\n1,1,"a\n2,2,b\n3,3,c\n',
        'u,i\n"1,1\n2,2\n"3,3\n',
    ],
)
def test_other_swallowed_rows(text, tmp_path):
    path = put(tmp_path / "a.csv", text)
    for mode in ("raise", "skip"):
        with pytest.raises(ValueError, match=r"line \d: .*swallow the rows to line \d"):
            read_log(path, **UI, on_bad_row=mode)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("inside", ["\n", "\r\n", "\r", "\n\n", "\n1,2\n", '"'])
def test_line_breaks_inside_of_quotes_are_data(end, inside, tmp_path):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC)  # some leave CR bare
    writer.writerows([["u", "i", "review"], [1, 7, f"one{inside}two"], [2, 8, "fine"]])
    log = read_log(put(tmp_path / "a.csv", out.getvalue()), **UI)
    assert (log.num_events, items(log)) == (2, [7, 8])
    pd.DataFrame({"u": [1, 2], "r": [f"a{inside}b", "c"], "i": [7, 8]}).to_csv(
        tmp_path / "b.csv", index=False, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC
    )
    assert items(read_log(tmp_path / "b.csv", **UI)) == [7, 8]


def test_line_numbers_after_line_breaks(tmp_path):
    path = put(tmp_path / "a.csv", 'u,r,i\n1,"a\nb\nc",7\n\n2,x,\n')
    with pytest.raises(ValueError, match="line 6, column 'i': expected an id"):
        read_log(path, **UI)


@pytest.mark.parametrize(
    "name", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "shift_jis", "utf-8-sig"]
)
def test_encodings(name, tmp_path):
    word = "カフェ" if name == "shift_jis" else "café"
    path = put(tmp_path / "a.csv", f"u,i,{word}\n1,{word},x\n2,b,{word}\n", name)
    log = read_log(path, **UI, encoding=name)
    assert log.item_ids.tolist() == ["b", word]
    packed = put(tmp_path / "a.csv.gz", gzip.compress(path.read_bytes()))
    assert read_log(packed, **UI, encoding=name).item_ids.tolist() == ["b", word]
    with pytest.raises(ValueError, match=r"line 3, column 'u': expected an id"):
        read_log(put(path, f"u,i\n1,{word}\n,{word}\n", name), **UI, encoding=name)


def test_a_bad_byte_in_a_column_nobody_reads(tmp_path):
    path = put(tmp_path / "a.csv", "u,i,title\n1,2,café\n2,3,x\n", "latin-1")
    assert read_log(path, **UI).num_events == 2
    with pytest.raises(ValueError, match=r"line 2: .*UTF-8 text; got byte 0xe9 in column 'title'.*latin-1"):
        read_log(path, user="u", item="title")
    with pytest.raises(ValueError, match="encoding: expected an encoding such as"):
        read_log(path, **UI, encoding="latin-99")
    with pytest.raises(ValueError, match=r"expected shift_jis text"):
        read_log(path, **UI, encoding="shift_jis")
    utf16 = put(tmp_path / "b.csv", "u,i\n1,2\n", "utf-16")
    with pytest.raises(ValueError, match=r"line 1: expected UTF-8 text; got UTF-16 .give encoding='utf-16'"):
        read_log(utf16, **UI)


def test_a_header_of_numbers(tmp_path):
    path = put(tmp_path / "a.csv", "0,1,2\n5,6,1500000000\n7,8,1500000001\n")
    for how in (
        {"user": 0, "item": 1, "time": 2},
        {"user": "0", "item": "1", "time": "2"},
        {"user": 0, "item": 1, "header": True},
    ):
        log = read_log(path, **how)
        assert (log.num_events, log.user_ids.tolist()) == (2, [5, 7])
    assert read_log(path, user=0, item=1, header=False).num_events == 3
    other = put(tmp_path / "b.csv", "a,b\n1,2\n3,4\n")
    assert read_log(other, user=1, item=0, header=True).user_ids.tolist() == [2, 4]
    with pytest.raises(ValueError, match="header: expected a header for columns given by name"):
        read_log(other, user="a", item="b", header=False)


def test_rows_of_several_megabytes(tmp_path):
    long = "x" * 3_000_000
    path = put(tmp_path / "a.csv", f"u,i,t\n1,2,{long}\n3,4,y\n5,{long},z\n")
    log = read_log(path, **UI)
    assert (log.num_events, log.user_ids.tolist()) == (3, [1, 3, 5])
    assert long in log.item_ids
    quoted = put(tmp_path / "b.csv", f'u,i,t\n1,2,"{long}\n{long}"\n3,4,y\n')
    assert read_log(quoted, **UI).num_events == 2


def test_one_error_at_once_for_what_is_too_long(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b"u,i\n1,2\n3,")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n")
    for mode in ("raise", "skip"):
        with pytest.raises(ValueError, match=r"line 3: expected rows of up to 64 MB"):
            read_log(path, **UI, on_bad_row=mode)
    ragged = put(tmp_path / "b.csv", "u,i\n1,2\n" + "3," * 100_000 + "\n5,6\n")
    with pytest.raises(ValueError, match=r"line 3: expected 2 fields .*got 100001 \(ragged row\)") as error:
        read_log(ragged, **UI)
    assert len(str(error.value)) < 400
    assert read_log(ragged, **UI, on_bad_row="skip").num_events == 2
    bomb = tmp_path / "c.csv.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(b"\0" * 1_000_000)
    with pytest.raises(ValueError, match="NUL byte"):
        read_log(bomb, **UI)


def test_blank_lines_are_skipped_and_counted(tmp_path):
    for end in ("\n", "\r\n"):
        path = put(tmp_path / "a.csv", f"u,i{end}1,2{end}{end}3,4{end}   {end}{end}5,{end}{end}")
        with pytest.raises(ValueError, match="line 7, column 'i'"):
            read_log(path, **UI)
        log = read_log(path, **UI, on_bad_row="skip")
        assert log.num_events == 2
        assert (log.facts["blank_lines"], log.facts["records"], log.facts["rows_rejected"]) == (4, 3, 1)
        assert log.rejected.line == (7,)
    before = put(tmp_path / "b.csv", "\n\nu,i\n1,\n")
    with pytest.raises(ValueError, match="line 4, column 'i'"):
        read_log(before, **UI)


def test_quotes_of_another_kind_and_everywhere(tmp_path):
    path = put(tmp_path / "a.csv", "u;i\n'1;1';2\n'it''s';3\n")
    assert read_log(path, **UI, quote="'", separator=";").user_ids.tolist() == ["1;1", "it's"]
    everywhere = put(tmp_path / "b.csv", '"u","i"\n"1","2"\n3,"4"\n')
    assert read_log(everywhere, **UI).num_events == 2
    with pytest.raises(ValueError, match="line 3: expected every field in quotes"):
        read_log(everywhere, **UI, quoting="all")
    for bad in (
        {"quote": "''"},
        {"quote": ";", "separator": ";"},
        {"quoting": "most"},
        {"quoting": 9},
        {"quote": None, "quoting": "all"},
        {"separator": "\n"},
    ):
        with pytest.raises(ValueError, match=r"quot|separator"):
            read_log(path, **UI, **bad)
