"""What a person sees while something runs: whole at 80 columns, a widget in a notebook, silence in a file."""

import io
import subprocess
import sys
import time

import pytest

from fastpop import bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_eighty_columns(bar):
    return bar.format_meter(**bar.format_dict | {"ncols": 80, "elapsed": 36000, "rate": 9.9})


@pytest.mark.parametrize(
    "label", ["factor frozen 3/20", "sasrec permuted 100000/100000", "compare sasrec: permuted, seed 10"]
)
def test_a_bar_is_whole_at_eighty_columns(label, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with bars.progress_bar(123_456, label, initial=98_765, show=True) as bar:
        bar.set_postfix_str("loss 12.3456, 9,162,512/s", refresh=False)
        line = at_eighty_columns(bar)
    assert len(line) <= 80
    assert line.startswith(label)
    assert line.endswith("/s" if "seed" not in label else line[-2:])
    assert " 80%|" in line


def test_the_widget_of_a_notebook_takes_the_place_of_the_bar():
    """tqdm puts its widget where a format says {bar}, and draws one of text anywhere else."""
    assert bars.FORMAT.count("{bar}") == 1
    assert "{bar:" not in bars.FORMAT


def test_nothing_is_drawn_without_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    for show in (None, False):
        with bars.progress_bar(10, "x", show=show, delay=0) as bar:
            bar.update(5)
    with bars.waiting("x", delay=0):
        time.sleep(0.05)
    assert stream.getvalue() == ""
    with bars.progress_bar(10, "x", show=True) as bar:
        bar.update(5)
    assert "x   0%|" in stream.getvalue()


def test_waiting_says_what_takes_so_long(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with bars.waiting("compiling", delay=0.01):
        time.sleep(0.7)
    assert "compiling 00:00" in stream.getvalue()
    with bars.waiting("never", delay=60):
        pass
    assert "never" not in stream.getvalue()


def test_the_command_line_says_it_in_a_file_too(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(bars, "spoken", lambda message: print(f"fastpop: {message}", file=sys.stderr))
    with bars.waiting("compiling", delay=0.01):
        time.sleep(0.1)
    assert stream.getvalue() == "fastpop: compiling ...\n"
    with bars.waiting("compiling", show=False, delay=0.01):
        time.sleep(0.1)
    assert stream.getvalue() == "fastpop: compiling ...\n"


KILLED_WHILE_IT_DRAWS = """
import os, signal
from fastpop import bars

bars.progress_bar(1, "first", show=False)
child = os.fork()
if child == 0:
    bars._kind().get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
assert bars._kind().get_lock().acquire(timeout=5)
"""


def test_a_process_that_is_killed_while_it_draws_holds_up_no_other():
    subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", KILLED_WHILE_IT_DRAWS], check=True, timeout=60
    )
