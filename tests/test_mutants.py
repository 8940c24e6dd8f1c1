"""A test proves that it can fail: wrong lines are noticed, and a right copy passes."""

import os

import mutants
import pytest
import sanitize
from mutants import CAUGHT, OTHER_WORDS, CsrcMutant, PythonMutant

EVERY = mutants.all_mutants()
# conftest.py sets it and prints the labels: FASTPOP_MUTANT_DAY=<day> takes the same again.
TODAY = mutants.of_day(int(os.environ["FASTPOP_MUTANT_DAY"]))


def check(label):
    reason = mutants.lacking(EVERY[label])
    if reason is not None:
        pytest.skip(reason)
    assert mutants.verdict(EVERY[label]) == CAUGHT


def named(label):
    return f"{label}: {EVERY[label].what}"


@pytest.mark.parametrize("label", TODAY, ids=named)
def test_the_mutants_of_the_day_are_caught(label):
    check(label)


SAME = "end = end_U[count_U >= skipped + n + 1] - skipped"
IN_PYTHON = ("nothing", "fastpop/data/split.py", SAME)
LAST_OUT = "tests/data/test_split.py::test_leave_last_out_by_hand"


def test_copies_without_a_mutant_pass():
    assert mutants.verdict(PythonMutant(*IN_PYTHON, SAME, LAST_OUT, "")) == "MISSED: it passed"
    rounding = "tests/kernels/test_native.py::test_the_exponential_is_within_1_2_ulp[baseline]"
    assert mutants.verdict(CsrcMutant("nothing", 0, rounding, "")) == "MISSED: it passed"


def test_a_failure_in_other_words_catches_nothing():
    wrong = PythonMutant(*IN_PYTHON, "raise ValueError('another reason')", LAST_OUT, "parts.valid")
    assert mutants.verdict(wrong).startswith(f"{OTHER_WORDS} ValueError: another reason")


def test_days_in_a_row_go_through_every_quick_mutant():
    quick = {label for label, mutant in EVERY.items() if mutant.often}
    days = [mutants.of_day(day) for day in range(739_000, 739_000 + len(quick))]
    assert {label for day in days for label in day} == quick
    assert all(len(set(day)) == 6 and sum(label[0] == "c" for label in day) == 1 for day in days)


def test_every_mark_in_csrc_is_listed_once():
    marks = [
        int(number)
        for file in sorted((mutants.ROOT / "csrc").rglob("*.*"))
        for number in mutants.re.findall(r"\bMUTANT\((\d+),", file.read_text())
    ]
    tried = {mutant.number for mutant in EVERY.values() if isinstance(mutant, CsrcMutant)}
    assert sorted(marks) == sorted(tried | {proof.number for proof in sanitize.PROOFS})


@pytest.mark.parametrize("label", [one for one in EVERY if one[0] != "c"], ids=named)
def test_the_line_is_where_the_list_says(label):
    mutant = EVERY[label]
    assert (mutants.ROOT / mutant.file).read_text().count(mutant.right) == 1


@pytest.mark.parametrize("label", EVERY, ids=named)
def test_the_named_test_is_there(label):
    """Its parameters are seen when it runs."""
    file, _, name = EVERY[label].test.partition("[")[0].partition("::")
    assert f"def {name}(" in (mutants.ROOT / file).read_text()


@pytest.mark.parametrize("proof", sanitize.PROOFS, ids=lambda proof: proof.what)
def test_the_test_in_which_a_sanitizer_must_notice_is_there(proof):
    file, _, name = proof.test.partition("[")[0].partition("::")
    assert f"def {name}(" in (mutants.ROOT / file).read_text()
    assert proof.sanitizer in sanitize.RUNS


@pytest.mark.slow
@pytest.mark.parametrize("label", EVERY, ids=named)
def test_every_mutant_is_caught(label):
    check(label)
