"""One Chromium for many pages, spoken to over a pipe by the DevTools protocol: no port, driver or package."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
# The protocol is read from 3 and written to 4; either may be taken by the other's end.
ENDS = """import os, sys
theirs, back = (os.dup(int(end)) for end in sys.argv[1:3])
while min(theirs, back) < 5:
    theirs, back = os.dup(theirs), os.dup(back)
os.dup2(theirs, 3)
os.dup2(back, 4)
os.execv(sys.argv[3], sys.argv[3:])"""
# Beyond the window without a box that scrolls or cuts off: what makes the whole page scroll sideways.
OUTSIDE = """(() => {
  const boxed = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== 'visible') return true; return false; };
  return [...document.body.querySelectorAll('*')].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width && r.right > document.documentElement.clientWidth + 1 && !e.closest('svg *') && !boxed(e);
  }).slice(0, 5).map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`);
})()"""


class Browser:
    """A page at a time. folder: where the browser keeps its profile."""

    def __init__(self, folder):
        theirs, self._out = os.pipe()
        self._in, back = os.pipe()
        words = [FOUND, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-SEc", ENDS, str(theirs), str(back), *words],
            pass_fds=(theirs, back),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        self._left, self._sent, self._events, self._session = b"", 0, [], {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": found["sessionId"]}
        self.ask("Page.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.ask("Browser.close")
        self._process.wait(30)
        os.close(self._out)
        os.close(self._in)

    def ask(self, method, **options):
        """The result of one command."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": options, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._sent:
                assert "error" not in found, found
                return found["result"]
            self._events.append(found.get("method"))

    def _next(self):
        while b"\0" not in self._left:
            more = os.read(self._in, 1 << 20)
            if not more:
                raise BrokenPipeError("the browser ended")
            self._left += more
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def open(self, page, width=1280, height=900):
        """Loads a file at this width in pixels of CSS."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._events.append(self._next().get("method"))

    def value(self, expression):
        """What an expression of JavaScript is on the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, seconds):
        """For what runs after a page is there."""
        time.sleep(seconds)

    def sideways(self):
        """(how wide the window is, how wide the page would be, what stands outside)."""
        return (
            self.value("document.documentElement.clientWidth"),
            self.value("document.documentElement.scrollWidth"),
            self.value(OUTSIDE),
        )
