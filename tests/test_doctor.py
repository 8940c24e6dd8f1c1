"""What doctor says of the machine."""

import importlib.metadata
import json
import re

import pytest

from fastpop import doctor
from fastpop.training import memory


def test_memory_and_disk_are_said(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert re.search(r"^memory: [\d.]+ GiB free; disk: [\d.]+ GiB free here$", doctor.report(), re.MULTILINE)
    monkeypatch.setattr(memory, "free", lambda device: None)
    assert "memory: the system does not say; disk: " in doctor.report()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_said(monkeypatch):
    def gone(path):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(doctor.shutil, "disk_usage", gone)
    said = " ".join(doctor.report().split())
    assert "disk: this folder cannot be read (No such file or directory)" in said
    assert "- disk: this folder cannot be read (No such file or directory); go to a folder" in said


@pytest.mark.parametrize("name", ["threadpoolctl", "duckdb", "matplotlib", "numpy"])
def test_packages_are_listed_by_version(name):
    assert f"{name} {importlib.metadata.version(name)}" in " ".join(doctor.report().split())


def test_it_is_a_block_to_paste(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lines = doctor.report().splitlines()
    assert lines[:2] == ["for a bug report, as it is:", "```"]
    assert lines[-1] == "```"
    assert lines.count("```") == 2
    assert max(map(len, lines)) <= 80
    assert re.match(r"fastpop \S+, Python \S+, torch \S+$", lines[2])


def test_what_is_found_is_plain_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = doctor.found()
    assert json.loads(json.dumps(here)) == here
    assert here["file_locks"] is True
    assert here["cores_usable"] >= 1
    assert "sasrec" in here["names"]["encoders"]


def test_problems_are_named_with_what_helps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sound = doctor.found() | {
        "memory_free_bytes": 1 << 34,
        "disk_free_bytes": 1 << 34,
        "torch_threads": 1,
        "does_not_run": {},
        "cards": [],
    }
    assert doctor.problems(sound) == []
    assert "problems: none found" in doctor.report(sound | {"problems": []})
    card = {"name": "X", "memory_bytes": 1 << 34, "memory_free_bytes": 1 << 20, "capability": "9.0"}
    for change, said in (
        ({"memory_free_bytes": 1 << 29}, "memory: 0.50 GiB are free"),
        ({"disk_free_bytes": 1 << 28}, "disk: 0.25 GiB are free here; give --out on another disk"),
        ({"torch_threads": 64, "cores_usable": 2}, "threads: torch uses 64 on 2 cores; set OMP_NUM_THREADS"),
        ({"does_not_run": {"cpu": "no file"}}, "the compiled module does not load"),
        ({"file_locks": "this file system has none"}, "file locks: this file system has none"),
        ({"cards": [card]}, "card X: less than 1 GiB is free"),
    ):
        (one,) = doctor.problems(sound | change)
        assert one.startswith(said)
        assert f"- {said}"[:60] in " ".join(doctor.report(sound | change | {"problems": [one]}).split())


def test_a_folder_without_locks_or_without_writing_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def no_locks(handle, how):
        raise OSError(doctor.files.errno.ENOLCK, "no locks")

    if doctor.files.fcntl is not None:
        monkeypatch.setattr(doctor.files.fcntl, "flock", no_locks)
        assert doctor._locks() == "this file system has none"

    def read_only(**options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", read_only)
    assert doctor._locks() == "not tried, as nothing can be written here (Read-only file system)"
