"""What doctor says of the machine."""

import re

import pytest

from fastpop import doctor
from fastpop.training import memory


def test_memory_and_disk_are_said(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert re.search(r"^memory: [\d.]+ GiB free; disk: [\d.]+ GiB free here$", doctor.report(), re.MULTILINE)
    monkeypatch.setattr(memory, "free", lambda device: None)
    assert "memory: the system does not say; disk: " in doctor.report()


def test_a_folder_that_is_gone_is_said(monkeypatch):
    def gone(path):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(doctor.shutil, "disk_usage", gone)
    said = " ".join(doctor.report().split())
    assert "disk: this folder cannot be read (No such file or directory)" in said


@pytest.mark.parametrize("name", ["threadpoolctl", "duckdb", "matplotlib"])
def test_packages_are_listed(name):
    assert f"{name} yes" in doctor.report()
