"""The site's contents: what `make docs` builds, as far as it can be told without building it."""

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
NOTEBOOKS = {f"notebooks/{page.stem}.md" for page in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
OF_HOOKS = {"index.md", *NOTEBOOKS}  # pages that docs/site_hooks.py makes


def pages(nav):
    """Every page of a nav, in order."""
    found = []
    for entry in nav:
        (place,) = entry.values() if isinstance(entry, dict) else (entry,)
        found += pages(place) if isinstance(place, list) else [place]
    return found


def test_every_page_of_the_contents_is_there_and_stands_there_once():
    named = pages(SITE["nav"])
    assert len(named) == len(set(named)) > 20
    assert {page for page in named if not (ROOT / "docs" / page).exists()} == OF_HOOKS
    assert {"serving.md", "embedding.md", "refresh.md"} <= set(pages(SITE["nav"][2]["How to"]))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_has_one_title(page):
    code = re.compile(r"^```.*?^```$", re.M | re.DOTALL)
    assert len(re.findall(r"^# ", code.sub("", page.read_text()), re.M)) == 1


def test_the_site_asks_no_other_server_for_anything():
    assert SITE["theme"]["font"] is False
    assert not SITE.get("extra_javascript")


def test_versions_of_the_site_are_pinned():
    lines = (ROOT / "requirements" / "docs.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    assert {line.partition("==")[0] for line in pinned} >= {
        "mkdocs",
        "mkdocs-material",
        "mkdocstrings-python",
    }
