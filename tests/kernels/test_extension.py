"""fastpop._C: what it links, and how its build answers FASTPOP_CUDA."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastpop import _C

ROOT = Path(__file__).resolve().parents[2]


def build(tmp_path, **environment):
    """`setup.py build_ext` into tmp_path, where CUDA_HOME has an nvcc that always fails."""
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho this nvcc is broken >&2\nexit 1\n")
    nvcc.chmod(0o755)
    return subprocess.run(
        [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--build-temp",
            str(tmp_path / "temp"),
            "--build-lib",
            str(tmp_path / "lib"),
        ],
        cwd=ROOT,
        env={**os.environ, "CUDA_HOME": str(home), **environment},
        capture_output=True,
        text=True,
    )


def built_module(tmp_path):
    code = "import _C; print(_C.has_cuda, hasattr(_C, 'alias_draw_cuda'), _C.philox4x32(*[0] * 6)[0])"
    folder = tmp_path / "lib" / "fastpop"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_auto_says_one_line_about_a_broken_nvcc_and_builds_the_rest(tmp_path):
    # 0 is no mutant, built from the objects of the last build that are of the same sources
    done = build(tmp_path, FASTPOP_CUDA="auto", FASTPOP_MUTANT="0")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("fastpop:")]
    assert len(said) == 1
    assert "building without CUDA" in said[0]
    assert built_module(tmp_path) == ["False", "False", str(0x6627E8D5)]


def test_a_cuda_build_that_was_asked_for_fails_loudly(tmp_path):
    done = build(tmp_path, FASTPOP_CUDA="1")
    assert done.returncode != 0
    assert not (tmp_path / "lib").exists()


def test_an_unknown_mode_is_refused(tmp_path):
    done = build(tmp_path, FASTPOP_CUDA="yes")
    assert done.returncode != 0
    assert "FASTPOP_CUDA: expected auto, 0 or 1; got 'yes'" in done.stderr


@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd")
def test_the_extension_links_neither_torch_nor_a_cuda_library():
    linked = subprocess.run(["ldd", _C.__file__], capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in linked.splitlines()]
    assert any(name.startswith("libc.") for name in names)
    for name in names:
        assert not name.startswith(("libtorch", "libc10", "libcuda", "libcublas"))
