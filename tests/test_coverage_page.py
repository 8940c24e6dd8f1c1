"""The page of coverage says what coverage.py and gcov counted."""

from pathlib import Path

import coverage_page
from coverage_page import File


def test_lines_in_ranges():
    assert coverage_page.ranges((3, 4, 5, 9, 11, 12)) == "3-5, 9, 11-12"
    assert (
        coverage_page.ranges(tuple(range(0, 30, 2))) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 3 more"
    )
    assert coverage_page.ranges(()) == ""


def test_files_of_both_counters():
    copy = Path("/copy")
    summary = {"num_statements": 4, "num_branches": 2, "missing_branches": 1}
    report = {"files": {"fastpop/kernels/native.py": {"summary": summary, "missing_lines": [7]}}}
    assert coverage_page.of_python(report, copy) == [File("kernels/native.py", 4, (7,), 2, 1)]

    def gcov(counts):
        lines = [{"line_number": number, "count": count} for number, count in counts.items()]
        return {
            "files": [{"file": "csrc/tile.inc", "lines": lines}, {"file": "/usr/include/x.h", "lines": lines}]
        }

    merged = coverage_page.of_gcov([gcov({1: 0, 2: 3, 5: 0}), gcov({1: 1, 5: 0})])
    assert merged == [File("csrc/tile.inc", 3, (5,))]


def test_the_page_names_what_is_not_run_and_why():
    python = [File("fastpop/a.py", 10, (), 4, 0), File("kernels/row_sum/_cuda.py", 10, (2, 3), 4, 2)]
    cpp = [File("csrc/tile_amx.inc", 4, (1, 2, 3, 4))]
    text = coverage_page.page(python, cpp, ["tests/ops"], "3 passed", "0123abc")
    assert "those of commit 0123abc." in text
    assert '`make coverage TESTS="tests/ops"`' in text
    assert "Of tests/ops alone" in text
    assert "90.0 % of 20 lines are run, and 75.0 % of 8 branches. Every line of 1 of 2 files" in text
    assert "| `kernels/row_sum/_cuda.py` | 80 % | 2-3 | what is left to a GPU" in text
    assert "| `csrc/tile_amx.inc` | 0 % | 1-4 | tile registers" in text


def test_what_tests_read_beside_the_package_is_there():
    for name in coverage_page.READ_BY_TESTS:
        assert (coverage_page.ROOT / name).exists(), name


def test_every_reason_is_of_a_file_that_is_there():
    files = [str(path.relative_to(coverage_page.ROOT)) for path in coverage_page.ROOT.glob("[kc]*/**/*.*")]
    for pattern, _ in coverage_page.REASONS:
        assert any(coverage_page.fnmatch(name, pattern) for name in files), pattern
