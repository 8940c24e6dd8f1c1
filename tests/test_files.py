"""All or nothing: whatever stops a writer, what was there before is there, and nothing else."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastpop
from fastpop import files
from fastpop.data import staging


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def largest_file(num_bytes: int):
    """The system refuses to make a file any larger: what a full disk does, in small."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def killed(code: str, marker: Path, number: int = signal.SIGKILL) -> None:
    """Run code in a process of its own, and kill it once it has made the marker."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    for _ in range(3000):
        if marker.exists():
            break
        assert process.poll() is None, "the process ended by itself"
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    marker.unlink()


def half_written(path: Path) -> None:
    with files.atomic_file(path) as file:
        file.write("half")
        raise RuntimeError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    assert files.write_text(path, "one\r\ntwo é") == path
    assert path.read_bytes() == "one\r\ntwo é".encode()
    files.write_bytes(path, b"\0\1")
    assert path.read_bytes() == b"\0\1"
    with pytest.raises(RuntimeError):
        half_written(path)
    assert path.read_bytes() == b"\0\1"
    assert names(path.parent) == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask  # not a private file


def test_a_full_disk_is_one_error_that_names_the_path(tmp_path):
    path = tmp_path / "a.bin"
    path.write_text("before")
    with largest_file(1000), pytest.raises(OSError, match=f"room; got {path}: File too large") as told:
        files.write_bytes(path, b"x" * 5000)
    assert told.value.errno is not None
    assert path.read_text() == "before"
    folder = tmp_path / "f"
    with (
        largest_file(1000),
        pytest.raises(OSError, match=f"got {folder}: File too large"),
        files.atomic_folder(folder) as draft,
    ):
        (draft / "x").write_bytes(b"x" * 5000)
    assert names(tmp_path) == ["a.bin"]


def test_a_full_temporary_folder_is_named_in_the_place_of_what_is_written(tmp_path):
    """The folder of a prepared log was named, where its disk had all the room."""
    pipe, place = tmp_path / "pipe", tmp_path / "temporary"
    os.mkfifo(pipe)
    place.mkdir()
    writer = threading.Thread(target=pipe.write_text, args=("u,i\n" + "1,7\n" * 1000,))
    writer.start()
    with largest_file(1000), pytest.raises(OSError, match="room") as told:
        fastpop.data.prepare(pipe, tmp_path / "out", user="u", item="i", temp_folder=place, progress=False)
    writer.join()
    assert f"expected a temporary folder with room (TMPDIR says where); got {place}/" in str(told.value)
    assert "out" not in str(told.value)
    assert told.value.errno == errno.EFBIG
    assert names(tmp_path) == ["pipe", "temporary"]
    assert names(place) == []
    piece = staging.Piece(None, 0, 0, 0, 0, 1000, 1000, {})
    with largest_file(1000), pytest.raises(OSError, match="a temporary folder with room"):
        staging.ColumnStore(place, 0).put(piece, {"a": np.zeros(1000)})


def test_errors_of_the_block_that_are_about_something_else_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"source\.csv"), files.atomic_folder(tmp_path / "f"):
        (tmp_path / "source.csv").read_text()
    assert names(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "a" / "b"):
        with pytest.raises(OSError, match=f"got {path}: "):
            files.write_text(path, "y")
        with pytest.raises(OSError, match=f"got {path}: "), files.atomic_folder(path):
            pass
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match=r"got .*/d: Is a directory"):
        files.write_text(tmp_path / "d", "y")
    assert names(tmp_path) == ["d", "file"]
    assert (tmp_path / "file").read_text() == "x"


def test_links_are_followed_and_pipes_are_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    with files.atomic_folder(tmp_path / "folder") as draft:
        (draft / "b").write_text("b")
    assert (tmp_path / "folder").is_symlink()
    assert names(tmp_path / "real") == ["b"]
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    files.write_text(tmp_path / "pipe", "through")
    reader.join(10)
    assert got == ["through"]


def test_a_folder_is_replaced_whole_and_only_where_it_may_be(tmp_path):
    folder = tmp_path / "f"
    with files.atomic_folder(folder) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "a").write_text("1")
    with files.atomic_folder(folder) as draft:
        (draft / "b").write_text("2")
    assert names(folder) == ["b"]
    with (
        pytest.raises(FileExistsError, match="holds something else"),
        files.atomic_folder(folder, replaces=lambda _: False),
    ):
        pytest.fail("the block must not run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="which is a file"), files.atomic_folder(tmp_path / "file"):
        pass
    assert names(tmp_path) == ["f", "file"]


def test_long_and_odd_names(tmp_path):
    for name in ("x" * 250, "a[1]", "-rf", os.fsdecode(b"\xff\xfe"), "é" * 120, "new\nline"):
        files.write_text(tmp_path / name, name.encode("utf-8", "backslashreplace").decode())
        with files.atomic_folder(tmp_path / (name[:-1] + "d")) as draft:
            (draft / "x").write_text("x")
    assert len(names(tmp_path)) == 12


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path):
    target, folder, marker = tmp_path / "a.txt", tmp_path / "f", tmp_path / "marker"
    target.write_text("before")
    killed(
        f"""
        import time
        from pathlib import Path
        from fastpop import files
        with files.atomic_file({str(target)!r}) as file, files.atomic_folder({str(folder)!r}) as draft:
            file.write("half")
            (draft / "half").write_text("half")
            Path({str(marker)!r}).touch()
            time.sleep(60)
    """,
        marker,
    )
    assert target.read_text() == "before"
    assert len(names(tmp_path)) == 4  # two drafts and the lock of the folder
    files.write_text(target, "after")
    with files.atomic_folder(folder) as draft:
        (draft / "whole").write_text("x")
    assert names(tmp_path) == ["a.txt", "f"]


def test_what_killed_writers_left_in_a_held_folder_goes_and_the_living_stay(tmp_path):
    """A run that goes on need not write the same names again: step 106 may be step 104 now."""
    marker = tmp_path / "marker"
    killed(
        f"""
        import time
        from pathlib import Path
        from fastpop import files
        with files.atomic_folder({str(tmp_path / "checkpoint-106")!r}) as draft:
            (draft / "half").write_text("half")
            Path({str(marker)!r}).touch()
            time.sleep(60)
    """,
        marker,
    )
    assert any(name.endswith(files.LOCK) for name in names(tmp_path))
    with files.locked(tmp_path / ".living.fastpop-lock", "x"):
        files.sweep_inside(tmp_path)
        assert names(tmp_path) == [".living.fastpop-lock"]
    assert names(tmp_path) == []


def test_a_living_writers_draft_stays(tmp_path):
    with files.atomic_file(tmp_path / "a.txt") as first:
        first.write("first")
        files.write_text(tmp_path / "a.txt", "second")
        assert (tmp_path / "a.txt").read_text() == "second"
    assert (tmp_path / "a.txt").read_text() == "first"


def test_two_writers_of_one_folder(tmp_path):
    folder, marker = tmp_path / "f", tmp_path / "marker"
    code = f"""
        import time
        from pathlib import Path
        from fastpop import files
        with files.atomic_folder({str(folder)!r}) as draft:
            (draft / "a").write_text("theirs")
            Path({str(marker)!r}).touch()
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    while not marker.exists():
        time.sleep(0.01)
    with (
        pytest.raises(files.Busy, match=f"got {folder}, which process {process.pid} is writing now"),
        files.atomic_folder(folder),
    ):
        pytest.fail("the block must not run")
    process.kill()
    process.wait()
    with files.atomic_folder(folder) as draft:
        (draft / "a").write_text("ours")
    assert names(tmp_path) == ["f", "marker"]
    assert (folder / "a").read_text() == "ours"


