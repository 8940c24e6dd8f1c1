"""Pages of hostile names in a real browser: what a log says is text, and runs nowhere."""

import html
import shutil
import subprocess

import pytest
from helpers_report import audit, comparison

from fastpop.report import write_audit_report, write_compare_report

BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
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


def rendered(page):
    """The document that a browser has made of a page, its scripts run."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=1500", "--dump-dom"]
    place = page.parent / "browser"
    words = [BROWSER, *quiet, f"--user-data-dir={place}", page.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


def with_evil(value, under=""):
    """Every name and sentence of a document replaced; numbers and what has a fixed set of words stay."""
    fixed = {"epochs", "direction", "kind", "readings"}
    if isinstance(value, dict):
        return {key: one if key in fixed else with_evil(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [with_evil(one, under) for one in value]
    return f"{value} {EVIL}" if isinstance(value, str) and under in SAID else value


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


@needs_browser
def test_the_browser_would_run_what_is_not_escaped(tmp_path):
    """Or the other tests would prove nothing."""
    for number, payload in enumerate(PAYLOADS):
        if payload.startswith(("'", "]")):
            continue  # of other places than text
        page = tmp_path / f"{number}.html"
        page.write_text(f"<!doctype html><title>mine</title><body><p>{payload}</p>")
        assert f"<title>{MARK}</title>" in rendered(page), payload


@needs_browser
def test_a_comparison_of_hostile_names_runs_nothing(tmp_path):
    made = comparison()
    bad = with_evil(made) | {"arms": made["arms"]}
    page = write_compare_report(tmp_path / "report.html", bad)
    the_page_is_untouched(rendered(page))


@needs_browser
def test_an_audit_of_hostile_names_runs_nothing(tmp_path):
    page = write_audit_report(
        tmp_path / "report.html",
        with_evil(audit()),
        title=EVIL,
        data={"name": EVIL, "note": EVIL},
        made_by={"version": EVIL, EVIL: 1},
    )
    the_page_is_untouched(rendered(page))


def the_page_is_untouched(seen):
    """No element of a payload is in the document, its title is no payload's, and the text stands there."""
    title = html.unescape(seen.partition("<title>")[2].partition("</title>")[0])
    assert title != MARK
    for element in ("<script", "<iframe", "<img", "onload=", "onerror="):
        outside = seen.replace(html.escape(EVIL), "").replace(html.escape(EVIL, quote=False), "")
        assert element not in outside, element
    assert "&lt;script&gt;" in seen
