"""What the suite runs of the package: `python tests/coverage_page.py [tests ...]` writes docs/coverage.md.

Python by coverage.py, with branches and in the processes that tests start. C++ by gcov, of a build of its own
(FASTPOP_COVERAGE=1, setup.py); the lines of a template count once, run in any of its copies.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import mutants

ROOT = mutants.ROOT
PAGE = ROOT / "docs" / "coverage.md"
OBJECTS = ROOT / "build" / "coverage"
# Beside the package: sources that tests compile, pages whose blocks they run.
READ_BY_TESTS = (
    "csrc",
    "kernels",
    "docs",
    "bench",
    ".github",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
READ_BY_TESTS += ("Makefile", "setup.py", "constraints.txt", "requirements", "LICENSE")
# Tests that make copies of the package of their own: a copy has no place for another.
LEFT_OUT = ("tests/test_mutants.py",)
# Why lines of a file stay unrun here: the first pattern that fits is told.
REASONS = [
    ("kernels/*/_triton_kernels.py", "compiled by Triton; their values are tested under its interpreter"),
    ("kernels/*/_triton*.py", "on a GPU, or under Triton's interpreter in a process of its own"),
    ("kernels/triton_*.py", "compiled by Triton; their values are tested under its interpreter"),
    ("kernels/permutation/_numba.py", "compiled by numba"),
    ("kernels/permutation/_vector.py", "compiled by numba"),
    ("kernels/*/_cuda.py", "what is left to a GPU; its host emulation takes the same way as far as it goes"),
    ("kernels/device.py", "streams and devices of a GPU"),
    ("csrc/*/cuda.cu", "compiled by nvcc"),
    ("csrc/device_bindings.cpp", "launches on a GPU"),
    ("csrc/tile_amx.inc", "tile registers, which this processor has not; their emulation is tested"),
    ("csrc/tile.cpp", "paths that this processor has not"),
    ("csrc/prefetch.h", "other processors"),
]


@dataclass(frozen=True)
class File:
    name: str
    lines: int
    missed: tuple[int, ...]
    branches: int = 0
    missed_branches: int = 0


def ranges(numbers: tuple[int, ...]) -> str:
    """3-5, 9 of 3, 4, 5, 9; a dozen ranges at most."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in found]
    return ", ".join(texts[:12]) + (f" and {len(texts) - 12} more" if len(texts) > 12 else "")


def reason(name: str) -> str:
    return next((why for pattern, why in REASONS if fnmatch(name, pattern)), "")


def of_python(report: dict, copy: Path) -> list[File]:
    """From coverage.py's JSON; a copy's fastpop/kernels is kernels."""
    found = []
    for path, one in report["files"].items():
        place = Path(path)
        name = str(place.relative_to(copy) if place.is_absolute() else place)
        counts = one["summary"]
        name = name.removeprefix("fastpop/") if name.startswith("fastpop/kernels/") else name
        branches, missed = counts["num_branches"], counts["missing_branches"]
        found.append(File(name, counts["num_statements"], tuple(one["missing_lines"]), branches, missed))
    return found


def of_gcov(reports: list[dict]) -> list[File]:
    """From gcov's JSON of every object: a line was run if it was in one of them."""
    runs: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for report in reports:
        for one in report["files"]:
            if one["file"].startswith("csrc/"):
                for line in one["lines"]:
                    runs[one["file"]][line["line_number"]] += line["count"]
    return [
        File(name, len(lines), tuple(sorted(number for number, count in lines.items() if not count)))
        for name, lines in runs.items()
    ]


def table(files: list[File]) -> str:
    """Sums, then what is not covered, by file."""
    lines, missed = sum(one.lines for one in files), sum(len(one.missed) for one in files)
    text = f"{100 * (1 - missed / max(lines, 1)):.1f} % of {lines:,} lines are run"
    branches = sum(one.branches for one in files)
    if branches:
        share = 1 - sum(one.missed_branches for one in files) / branches
        text += f", and {100 * share:.1f} % of {branches:,} branches"
    rows = ["| file | run | lines that are not | why |", "|---|---|---|---|"]
    for one in sorted(files, key=lambda one: one.name):
        if one.missed:
            share = f"{100 * (1 - len(one.missed) / one.lines):.0f} %"
            rows.append(f"| `{one.name}` | {share} | {ranges(one.missed)} | {reason(one.name)} |")
    whole = sum(not one.missed for one in files)
    return f"{text}. Every line of {whole} of {len(files)} files; of the others:\n\n" + "\n".join(rows)


def commit() -> str:
    """Of the files that are measured; "" outside a clone."""
    words = ["git", "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def page(python: list[File], cpp: list[File], chosen: list[str], outcome: str, of: str) -> str:
    part = f" Of {' '.join(chosen)} alone: the whole suite runs more." if chosen else ""
    return f"""# Coverage

Made by `make coverage{f' TESTS="{" ".join(chosen)}"' if chosen else ""}`; not written by hand.{part}
Numbers and lines are those of commit {of or "(unknown)"}.
The tests, but for `tests/test_mutants.py`: {outcome}.

A line that is run is not yet a line that is tested: that a wrong one would be noticed is what
`tests/mutants.py` shows. This page shows where nothing goes at all.

## Python
{table(python)}

## C++
{table(cpp)}
"""


def measure(chosen: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        environment = mutants.copy_package(copy) | {"FASTPOP_COVERAGE": "1", "FASTPOP_CUDA": "0"}
        for beside in READ_BY_TESTS:
            (copy / beside).symlink_to(ROOT / beside)
        for built in (copy / "fastpop").glob("_C.*"):
            built.unlink()
        for old in OBJECTS.rglob("*.gcda"):
            old.unlink()
        build = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(copy)]
        subprocess.run(build, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        settings = ["[run]", "branch = true", "parallel = true", "patch = subprocess", "source = fastpop"]
        settings += [f"data_file = {copy / '.coverage'}"]
        (copy / "coverage.ini").write_text("\n".join(settings) + "\n")
        cover = [sys.executable, "-P", "-m", "coverage"]
        run = [*cover, "run", "--rcfile=coverage.ini", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        run += ["--numprocesses=2", "--dist=loadfile", *(f"--ignore={path}" for path in LEFT_OUT)]
        run += chosen or ["tests"]
        done = subprocess.run(run, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True)
        print(done.stdout)
        outcome = done.stdout.rstrip().splitlines()[-1].strip("= ").partition(" in ")[0]
        # -i: a test wrote a part of its own into the package, ran it, and took it away again.
        for words in (["combine", "-q"], ["json", "-q", "-i", "-o", "coverage.json"]):
            subprocess.run([*cover, *words, "--rcfile=coverage.ini"], cwd=copy, env=environment, check=True)
        python = of_python(json.loads((copy / "coverage.json").read_text()), copy)
        return page(python, of_gcov(gcov_reports(copy)), chosen, outcome, commit())


def gcov_reports(folder: Path) -> list[dict]:
    counts = [str(path) for path in OBJECTS.rglob("*.gcda")]
    gcov = os.environ.get("GCOV", "gcov")
    subprocess.run([gcov, "--json-format", *counts], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(gzip.decompress(path.read_bytes())) for path in folder.glob("*.gcov.json.gz")]


if __name__ == "__main__":
    PAGE.write_text(measure(sys.argv[1:]))
