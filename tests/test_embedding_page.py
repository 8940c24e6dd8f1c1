"""docs/embedding.md: what it promises of its blocks. tests/others runs them beside the packages."""

import re

import helpers_embedding
from helpers_embedding import ROOT, blocks, lines_of, packages


def test_adapters_are_as_short_as_the_page_says():
    assert "at most eight lines" in helpers_embedding.PAGE.read_text().replace("\n", " ")
    adapters = [(words, text) for words, text in blocks() if words[1:] == ["adapter"]]
    own = {"torch"}  # whose block is a step, not an adapter
    assert {words[0] for words, _ in adapters} == set(packages()) - own
    for words, text in adapters:
        assert 0 < lines_of(text) <= helpers_embedding.MOST_LINES, (words, lines_of(text))
        assert max(map(len, text.splitlines())) <= 110, words


def test_every_block_is_python_and_its_package_is_pinned_and_tested():
    pins = {}
    for path in (ROOT / "requirements").glob("others*.txt"):
        pins |= dict(line.lower().split("==") for line in path.read_text().splitlines() if "==" in line)
    names = {"replay": "replay-rec"}
    for words, text in blocks():
        compile(text, str(words), "exec")
        assert words[1:] in ([], ["adapter"]), words
    for package in packages():
        is_there = package not in helpers_embedding.IN_NO_REGISTRY
        assert (names.get(package, package) in pins) == is_there
        assert (ROOT / "tests" / "others" / f"test_{package}.py").exists()


def test_the_environment_s_torch_is_the_tested_one():
    wanted = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.M).group()
    assert wanted in (ROOT / "requirements" / "others.txt").read_text().splitlines()
