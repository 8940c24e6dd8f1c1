"""The vector paths under clang: every function that it compiles of a path has that path's instructions."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
CLANG = shutil.which("clang++")
# What each path's functions must be compiled for, as clang names it.
NEEDED = {
    "baseline": (),
    "avx2": ("+avx2", "+fma", "+f16c"),
    "avx512": ("+avx512f", "+avx512bw", "+avx512dq", "+avx512vl", "+fma"),
    "avx512_bf16": ("+avx512bf16", "+avx512f", "+fma"),
}


@pytest.mark.skipif(CLANG is None, reason="no clang++ on PATH")
@pytest.mark.parametrize("path", NEEDED)
def test_clang_compiles_the_path(path, tmp_path):
    out = tmp_path / "path.ll"
    command = [
        CLANG,
        "--target=x86_64-linux-gnu",
        "-std=c++17",
        "-Wall",
        "-Wno-psabi",
        "-Werror",
        f"-I{CSRC}",
    ]
    command += ["-S", "-emit-llvm", "-Xclang", "-disable-llvm-passes", "-o", str(out)]
    done = subprocess.run([*command, str(CSRC / f"tile_{path}.cpp")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    attributes = dict(re.findall(r"^attributes #(\d+) = \{(.*)\}", text, re.M))
    functions = re.findall(rf'^define .*?@"?(\S*{path}\S*?)"?\(.*? #(\d+) ', text, re.M)
    assert len(functions) > 20
    lacking = {
        name for name, number in functions if not all(one in attributes[number] for one in NEEDED[path])
    }
    # what returns the address of a thread's own variable is the compiler's, not of the source
    assert {name for name in lacking if not name.startswith("_ZTW")} == set()
