"""The command line in processes of its own that start at once: forks of one that has imported it all."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SERVER = """
import json, os, signal, sys
import torch, torch._dynamo, numba, duckdb  # an optimiser of torch imports dynamo when it is made
import fastpop, fastpop.cli, fastpop.cli.parse, fastpop.experiments, fastpop.evaluation
import fastpop.training.run, fastpop.report, fastpop.kernels.native, fastpop.judge, fastpop.recipes
import matplotlib.figure, matplotlib.backends.backend_svg
import numpy as np
from fastpop.kernels.permutation import _numba

for width in (8, 16):
    for null in ("label", "sign"):
        _numba.forward(_numba.Inputs(np.arange(100.0) % 7, np.ones((100, width)), 4, 0, null=null, threads=1))

def child(ask):
    os.setpgid(0, 0)
    os.chdir(ask["cwd"])
    os.environ.update(ask["env"])
    for name in ask["without"]:
        for known in list(sys.modules):
            if known.partition(".")[0] == name:
                del sys.modules[known]
        sys.modules[name] = None  # as if it were not installed
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(ask[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    # as a shell's foreground: tests may run below nohup, or in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    code = 0
    try:
        exec(ask["first"], {})
        sys.argv = ["fastpop", *ask["words"]]
        fastpop.cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 99
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)

for line in sys.stdin:
    ask = json.loads(line)
    if "wait" in ask:
        done, status = os.waitpid(ask["wait"], os.WNOHANG)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status) if done else None}), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        child(ask)
    print(json.dumps({"pid": pid}), flush=True)
"""


@dataclass
class Done:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A command that runs."""

    def __init__(self, server: "Commands", pid: int, folder: Path):
        self.server, self.pid, self.folder = server, pid, folder
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.server.ask({"wait": self.pid})["code"]
        return self.code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = 240) -> Done:
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"{self.folder}: {self.text('stdout')}{self.text('stderr')}")
            time.sleep(0.01)
        assert self.code is not None
        return Done(self.code, self.text("stdout"), self.text("stderr"))

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(errors="backslashreplace")


class Commands:
    """Start `fastpop WORDS`; one server a session of tests."""

    def __init__(self, folder: Path, **environment: str):
        self.folder, self.number = folder, 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"} | environment
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, question: dict) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *words, cwd=None, stdout=None, without=(), first="", **environment) -> Running:
        """first: Python that the command's process runs before it begins."""
        self.number += 1
        place = self.folder / str(self.number)
        place.mkdir()
        (place / "stdout").touch()
        (place / "stderr").touch()
        pid = self.ask(
            {
                "words": [str(word) for word in words],
                "cwd": str(cwd or place),
                "env": environment,
                "without": list(without),
                "first": first,
                "stdout": str(stdout or place / "stdout"),
                "stderr": str(place / "stderr"),
            }
        )["pid"]
        return Running(self, pid, place)

    def run(self, *words, code=0, seconds=240, **options) -> Done:
        done = self.start(*words, **options).wait(seconds)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def close(self) -> None:
        with self.process:  # whose pipes are closed, then it ends
            pass
