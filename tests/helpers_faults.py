"""What faults are done to: verbs on a small log, what each leaves where nothing disturbs it, and how two
folders are compared."""

import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from helpers_cli import Commands, Done, Running

from fastpop import Interactions, files
from fastpop.training import checkpoint, state_of

# Of a clock, or of others that are compared by themselves.
CLOCKS = {"seconds", "examples_per_second", "sha256", "seal"}
QUICK = ["--dim", "8", "--num-negatives", "16", "--batch-size", "128", "--permutations", "20"]
TRAIN = ["train", *QUICK, "--epochs", "3", "--evaluate-every", "1", "--patience", "10"]
VERBS: dict[str, list[str]] = {
    "prepare": ["prepare"],
    "train": TRAIN,
    "checkpoint": [*TRAIN, "--epochs", "2", "--checkpoint-minutes", "0.000001"],  # one after every step
    "compare": ["compare", *QUICK, "--epochs", "1", "--max-epochs", "2", "--seeds", "1", "--arms", "frozen"],
    "experiment": ["experiment", "decomposition", "--quick"],
}
TRAINS = ("train", "checkpoint")
WRITES = ("prepare", "train", "compare", "experiment")
# In a command's process: SIGKILL at one of its operations on paths that hold a fragment; all are counted.
AT_AN_OPERATION = """
import os, signal, sys
seen, counted = 0, os.open({count!r}, os.O_WRONLY | os.O_CREAT)
def hook(event, args):
    global seen
    if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        return
    if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    paths = [os.fsdecode(one) for one in args[:2] if isinstance(one, (str, bytes, os.PathLike))]
    if any({fragment!r} in path for path in paths):
        seen += 1
        os.pwrite(counted, b"%d" % seen, 0)
        if seen == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


class Lost(AssertionError):
    """A fault took something, or was passed over in silence."""


class CannotBeDone(Exception):
    """This machine lacks what a fault needs."""


class Bench:
    """Commands on one log, each beside what it leaves undisturbed. By context: its folder and its processes
    go at the end. commands: those of a caller, who ends them."""

    def __init__(self, commands: Commands | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.made = 0  # folders
        self.ours = [] if commands else [Commands(self.new("commands", make=True))]
        self.commands = commands or self.ours[0]
        self._on_wrong_clock: Commands | None = None
        self.log, self.test = self.folder / "log.csv", self.folder / "test.csv"
        rng = np.random.default_rng(0)
        lines = ["who,what,when"] + [
            f"u{rng.integers(40)},{min(int(rng.zipf(1.5)), 50)},{1_500_000_000 + n}" for n in range(1500)
        ]
        self.log.write_text("\n".join(lines) + "\n")
        self.test.write_text("\n".join(lines[:1] + lines[-60:]) + "\n")
        self._takes: dict[str, float] = {}
        self._whole: dict[str, tuple[Any, float, Path]] = {}
        self._unfinished: dict[str, Path] = {}
        self._operations: dict[tuple[str, str], int] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        for commands in self.ours:
            commands.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def words(self, verb: str, out: Path) -> list[Any]:
        first, *rest = VERBS[verb]
        name = [rest.pop(0)] if first == "experiment" else []
        test = ["--test", self.test] if first == "train" else []
        read = [self.log, "--user", "who", "--item", "what", "--time", "when"]
        return [first, *name, *read, *test, *rest, "--out", out]

    def start(self, verb: str, out: Path, *more: str, **options: Any) -> Running:
        return self.commands.start(*self.words(verb, out), *more, **options)

    def again(self, verb: str, out: Path, *more: str, **options: Any) -> Done:
        """The same command, to its end: it must succeed."""
        done = self.start(verb, out, *more, **options).wait()
        if done.returncode:
            raise Lost(f"{verb} ended with {done.returncode}: {done.stderr}")
        return done

    def at_random(self, verb: str, chance: random.Random, out: Path, **options: Any) -> Running:
        """Started, and running for a random share of the time that it takes."""
        seconds = chance.uniform(0, self.seconds(verb))
        running = self.start(verb, out, **options)
        time.sleep(seconds)
        return running

    def new(self, name: str = "out", *, make: bool = False) -> Path:
        """The path of a folder in a new one of its own; it is not there yet, unless it is to be made."""
        self.made += 1
        place = self.folder / f"{self.made}" / name
        (place if make else place.parent).mkdir(parents=True)
        return place

    @contextmanager
    def swept(self) -> Iterator[None]:
        """What was made within goes, but for what other trials look at."""
        before = self.made
        try:
            yield
        finally:
            kept = {path.parent for path in self._unfinished.values()} | {self.wrong_clock_folder}
            kept |= {path.parent for _, _, path in self._whole.values()}
            for number in range(before + 1, self.made + 1):
                if self.folder / f"{number}" not in kept:
                    shutil.rmtree(self.folder / f"{number}", ignore_errors=True)

    # undisturbed

    def undisturbed(self, verb: str) -> Any:
        """The content of what the verb leaves; its second run must leave the same."""
        return self._run_whole(verb)[0]

    def seconds(self, verb: str) -> float:
        """How long it takes, as last seen: other work of the machine comes and goes."""
        return self._takes.get(verb) or self._run_whole(verb)[1]

    def takes_now(self, verb: str, seconds: float) -> None:
        self._takes[verb] = seconds

    def whole(self, verb: str) -> Path:
        """A finished folder, to copy."""
        return self._run_whole(verb)[2]

    def _run_whole(self, verb: str) -> tuple[Any, float, Path]:
        if verb not in self._whole:
            out, second = self.new(), self.new()
            self.again(verb, second)
            started = time.monotonic()
            self.again(verb, out)
            took = time.monotonic() - started
            found = content(out)
            if content(second) != found:
                raise Lost(f"{verb}: two undisturbed runs differ in {differences(found, content(second))}")
            self._whole[verb] = found, took, out
        return self._whole[verb]

    def unfinished(self, verb: str) -> Path:
        """A folder of a command that was killed late, to copy."""
        if verb not in self._unfinished:
            fragment, share = ("checkpoint-", 1.0) if verb == "train" else ("", 0.8)
            out = self.new()
            self.killed_at(verb, out, fragment, int(share * self.operations(verb, fragment)))
            self._unfinished[verb] = out
        return self._unfinished[verb]

    # kills

    def operations(self, verb: str, fragment: str) -> int:
        """How many operations the undisturbed command does on paths with this fragment, or in its folder."""
        if (verb, fragment) not in self._operations:
            out = self.new()
            count = out.parent / "count"
            self.again(verb, out, first=_at(count, fragment or str(out), 0))
            self._operations[verb, fragment] = int(count.read_text())
        return self._operations[verb, fragment]

    def killed_at(self, verb: str, out: Path, fragment: str, at: int) -> None:
        """The command, killed at its at-th operation."""
        count = out.parent / "count"
        done = self.start(verb, out, first=_at(count, fragment or str(out), at)).wait()
        if done.returncode != -signal.SIGKILL:
            raise Lost(f"{verb}: was to be killed; ended with {done.returncode}: {done.stderr}")
        count.unlink()

    # clocks

    @property
    def wrong_clock_folder(self) -> Path | None:
        return None if self._on_wrong_clock is None else self._on_wrong_clock.folder.parent

    def on_a_wrong_clock(self) -> Commands:
        """Commands below faults_clock.c, which is compiled for it."""
        if self._on_wrong_clock is None:
            compiler = shutil.which(os.environ.get("CC", "cc"))
            if compiler is None:
                raise CannotBeDone("a clock that jumps needs a C compiler")
            library = self.folder / "clock.so"
            source = Path(__file__).with_name("faults_clock.c")
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
            self._on_wrong_clock = Commands(self.new("clock", make=True), LD_PRELOAD=str(library))
            self.ours.append(self._on_wrong_clock)
            # the jump is really there, or the fault would prove nothing
            code = "import time; print(time.time())"
            done = self._on_wrong_clock.start("--version", first=code, FAULT_CLOCK="1000000,315360000").wait()
            if float(done.stdout.split()[0]) < time.time() + 3e8:
                raise Lost("the clock did not jump")
        return self._on_wrong_clock

    # judging

    def must_be_whole(self, verb: str, out: Path, *, locks: bool = False, but: str = "") -> None:
        """Raises Lost where a folder is not what the verb leaves undisturbed. locks: those of a process that
        was killed after its work may lie there. but: a file that may differ."""
        # which checkpoints are left says where a run went on; what they held is in its model
        found, wanted = (
            {
                name: one
                for name, one in each.items()
                if "checkpoint-" not in name and name != but and not (locks and name.endswith("lock"))
            }
            for each in (content(out), self.undisturbed(verb))
        )
        if verb in TRAINS:
            newest = checkpoint.latest(out)
            assert newest is not None
            checkpoint.read_folder(newest, ("model", "optimizer"))
        if found != wanted:
            raise Lost(f"{verb}: differs from an undisturbed run in {differences(found, wanted)}")
        left = [path for path in out.parent.rglob(".*") if not path.name.endswith(files.NEW)]
        left = [path for path in left if not (locks and path.name.endswith("lock"))]
        if left:
            raise Lost(f"{verb}: left {[str(path) for path in left]}")


def _at(count: Path, fragment: str, at: int) -> str:
    return AT_AN_OPERATION.format(count=str(count), fragment=fragment, at=at)


def left_in(verb: str, out: Path) -> str:
    """What a command that was stopped left, in words."""
    if verb == "prepare":
        files.recover(out)
        if not out.exists():
            return "nothing"
        try:
            Interactions.open(out, verify=True)
        except (OSError, ValueError) as error:
            raise Lost(f"prepare: what is there is not whole: {error}") from None
        return "a whole log"
    if verb in TRAINS:
        state = state_of(out)
        if state == "finished" and not (out / "audit.json").exists():
            return "a model without its audit"
        return "a checkpoint" if state.startswith("checkpoint-") else state
    if not any(path.is_file() for path in out.rglob("*")):
        return "nothing"
    last = out / "comparison.json" if verb == "compare" else out / "decomposition" / "answer.json"
    return "finished" if last.exists() else "a part"


def content(folder: Path) -> dict[str, Any]:
    """Every file by its path: its bytes' checksum, less what a clock says in JSON and tables."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # a draft that was killed before it was locked is empty, and stays for a minute
        if path.is_dir() or path.name == "seconds.json" or path.name.endswith(files.NEW):
            continue
        if path.suffix == ".json":
            found[name] = _parsed(path)
        elif path.name == "train.csv":
            rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
            found[name] = [_without_clocks(row) for row in rows]
        else:
            data = path.read_bytes()
            if path.name == "report.html":  # whose last line says how long it took
                data = re.sub(rb"; seconds: [\d.]+; ", b"", data)
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def _parsed(path: Path) -> Any:
    """Of a JSON file, less what a clock says; of one that is damaged, its bytes."""
    data = path.read_bytes()
    try:
        return _without_clocks(json.loads(data))
    except ValueError:
        return data


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clocks(one) for key, one in value.items() if key not in CLOCKS}
    return [_without_clocks(one) for one in value] if isinstance(value, list) else value


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """The paths in which two contents differ."""
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


Trial = Callable[[Bench, random.Random], str]
FAULTS: dict[str, tuple[str, Trial]] = {}  # name → (in words, one trial, which says how it went)


def fault(name: str, words: str) -> Callable[[Trial], Trial]:
    """Makes a trial known. It raises Lost, or CannotBeDone."""

    def known(trial: Trial) -> Trial:
        FAULTS[name] = words, trial
        return trial

    return known
