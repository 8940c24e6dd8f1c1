"""The architectures that a build with CUDA is for."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def setup():
    """The names of setup.py that stand before it calls setuptools' setup()."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    wanted = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign | ast.FunctionDef)
        and (getattr(node, "name", None) or node.targets[0].id) in ("CUDA_ARCHES", "code_flags")
    ]
    names = {"re": re, "sys": sys}
    exec(compile(ast.Module(wanted, []), "setup.py", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("arches", "flags"),
    [
        ("90", ["arch=compute_90,code=sm_90"]),
        ("90a", ["arch=compute_90a,code=sm_90a"]),
        (
            "80, 100+PTX",
            [
                "arch=compute_80,code=sm_80",
                "arch=compute_100,code=sm_100",
                "arch=compute_100,code=compute_100",
            ],
        ),
    ],
)
def test_a_list_of_architectures_is_nvccs_flags(setup, arches, flags):
    assert setup["code_flags"](arches) == [f"-gencode={flag}" for flag in flags]


def test_an_ordinary_build_ends_in_ptx_for_later_cards(setup):
    *_, machine, ptx = setup["code_flags"](setup["CUDA_ARCHES"])
    assert (machine, ptx) == (
        "-gencode=arch=compute_100,code=sm_100",
        "-gencode=arch=compute_100,code=compute_100",
    )


@pytest.mark.parametrize("arches", ["sm_90", "9", "90,", "90+ptx", "native", ",", "8.0"])
def test_any_other_list_is_refused_by_name(setup, arches):
    with pytest.raises(SystemExit) as refused:
        setup["code_flags"](arches)
    assert str(refused.value) == (
        f"FASTPOP_CUDA_ARCHES: expected a list such as 90 or 80,90,100+PTX; got {arches!r}"
    )


def test_a_build_for_a_wrong_list_stops_with_these_words(tmp_path):
    """Also under FASTPOP_CUDA=auto, which builds without CUDA where nvcc fails."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho "#$ TOP=/tmp"\n')
    nvcc.chmod(0o755)
    done = subprocess.run(
        [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--build-lib",
            str(tmp_path / "lib"),
            "--build-temp",
            str(tmp_path / "objects"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "CUDA_HOME": str(tmp_path), "FASTPOP_CUDA_ARCHES": "sm_90"},
    )
    assert done.returncode == 1
    assert "FASTPOP_CUDA_ARCHES: expected a list such as 90" in done.stderr


@pytest.mark.parametrize("mutant", ["9999", "", "one"])
def test_a_mutant_that_is_none_is_refused_by_the_numbers_there_are(mutant, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--build-lib",
            str(tmp_path / "lib"),
            "--build-temp",
            str(tmp_path / "objects"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "FASTPOP_CUDA": "0", "FASTPOP_MUTANT": mutant},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("FASTPOP_MUTANT: expected 0 or one of ['1', '2', ")
    assert done.stderr.endswith(f"; got {mutant!r}\n")


def test_a_sanitizer_that_is_none_is_refused_by_the_names_there_are(tmp_path):
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path / "lib")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "FASTPOP_CUDA": "0", "FASTPOP_SANITIZE": "memory"},
    )
    assert done.returncode == 1
    assert done.stderr.endswith("FASTPOP_SANITIZE: expected one of ['address', 'thread']; got 'memory'\n")
