"""Every python block of README and docs runs, in order, file by file, and prints what stands below it; shell
blocks name real verbs."""

import dataclasses
import importlib.util
import json
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
from faults import FAULTS

import fastpop
from fastpop import registry
from fastpop.encoders import EncoderOptions

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```(python|text output)\n(.*?)```", re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def says_the_same(printed: str, shown: str) -> bool:
    """The same words, and numbers that are near: bits of a training are of one kind of machine."""
    number = re.compile(r"\d+(?:\.\d+)?")
    near = [
        float(one) == pytest.approx(float(other), rel=0.1, abs=0.011)
        for one, other in zip(number.findall(printed), number.findall(shown))
    ]
    return number.sub("#", printed).split() == number.sub("#", shown).split() and all(near)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch, one_thread, capsys):
    # What a page registers is known while it runs; modules that nobody imported yet register ours before.
    monkeypatch.setattr(registry, "_parts", {kind: registry.all_of(kind) for kind in registry.KINDS})
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    capsys.readouterr()
    for number, (kind, block) in enumerate(BLOCK.findall(page.read_text()), 1):
        where = f"{page.name}, block {number}"
        if kind == "python":
            exec(compile(block, where, "exec"), names)
            printed = capsys.readouterr().out
        else:
            assert says_the_same(printed, block), f"{where}: {printed}"


def test_output_is_compared_by_words_and_numbers():
    assert says_the_same("NDCG@10 0.091, 12 %\n", "NDCG@10 0.089, 12 %")
    assert not says_the_same("NDCG@10 0.191, 12 %", "NDCG@10 0.089, 12 %")
    assert not says_the_same("NDCG@10 0.089", "HR@10 0.089")
    assert not says_the_same("1 2", "1")


def script(name):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_of_claims_is_that_of_the_answers_that_are_kept():
    claims = script("claims")
    assert (ROOT / "docs" / "claims.md").read_text() == claims.page()
    kept = claims.answers()
    assert {claim.experiment for claim in claims.CLAIMS} - {""} <= set(fastpop.available("experiments"))
    for answer in kept.values():
        assert not answer["made_by"]["quick"]
        assert answer["made_by"]["seeds"] >= 3
    for claim in claims.CLAIMS:
        for test in re.findall(r"tests/[a-z_/]+\.py", claim.exact):
            assert (ROOT / test).exists(), test


def test_the_page_of_reliability_is_that_of_its_record():
    reliability = script("reliability")
    record = json.loads(reliability.RECORD.read_text())
    assert (ROOT / "docs" / "reliability.md").read_text() == reliability.page(record)
    assert {one["name"] for one in record["faults"]} <= set(FAULTS)
    lost = {"name": "x", "what": "y", "times": 2, "lost": ["1: gone"], "went": {"z": 1}}
    cannot = {"name": "a", "what": "b", "times": 0, "cannot": "no root"}
    text = reliability.page(record | {"faults": [lost, cannot]})
    assert "**2 trials, 1 times something was lost.**" in text
    assert "- x, trial 1: gone" in text
    assert "- b: no root" in text


def test_verdicts_follow_their_intervals():
    claims = script("claims")
    judge = claims.of_sign("x", -1)
    assert judge({"x": -1.0, "x.low": -2.0, "x.high": -0.5}) == ("-1.000 [-2.000, -0.500]", "agrees")
    assert judge({"x": -1.0, "x.low": -2.0, "x.high": 0.5})[1] == "not told apart"
    assert judge({"x": 1.0, "x.low": 0.5, "x.high": 2.0})[1] == "disagrees"
    assert judge({"x": 1.0})[1] == "too few runs"


def test_tables_of_runs_show_the_runs_that_are_kept():
    results = script("results")
    readme = (ROOT / "README.md").read_text()
    assert readme.count(results.MARKS[0]) == 1
    assert results.with_table(readme) == readme
    page = (ROOT / "docs" / "results.md").read_text()
    assert results._together() in page
    for run in results.REPORTS:  # made anew of the numbers, so that the page says what the rules of today say
        kept = results._read(run)
        for sentence in (kept["headline"], *kept["sentences"]):
            assert f"- {sentence}\n" in page, (run.name, sentence)
    curves = [
        {"arm": arm, "seed": 0, "epoch": [1, 2, 3], "nll": nll}
        for arm, nll in (("standard", [9, 8, 8.5]), ("frozen", [8.5, 7.9, 7.8]))
    ]
    assert results._sooner({"curves": curves, "made_by": {"seeds": [0]}}) == "2"
    curves[1]["nll"] = [9, 9, 8.1]
    assert results._sooner({"curves": curves, "made_by": {"seeds": [0]}}) == "never"
    at = {"standard": 10.0, "frozen": 8.667, "post-hoc": 10.0}
    assert results._epochs({"facts": {"still_improving": []}}, at) == "10, 8.67"
    ended = {"facts": {"still_improving": ["standard", "learned"]}}
    assert results._epochs(ended, at) == "10, 8.67 (training ended first: standard)"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_shell_blocks_use_verbs_and_options_that_exist(page, monkeypatch):
    import fastpop.cli as cli

    monkeypatch.setitem(registry._parts, "encoder", dict(registry._parts["encoder"]))
    if "--plugin my_parts" in page.read_text():  # the module of the page's own blocks
        monkeypatch.setitem(sys.modules, "my_parts", types.ModuleType("my_parts"))
        fastpop.register(
            "encoder",
            dataclasses.make_dataclass(
                "Recurrent",
                [("width", int, 64)],
                bases=(EncoderOptions,),
                frozen=True,
                namespace={"build": lambda self, sizes: None},
            ),
            name="gru",
        )
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["fastpop"]:
                if "..." in words:
                    continue
                asked = cli.messages.taken(words[1:])
                cli.terminal.set_format("text")
                parsed = cli._parse(*asked)
                assert hasattr(parsed, "run"), line
            elif words[:1] == ["make"]:
                targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
                assert set(words[1:]) <= set(targets), line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_headings_that_are_there(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            there = page.parent / target if target else page
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.M)
            assert anchor in {slug(one) for one in headings}, f"{page.name}: {target}#{anchor}"


def slug(heading: str) -> str:
    """The anchor of a heading, as MkDocs and GitHub make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_the_gallery_shows_runs_by_the_commands_that_made_them():
    made = {run.command for run in script("results").REPORTS}
    shown = [
        line
        for line in "".join(blocks(ROOT / "docs" / "gallery.md", "bash")).splitlines()
        if " reports/" in line
    ]
    assert len(shown) >= 3
    assert set(shown) <= made
