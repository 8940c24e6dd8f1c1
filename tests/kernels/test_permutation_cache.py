"""Compiled permutation kernels are kept outside the package, or nowhere, and never stop an audit."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import NullCache

from fastpop.kernels.permutation import _numba, cache

ROOT = Path(_numba.__file__).parent


def test_kernels_are_kept_where_an_uninstallation_leaves_nothing_that_imports():
    assert len(cache._kernels) == 9
    if cache.FOLDER is None:
        pytest.skip("this machine has no place for a cache")
    for kernel in cache._kernels:
        assert Path(kernel._cache.cache_path).is_relative_to(cache.FOLDER)
    assert not cache.FOLDER.is_relative_to(ROOT.parent)
    assert not list(ROOT.rglob("*.nb?"))


def test_the_cache_is_the_users_and_never_the_shared_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "given"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "x"))
    assert cache.cache_folder() == tmp_path / "xdg" / "fastpop" / "numba"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "fastpop" / "numba"
    monkeypatch.setenv("HOME", "/dev/null")
    assert cache.cache_folder() is None


def test_numbas_own_setting_is_left_alone(monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", "/elsewhere")
    with cache._kept_in(None):
        assert numba.config.CACHE_DIR == ""
    assert numba.config.CACHE_DIR == "/elsewhere"


def test_without_a_writable_place_the_module_loads_and_says_so_once():
    environment = os.environ | {"HOME": "/dev/null"}
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    code = (
        "import fastpop.kernels.permutation._numba as n, numba.core.caching as c\n"
        "print(isinstance(n._project._cache, c.NullCache))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert done.stderr.count("compiled anew in each process") == 1


def test_a_cache_that_fills_up_is_given_up(monkeypatch):
    class Kernel:
        _cache = "full"

    kernels = [Kernel(), Kernel()]
    monkeypatch.setattr(cache, "_kernels", kernels)
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.warns(RuntimeWarning, match="cannot be kept in .*: No space left on device"):
        cache.forget_cache(full)
    assert all(isinstance(kernel._cache, NullCache) for kernel in kernels)
    with pytest.raises(OSError, match="No space left"):
        cache.forget_cache(full)


def test_a_compilation_is_told_from_loading(tmp_path, monkeypatch):
    class Cache:
        cache_path = str(tmp_path / "place")

    class Kernel:
        _cache = Cache()

    class Uncached:
        _cache = NullCache()

    monkeypatch.setattr(cache, "_kernels", [Uncached(), Kernel()])
    assert not cache.compiled_before()
    (tmp_path / "place").mkdir()
    assert not cache.compiled_before()
    (tmp_path / "place" / "_numba._fill-1.py311.nbi").write_text("")
    assert cache.compiled_before()


@pytest.mark.slow
def test_the_first_audit_says_that_it_compiles_and_the_second_does_not(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    for name, array in (
        ("q", rng.normal(size=(30, 4))),
        ("e", rng.normal(size=(20, 4))),
        ("c", np.arange(1.0, 21)),
    ):
        np.save(tmp_path / f"{name}.npy", array)
    words = ["audit", "--query", "q.npy", "--items", "e.npy", "--counts", "c.npy", "--permutations", "20"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    said = [
        subprocess.run(
            [sys.executable, "-m", "fastpop", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for _ in range(2)
    ]
    assert said == ["fastpop: compiling the permutation test, once for this installation ...\n", ""]
