"""The workflows call what there is: targets of the Makefile, versions that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHECKS = ROOT / ".github" / "workflows" / "checks.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def jobs(page):
    return yaml.safe_load(page.read_text())["jobs"]


def spelt(text, matrix):
    """A line with every value that a matrix gives it."""
    lines = [text]
    for name in re.findall(r"\$\{\{ matrix\.(\w+) \}\}", text):
        values = [*matrix.get(name, []), *(one[name] for one in matrix.get("include", []) if name in one)]
        lines = [line.replace(f"${{{{ matrix.{name} }}}}", value) for line in lines for value in values]
    return lines


@pytest.mark.parametrize("page", WORKFLOWS, ids=lambda page: page.name)
def test_every_target_and_file_that_a_job_names_is_there(page):
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.M)
    targets = {target for line in targets for target in line.split()}
    called = set()
    for job in jobs(page).values():
        assert job["steps"][0]["uses"].startswith("actions/checkout@")
        lines = [step["run"] for step in job["steps"] if "run" in step]
        for line in (one for text in lines for one in spelt(text, job.get("strategy", {}).get("matrix", {}))):
            words = line.split()
            if words[0] != "make":
                assert words[0] in ("sudo", "brew"), f"{line}: expected make, or a package that it needs"
                continue
            called |= {word for word in words[1:] if "=" not in word}
            for value in (word.partition("=")[2] for word in words[1:] if word.startswith("CONSTRAINTS=")):
                assert (ROOT / value).exists(), line
    assert called <= targets
    if page == CHECKS:
        assert called >= {
            "docs",
            "check",
            "test",
            "test-triton36",
            "test-others",
            "sanitize-address",
            "sanitize-thread",
        }


def test_the_oldest_versions_are_those_that_the_project_allows():
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["triton"]]
    least = dict(re.split(">=", one) for one in asked)
    lines = (ROOT / ".github" / "oldest.txt").read_text().splitlines()
    oldest = [line.split("==") for line in lines if "==" in line]
    assert {name for name, _ in oldest} >= {"torch", "triton", "numpy"}
    for name, version in oldest:
        assert version == least[name] or version.startswith(f"{least[name]}."), name


def test_every_python_that_the_project_allows_is_tried():
    tried = jobs(CHECKS)["linux"]["strategy"]["matrix"]["python"]
    assert tried[0] == PROJECT["requires-python"].removeprefix(">=")
    assert tried == [f"3.{minor}" for minor in range(11, 11 + len(tried))]


@pytest.mark.parametrize("page", WORKFLOWS, ids=lambda page: page.name)
def test_what_cannot_be_promised_may_fail_and_says_so(page):
    assert "# Not run yet:" in page.read_text()
    assert [name for name, job in jobs(page).items() if job.get("continue-on-error")] == ["windows"]
