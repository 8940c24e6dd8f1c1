"""Pages in a real browser: what a log says is text and runs nowhere, and no page is wider than its window."""

import html

import helpers_browser
import pytest
from helpers_report import audit, comparison

from fastpop.report import write_audit_report, write_compare_report

needs_browser = pytest.mark.skipif(helpers_browser.FOUND is None, reason="no Chromium here")
pytestmark = needs_browser
# Each would give the page a title of its own.
MARK = "owned-by-a-log"
PAYLOADS = [
    f"<script>document.title='{MARK}'</script>",
    f"<img src=x onerror=\"document.title='{MARK}'\">",
    f"\"><svg onload=document.title='{MARK}'>",
    f"</title></style></script><script>document.title='{MARK}'</script>",
    f"</text></svg><iframe srcdoc=\"<script>parent.document.title='{MARK}'</script>\"></iframe>",
    f"'-alert(document.title='{MARK}')-'",
    f"<!--><script>document.title='{MARK}'</script>-->",
    f"]]><script>document.title='{MARK}'</script>",
]
EVIL = " ".join(PAYLOADS)
# What a page of ours never has.
ALIVE = """[...document.querySelectorAll('*')].filter(e =>
  ['SCRIPT', 'IFRAME', 'IMG', 'OBJECT', 'EMBED', 'LINK', 'FORM', 'A'].includes(e.tagName.toUpperCase())
  || [...e.attributes].some(a => a.name.startsWith('on') || /^javascript:/i.test(a.value))
).map(e => e.outerHTML.slice(0, 80))"""
SAID = {
    "title",
    "headline",
    "sentences",
    "trained_on",
    "note",
    "name",
    "encoder",
    "decoder",
    "loss",
    "sampler",
}
LONG = "a-word-without-an-end-" * 20


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with helpers_browser.Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def with_every(value, words, under=""):
    """Every name and sentence of a document with more words behind it; numbers and what has a fixed set of
    words stay."""
    fixed = {"epochs", "direction", "kind", "readings"}
    if isinstance(value, dict):
        return {key: one if key in fixed else with_every(one, words, key) for key, one in value.items()}
    if isinstance(value, list):
        return [with_every(one, words, under) for one in value]
    return f"{value} {words}" if isinstance(value, str) and under in SAID else value


def example(words):
    items = [{"id": "7", "title": words}, {"id": words}]
    return {
        "num_events": 3,
        "history": items,
        "targets": items[:1],
        "lists": [{"arm": "frozen", "popularity_weight": 1.0, "items": items}],
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A comparison and an audit whose names are hostile, and without an end."""
    folder, arms = tmp_path_factory.mktemp("pages"), ("standard", "frozen", "post-hoc", "learned", "recency")
    made = comparison(seeds=(0,), num_items=60, arms=arms, shown=True)
    words = f"{EVIL} {LONG}"
    changed = with_every(made, words) | {"arms": made["arms"], "examples": [example(words)]}
    return {
        "compare": write_compare_report(folder / "compare.html", changed),
        "audit": write_audit_report(
            folder / "audit.html",
            with_every(audit(), words),
            title=words,
            data={"name": words, "note": words},
            items={"largest": [{"name": words, "log_prior": -3.0, "mean_score": 1.0, "off_line": 0.1}]},
            made_by={"version": words, words: 1},
        ),
    }


def test_the_browser_would_run_what_is_not_escaped(browser, tmp_path):
    """Or the other tests would prove nothing."""
    for number, payload in enumerate(PAYLOADS):
        if payload.startswith(("'", "]")):
            continue  # of other places than text
        page = tmp_path / f"{number}.html"
        page.write_text(f"<!doctype html><title>mine</title><body><p>{payload}</p>")
        browser.open(page)
        for _ in range(50):
            if browser.value("document.title") == MARK:
                break
            browser.wait(0.02)
        assert browser.value("document.title") == MARK, payload
        assert browser.value(ALIVE), payload


@pytest.mark.parametrize("name", ["compare", "audit"])
def test_hostile_names_run_nothing(browser, pages, name):
    browser.open(pages[name])
    browser.wait(0.2)
    assert browser.value("document.title") != MARK
    assert browser.value(ALIVE) == []
    said = browser.value("document.body.innerText")
    assert PAYLOADS[0] in said
    assert html.escape(EVIL) in pages[name].read_text()  # whole, in a title attribute where it is shortened


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_its_window(browser, pages, width):
    for name, page in pages.items():
        browser.open(page, width)
        browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert browser.sideways() == (width, width, []), name


def test_a_test_of_widths_sees_what_is_too_wide(browser, tmp_path):
    page = tmp_path / "wide.html"
    page.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><p style='width:900px'>x"
    )
    browser.open(page, 400)
    window, whole, outside = browser.sideways()
    assert (window, outside) == (400, ["P.: x"])
    assert whole >= 900
