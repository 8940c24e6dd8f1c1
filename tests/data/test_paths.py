"""A path is a name: what DuckDB opens is the file of that name, whatever is in the name."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from fastpop import files
from fastpop.data.paths import engine_name, engine_path, engine_words, local_path

NAMES = [
    "plain.csv",
    "a[1].csv",
    "b*.csv",
    "q?.csv",
    "c{1,2}.csv",
    "e\\x.csv",
    "w[!a].csv",
    "]x[.csv",
    "it's.csv",
    'say "hi".csv',
    "~x.csv",
    "k=v.csv",
    "**",
    "g[abc",
    "new\nline.csv",
    "é.csv",
    os.fsdecode(b"not-utf8-\xff.csv"),
    "a b.csv",
    "--",
    "%20.csv",
    "x.csv.gz",
    "x.parquet",
]
FOLDERS = ["", "time=2024-01-01", "u=9", "day[1]", "**", "back\\slash", os.fsdecode(b"f\xff")]


@pytest.mark.parametrize("above", FOLDERS)
def test_reading_and_writing_go_to_the_file_of_that_name(tmp_path, above):
    folder = tmp_path / above
    folder.mkdir(exist_ok=True)
    for other in ("a1.csv", "bx.csv", "qx.csv", "c1.csv", "wb.csv", "k"):
        (folder / other).write_text("u\nwrong\n")
    for number, name in enumerate(NAMES):
        (folder / name).write_text(f"u\n{number}\n")
    for number, name in enumerate(NAMES):
        sql = (
            f"SELECT * FROM read_csv({engine_path(folder / name)}, header=true, delim=',', "
            "columns={'u': 'VARCHAR'}, compression='none')"
        )
        found = duckdb.connect().execute(sql)
        assert [d[0] for d in found.description] == ["u"]
        assert found.fetchall() == [(str(number),)], name
    before = sorted(os.listdir(folder))
    inside = engine_path(folder)[1:-1] + "/out.parquet"
    duckdb.connect().execute(f"COPY (SELECT 5 AS u) TO '{inside}' (FORMAT parquet)")
    assert sorted(os.listdir(folder)) == sorted([*before, "out.parquet"])


def test_a_path_through_a_link_and_back_is_the_systems(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "far" / "x.csv").write_text("far")
    (tmp_path / "x.csv").write_text("near")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    assert Path(engine_name(tmp_path / "link" / ".." / "x.csv")).read_text() == "far"


def test_messages_name_the_users_path(tmp_path):
    path = tmp_path / "day=1" / "a[1].csv"
    path.parent.mkdir()
    with pytest.raises(duckdb.Error) as told:
        duckdb.connect().execute(f"SELECT * FROM read_csv({engine_path(path)})")
    assert str(path) not in str(told.value)
    assert str(path) in engine_words(str(told.value))


def test_links_go_with_the_process(tmp_path):
    code = (
        "from fastpop.data.paths import engine_name; import os; "
        f"name = engine_name({str(tmp_path / 'a[1]')!r}); print(name); "
        "assert os.path.islink(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).parent.exists()


def test_a_killed_process_leaves_links_until_the_next(tmp_path):
    code = (
        "import os, sys; from fastpop.data.paths import engine_name; "
        "print(engine_name('/a[1]'), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    left = Path(done.stdout.strip()).parent
    assert left.parent == tmp_path
    assert left.is_dir()
    mine = files.scratch_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [mine.name]
    files.remove_scratch(mine)


def test_local_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/exp") == tmp_path / "exp"
    assert local_path(Path("~")) == tmp_path
    assert local_path(b"a\xff") == Path(os.fsdecode(b"a\xff"))
    assert local_path("a/~/b") == Path("a/~/b")
    assert local_path("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    for bad, kind in ((None, TypeError), (3, TypeError), ("", ValueError), ("a\0b", ValueError)):
        with pytest.raises(kind, match="out: expected a path"):
            local_path(bad, "out")