def test_many_threads_and_one_folder(tmp_path):
    """One of them at a time, each whole; the others are told."""
    told = []

    def write(number: int) -> None:
        for _ in range(20):
            try:
                with files.atomic_folder(tmp_path / "f") as draft:
                    for name in "abc":
                        (draft / name).write_text(str(number))
                told.append("written")
            except files.Busy:
                told.append("busy")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 80
    assert "written" in told
    assert names(tmp_path) == ["f"]
    assert len({(tmp_path / "f" / name).read_text() for name in "abc"}) == 1


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    folder = tmp_path / "f"
    with files.atomic_folder(folder) as draft:
        (draft / "a").write_text("old")
    folder.rename(tmp_path / ".f.fastpop-old")  # where such a kill leaves it
    files.recover(folder)
    assert (folder / "a").read_text() == "old"
    folder.rename(tmp_path / ".f.fastpop-old")
    with pytest.raises(RuntimeError), files.atomic_folder(folder):
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert names(tmp_path) == ["f"]


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(files.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", without)
    with (
        pytest.warns(RuntimeWarning, match="this file system has no locks"),
        files.atomic_folder(tmp_path / "f") as draft,
    ):
        (draft / "a").write_text("x")
    monkeypatch.setattr(files, "fcntl", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.write_text(tmp_path / "a", "x")
    assert names(tmp_path) == ["a", "f"]


def test_scratch_folders_of_dead_processes_go_and_others_stay(tmp_path):
    (tmp_path / "fastpop-results").mkdir()  # somebody's own
    (tmp_path / "fastpop-results" / "thesis").write_text("x")
    killed(
        f"""
        import time
        from pathlib import Path
        from fastpop import files
        folder = files.scratch_folder({str(tmp_path)!r})
        (folder / "spill").write_text("gigabytes")
        Path({str(tmp_path / "marker")!r}).touch()
        time.sleep(60)
    """,
        tmp_path / "marker",
    )
    assert len(names(tmp_path)) == 2
    first = files.scratch_folder(tmp_path)
    second = files.scratch_folder(tmp_path)
    assert names(tmp_path) == sorted([first.name, second.name, "fastpop-results"])
    files.remove_scratch(first)
    files.remove_scratch(second)
    assert names(tmp_path) == ["fastpop-results"]
    with pytest.raises(OSError, match=r"expected a writable temporary folder; got .*nowhere"):
        files.scratch_folder(tmp_path / "nowhere")


def test_nothing_of_anybody_elses_is_swept(tmp_path):
    """Names that look like leftovers to others: downloads, editors, backups."""
    for name in (
        ".f.12345678.part",
        ".f.part",
        ".f.old",
        ".f.lock",
        "f.part",
        ".f.x.fastpop",
        ".g.a.fastpop-part",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").touch()
    before = names(tmp_path)
    with files.atomic_folder(tmp_path / "f") as draft:
        (draft / "x").touch()
    files.write_text(tmp_path / "f2", "x")
    assert names(tmp_path) == sorted([*before, "f", "f2"])
    assert all((tmp_path / name / "thesis").exists() for name in before)


def test_many_threads_and_one_file(tmp_path):
    def write(number: int) -> None:
        for _ in range(30):
            files.write_text(tmp_path / "f", str(number) * 1000)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "f").read_text())) == 1
    assert names(tmp_path) == ["f"]


def test_what_goes_while_drafts_are_listed_hides_no_dead_one(tmp_path):
    gone = [f".f.{n:08x}.fastpop-new" for n in range(30)]  # links to nothing stand for what went
    for name in gone:
        (tmp_path / name).symlink_to(tmp_path / "nothing")
    old = tmp_path / ".f.12345678.fastpop-new"
    old.write_text("")
    os.utime(old, (time.time() - 3600,) * 2)
    files.write_text(tmp_path / "f", "x")
    assert names(tmp_path) == [*gone, "f"]


def test_a_draft_that_was_never_locked_goes_once_it_is_old(tmp_path):
    new = tmp_path / ".f.12345678.fastpop-new"
    new.write_text("")
    files.write_text(tmp_path / "f", "x")
    assert names(tmp_path) == [".f.12345678.fastpop-new", "f"]
    os.utime(new, (time.time() - 3600,) * 2)
    files.write_text(tmp_path / "f", "y")
    assert names(tmp_path) == ["f"]
