"""The installed package, tried from a folder without its sources: `python -P tests/installed.py`.

A handful of tests that need pytest, hypothesis and scipy alone, in a folder of their own, where nothing but
the installed fastpop is to be found; and what a bare machine meets first: the bundled log, the command line,
one OpenMP.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SOME = (
    "ops/test_drawing.py",
    "ops/test_top_items.py",
    "ops/test_row_update.py",
    "diagnostics/test_significance.py",
    "popularity/test_prior.py",
    "evaluation/test_paired.py",
)
FIRST = """
import sys
import fastpop._C as compiled, fastpop
assert "torch" not in sys.modules
assert not compiled.has_cuda
here = fastpop.__file__
assert "site-packages" in here, here
log = fastpop.data.bundled_log().k_core(20, 20)
result = fastpop.train(log, encoder="factor", epochs=1, dim=8, num_negatives=64, progress=False)
print(here, result.metrics["ndcg@10"], result.audit(permutations=20).fraction_shared)
if sys.platform == "linux":
    maps = open("/proc/self/maps").read()
    loaded = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line}
    assert len(loaded) == 1, loaded
    assert "torch" in loaded.pop()
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tests"
        for name in (
            *SOME,
            *(one.name for one in TESTS.glob("helpers_*.py")),
            "conftest.py",
            "ops/conftest.py",
            "mutants.py",
        ):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TESTS / name, place / name)
        for one in TESTS.glob("mutants_of_*.py"):
            shutil.copy(one, place)
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        python = [sys.executable, "-P"]
        options = ["--import-mode=importlib", "-q", "-o", f"pythonpath={place}", "-p", "no:cacheprovider"]
        for command in (
            [*python, "-c", FIRST],
            [*python, "-m", "fastpop", "doctor"],
            [*python, "-m", "pytest", *options, *(f"tests/{name}" for name in SOME)],
        ):
            subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
