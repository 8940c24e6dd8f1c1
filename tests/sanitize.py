"""csrc under a sanitizer: `python tests/sanitize.py address` (undefined behaviour, too) or `thread`.

A build of its own (FASTPOP_SANITIZE, setup.py) takes the tests that call every kernel on every path of the
processor. Then each of PROOFS is built: a fault that the sanitizer must name, or it watches nothing.

Python, torch and numpy are not built for a sanitizer. So leaks are not counted, since an interpreter ends
with memory that it still holds; and the thread sanitizer looks at accesses by csrc alone. Nothing of csrc
is suppressed. There the kernels' threads are the system's: it does not see how GNU OpenMP's meet
(csrc/team.h).
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mutants

# Each of these tests goes through the paths of the processor, and the cases of the op's contract.
EVERY_PATH = "every_path or sure_row or sure_positive"
OPS = ["tests/ops/test_sampled_softmax.py", "tests/ops/test_full_softmax.py", "tests/ops/test_top_items.py"]
OPS += [
    "tests/ops/test_target_ranks.py",
    "tests/ops/test_row_update.py",
    "tests/kernels/test_score_energy.py",
]
NATIVE = ["tests/kernels/test_native.py", "tests/kernels/test_alias_draw.py"]
LOGS = ["tests/kernels/test_log_rows.py", "tests/data/test_log_formats.py", "tests/data/test_bad_input.py"]
EMULATED = ["tests/ops/test_sampled_softmax_on_device.py", "tests/ops/test_row_update_on_device.py"]

RUNS = {
    "address": [[*OPS, "-k", EVERY_PATH], [*NATIVE, *LOGS, *EMULATED, "-k", "not compile and not gpu"]],
    "thread": [
        [*OPS, "-k", "-3] or threads_change or streamed_scores or moments_of_rows"],
        [*NATIVE, "-k", "not compile"],
        ["tests/ops/test_threads.py"],
    ],
}
SIDE_BY_SIDE = ["--numprocesses=2", "--dist=worksteal"]
# Of a report; also where no test failed.
WORDS = ("AddressSanitizer", "ThreadSanitizer", "runtime error:")


@dataclass(frozen=True)
class Proof:
    what: str
    number: int  # MUTANT(number, ...) in csrc/
    sanitizer: str
    test: str
    says: str  # in the report, or in how the test fails


ROWS_EVERY_PATH = "tests/ops/test_row_update.py::test_every_path_of_the_processor_on_any_number_of_threads"
PROOFS = [
    Proof("scratch memory is short of one number", 17, "address", f"{ROWS_EVERY_PATH}[baseline-1]",
          "AddressSanitizer: use-after-poison"),
    Proof("memory that is taken for zeros is not cleared", 18, "address",
          "tests/kernels/test_score_energy.py::test_moments_of_rows_on_every_path[700-24-0-dtype2-baseline]",
          "nan location mismatch"),
    Proof("two threads share a run of equal ids", 12, "thread", f"{ROWS_EVERY_PATH}[baseline-3]",
          "ThreadSanitizer: data race"),
]  # fmt: skip


def library(name: str) -> str:
    """Where the compiler keeps it."""
    compiler = os.environ.get("CXX", "g++")
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def settings(sanitizer: str, reports: Path) -> dict[str, str]:
    """The environment of an interpreter that imports what was built so."""
    first = library({"address": "libasan.so", "thread": "libtsan.so"}[sanitizer])
    to = f"log_path={reports / 'report'}"
    return {
        # The C++ library beside it: its exceptions are intercepted when the first library loads.
        "LD_PRELOAD": f"{first} {library('libstdc++.so')}",
        "ASAN_OPTIONS": f"detect_leaks=0:{to}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{to}",
        "TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:{to}",
    }


def run(sanitizer: str, number: int, runs: list[list[str]], shown: bool) -> tuple[bool, str]:
    """Whether all passed without a report; what was said, and shown while it was."""
    with tempfile.TemporaryDirectory() as folder:
        copy, reports = Path(folder) / "copy", Path(folder) / "reports"
        reports.mkdir()
        environment = mutants.copy_package(copy)
        mutants.build(number, copy, sanitizer)
        environment |= settings(sanitizer, reports)
        passed, said = True, []
        for chosen in runs:
            command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            command += [*SIDE_BY_SIDE, *chosen]
            done = subprocess.Popen(
                command,
                cwd=copy,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.stdout is not None
            for line in done.stdout:
                said.append(line)
                print(end=line if shown else "", flush=True)
            passed = passed and done.wait() == 0
        found = [path.read_text() for path in sorted(reports.iterdir())]
        print(*(found if shown else []), sep="\n")
        passed = passed and not any(word in text for text in found for word in WORDS)
        return passed, "".join([*said, *found])


def main(sanitizer: str) -> int:
    passed, _ = run(sanitizer, 0, RUNS[sanitizer], shown=True)
    print(f"{sanitizer} sanitizer: {'nothing found' if passed else 'FAILED'}", flush=True)
    for proof in PROOFS:
        if proof.sanitizer == sanitizer:
            held, said = run(sanitizer, proof.number, [[proof.test]], shown=False)
            caught = not held and proof.says in said
            passed = passed and caught
            print("caught" if caught else f"MISSED\n{said}", proof.what, sep="  ", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
