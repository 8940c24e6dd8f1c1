"""Important lines, each with one way to get it wrong, and the assertion that must notice.

`python tests/mutants.py` tries all of them on copies of the package and prints a line each;
`python tests/mutants.py 3 c7` tries those. tests/test_mutants.py runs them under pytest.

A mutant is caught only by the test that it names, failing in the words that it names: another test, or
the same one for another reason, is no proof that this line is watched.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CAUGHT = "caught"
OTHER_WORDS = "MISSED: it failed in other words:"


@dataclass(frozen=True)
class PythonMutant:
    what: str
    file: str  # from the root of the project
    right: str  # text that is there once
    wrong: str
    test: str  # the id of one test
    says: str  # part of its failure: of the message, or of the line that asserts
    path: str | None = None  # of the processor's, that the test needs
    often: bool = True  # quick enough for `make test`
    interpreted: bool = False  # the test is of Triton, under its interpreter


@dataclass(frozen=True)
class CsrcMutant:
    what: str
    number: int  # MUTANT(number, ...) in csrc/
    test: str
    says: str
    path: str | None = None
    often: bool = True


Mutant = PythonMutant | CsrcMutant


def change(mutant: Mutant, copy: Path) -> None:
    """Makes the one change in a copy of the package."""
    if isinstance(mutant, CsrcMutant):
        return build(mutant.number, copy)
    file = copy / mutant.file if mutant.file.startswith("fastpop") else copy / "fastpop" / mutant.file
    text = file.read_text()
    if text.count(mutant.right) != 1:
        raise ValueError(f"{mutant.file}: expected once: {mutant.right!r}")
    file.write_text(text.replace(mutant.right, mutant.wrong))


def build(number: int, copy: Path, sanitizer: str | None = None) -> None:
    """fastpop._C of a copy with one mutant in it, 0: with none. Seconds: setup.py compiles what holds it
    and takes the other objects from the last build (with a sanitizer: the last with that)."""
    for built in (copy / "fastpop").glob("_C.*"):
        built.unlink()
    environment = os.environ | {"FASTPOP_MUTANT": str(number), "FASTPOP_CUDA": "0"}
    if sanitizer is not None:
        environment["FASTPOP_SANITIZE"] = sanitizer
    done = subprocess.run(
        [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--build-lib",
            str(copy),
            "--build-temp",
            str(copy / "objects"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    if done.returncode:
        raise RuntimeError(f"mutant {number} of csrc was not built\n{done.stdout}{done.stderr}")


def copy_package(copy: Path) -> dict[str, str]:
    """The package and its tests; the environment that finds them."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fastpop", copy / "fastpop", ignore=ignore)
    shutil.copytree(ROOT / "kernels", copy / "fastpop" / "kernels", ignore=ignore)
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", copy)
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "FASTPOP_TEST_DATA": os.environ.get("FASTPOP_TEST_DATA", str(ROOT.parent / "shared" / "data")),
    }
    environment.pop("CI", None)
    return environment


def verdict(mutant: Mutant) -> str:
    """ "caught", or what happened instead to the named test on a copy with this one change."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        environment = copy_package(copy)
        change(mutant, copy)
        if isinstance(mutant, PythonMutant) and mutant.interpreted:
            environment["TRITON_INTERPRET"] = "1"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--junitxml",
                "result.xml",
                mutant.test,
            ],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.what}: pytest did not run\n{done.stdout}{done.stderr}")
        tests = list(ElementTree.parse(copy / "result.xml").iter("testcase"))
        if len(tests) != 1:
            raise ValueError(f"{mutant.test}: expected one test; got {len(tests)}")
        return judged(tests[0], mutant.says)


def judged(test: ElementTree.Element, says: str) -> str:
    """What a record of pytest's says of one test that should fail in these words."""
    failure = test.find("failure")
    if failure is None:
        other = next((one for one in test if one.tag in ("skipped", "error")), None)
        return "MISSED: it passed" if other is None else f"MISSED: {other.tag}: {other.get('message')}"
    # The message, and the lines that pytest marks: what it says of the failure, and where it was.
    marked = [line[1:].strip() for line in (failure.text or "").splitlines() if re.match("[>E] ", line)]
    words = "\n".join([failure.get("message", ""), *marked])
    return CAUGHT if says in words else f"{OTHER_WORDS} {words}"


def all_mutants() -> dict[str, Mutant]:
    """By label: 1, 2, ... in Python, c1, c2, ... in C++."""
    from mutants_of_csrc import CSRC_MUTANTS
    from mutants_of_python import PYTHON_MUTANTS

    numbered = {str(n): mutant for n, mutant in enumerate(PYTHON_MUTANTS, 1)}
    return numbered | {f"c{mutant.number}": mutant for mutant in CSRC_MUTANTS}


def of_day(day: int) -> list[str]:
    """Six labels, one of them of a mutant in C++, which has to be built. Days in a row go through all
    that are quick."""
    often = [label for label, mutant in all_mutants().items() if mutant.often]
    python, csrc = ([one for one in often if (one[0] == "c") == built] for built in (False, True))
    return [*(python[(5 * day + n) % len(python)] for n in range(5)), csrc[day % len(csrc)]]


def lacking(mutant: Mutant) -> str | None:
    """Why this machine cannot tell."""
    from fastpop.kernels import native

    if mutant.path is None or native.has_path(mutant.path):
        return None
    return f"this processor has no {mutant.path}"


def main(words: list[str]) -> int:
    everything = all_mutants()
    missed = skipped = 0
    for label in words or everything:
        mutant = everything[label]
        found = lacking(mutant)
        if found is not None:
            skipped += 1
            found = f"skipped: {found}"
        else:
            found = verdict(mutant)
            missed += found != CAUGHT
        said, *more = found.splitlines()
        print(f"{label:>3} {said}  {mutant.what}", *more, sep="\n    ", flush=True)
    tried = len(words or everything) - skipped
    print(f"{tried - missed} of {tried} caught")
    return missed


if __name__ == "__main__":
    import mutants  # under the name by which the lists know it

    sys.exit(mutants.main(sys.argv[1:]))
