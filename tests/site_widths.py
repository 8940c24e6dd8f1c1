"""Every page of the built site in a browser, as wide as a telephone and as a desk: none is wider than its
window, every picture is there and has words, no formula is left as TeX.

python tests/site_widths.py build/site. Says so, and does nothing, where there is no Chromium.
"""

import sys
import tempfile
from pathlib import Path

import helpers_browser

WIDTHS = (400, 1280)
PICTURES = """(() => {
  const all = [...document.images];
  all.forEach(one => one.loading = 'eager');
  return Promise.all(all.map(one => one.decode().then(() => one.alt ? '' : 'no words: ' + one.src,
    () => 'not there: ' + one.src))).then(found => found.filter(Boolean));
})()"""
FORMULAS = """[...document.querySelectorAll('.arithmatex')].map(
  one => 'not rendered: ' + one.textContent.slice(0, 60))"""


def faults(browser, page, width):
    browser.open(page, width)
    window, whole, outside = browser.sideways()
    found = [f"{whole} pixels wide"] * (whole > window) + [f"outside: {one}" for one in outside]
    return found + browser.value(PICTURES) + browser.value(FORMULAS)


def main(site):
    if helpers_browser.FOUND is None:
        print("no Chromium here: the site's widths are not looked at")
        return 0
    pages = [page for page in sorted(site.rglob("*.html")) if page.name != "404.html"]  # links from the root
    count = 0
    with tempfile.TemporaryDirectory() as folder, helpers_browser.Browser(folder) as browser:
        for width in WIDTHS:
            for page in pages:
                for fault in faults(browser, page.resolve(), width):
                    count += 1
                    print(f"{page.relative_to(site)} at {width}: {fault}")
    print(f"{len(pages)} pages at {' and '.join(map(str, WIDTHS))} pixels: {count} faults")
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
