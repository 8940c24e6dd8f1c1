"""Faults of disks: full, closed to writing, bytes that change."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers_cli import Done
from helpers_faults import WRITES, Bench, CannotBeDone, Lost, Trial, fault, left_in

# In a command's process: root, too, may then write only where a mode lets it (CAP_DAC_OVERRIDE goes).
BY_MODE = """
import ctypes
head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.capget(head, sets) == 0
sets[0] &= ~0b110
assert libc.capset(head, sets) == 0, ctypes.get_errno()
"""


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[str], None]]:
    """A file system of its own at `place`; gives what changes its size."""
    place.mkdir(parents=True)
    if os.geteuid() or not shutil.which("mount"):
        raise CannotBeDone("mounting a small disk needs root")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
    if made.returncode:
        raise CannotBeDone("tmpfs cannot be mounted here")

    def resize(to: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={to}", place], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@fault("full disk", "a disk of a random size, too small for prepare, train, compare or experiment; then more")
def full_disk(bench: Bench, chance: random.Random) -> str:
    verb = chance.choice(WRITES)
    sizes = [path.stat().st_size for path in bench.whole(verb).rglob("*") if path.is_file()]
    pages = sum(-(-size // 4096) for size in sizes)
    disk = bench.new("disk")
    with small_disk(disk, 4096 * chance.randint(1, pages)) as resize:
        done = bench.start(verb, disk / "out").wait()
        if done.returncode:
            _one_line(done, verb, "No space left on device")
            resize("64m")
            bench.again(verb, disk / "out")
        bench.must_be_whole(verb, disk / "out")
    return "refused in one line" if done.returncode else "had room"


@fault("read-only folder", "its folder may not be written any more from a random moment on; then it may")
def read_only(bench: Bench, chance: random.Random) -> str:
    verb, place = chance.choice(WRITES), bench.new("place", make=True)
    out = place / "out"
    running = bench.at_random(verb, chance, out, first=BY_MODE)
    _let(place, 0o555)
    done = running.wait()
    _let(place, 0o755)
    if done.returncode:
        _one_line(done, verb, "Permission denied", "expected a writable place")
    if done.returncode or verb != "train" or left_in(verb, out) != "finished":
        bench.again(verb, out, first=BY_MODE)
    bench.must_be_whole(verb, out)
    return "refused in one line" if done.returncode else "had ended"


def _let(place: Path, mode: int) -> None:
    """Give this mode to a folder and to all folders in it."""
    for folder in (place, *(path for path in sorted(place.rglob("*")) if path.is_dir())):
        if folder.exists():
            folder.chmod(mode)


def _one_line(done: Done, verb: str, *words: str) -> None:
    said = done.stderr.splitlines()
    if done.returncode != 1 or len(said) != 1 or not any(word in said[0] for word in words):
        raise Lost(f"{verb}: expected 1 and one line of {words[0]}; got {done.returncode}: {done.stderr}")


# damaged bytes


def damaged(
    bench: Bench, chance: random.Random, master: Path, pattern: str = "**/*"
) -> tuple[Path, Path, str]:
    """(a copy of a folder, the file in it that was damaged, how). pattern: of the files that may be."""
    out = bench.new()
    shutil.copytree(master, out)
    file = chance.choice(sorted(path for path in out.glob(pattern) if path.is_file() and path.stat().st_size))
    data = bytearray(file.read_bytes())
    flips = chance.random() < 0.5
    if flips:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    else:
        del data[chance.randrange(len(data)) :]
    file.write_bytes(data)
    return out, file, f"{file.relative_to(out)} {'flipped' if flips else 'cut'}"


def _said(file: Path, text: str, out: Path) -> bool:
    """Whether a message names the file, or the folder of ours that it is part of."""
    parts = file.relative_to(out).parts
    return any(f"{part}" in text for part in parts)


def damaged_and_given_again(verb: str, *, finished: bool) -> Trial:
    def trial(bench: Bench, chance: random.Random) -> str:
        master = bench.whole(verb) if finished else bench.unfinished(verb)
        # the models of an answer are runs: what is found in them is counted as of a run
        pattern = "*/*.*" if finished and verb == "experiment" else "**/*"
        out, file, how = damaged(bench, chance, master, pattern)
        before = _bytes(out)
        done = bench.start(verb, out).wait()
        said = _said(file, done.stderr, out)
        if done.returncode:
            changed = _changed(before, out)
            if not said or len(done.stderr.splitlines()) != 1 or changed:
                raise Lost(f"{verb}, {how}: {done.returncode} {done.stderr} {changed}")
            return "refused by its name"
        # of a model that an experiment has trained already: what is for people to read is said, and not read
        name = file.relative_to(out).as_posix()
        to_read = verb == "experiment" and said and file.name in ("train.csv", "metrics.json")
        bench.must_be_whole(verb, out, but=name if to_read else "")
        return "said, and mended" if said else "written anew, never read"

    return trial


def _bytes(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def _changed(before: dict[str, bytes], out: Path) -> list[str]:
    """Files that differ, less the lock of the killed process, which the next one takes and removes."""
    after = _bytes(out)
    names = {name for name in before.keys() | after.keys() if Path(name).name != ".lock"}
    return sorted(name for name in names if before.get(name) != after.get(name))


ANY_FILE = "a flipped bit or a cut in any file of"
for _verb in ("train", "compare", "experiment"):
    fault(f"damage, unfinished {_verb}", f"{ANY_FILE} an unfinished `fastpop {_verb}`, which is given again")(
        damaged_and_given_again(_verb, finished=False)
    )
for _verb, _what in (
    ("compare", "a finished `fastpop compare`"),
    ("experiment", "the answer of an experiment"),
):
    fault(f"damage, finished {_verb}", f"{ANY_FILE} {_what}, which is given again")(
        damaged_and_given_again(_verb, finished=True)
    )


@fault("damage, finished train", f"{ANY_FILE} a finished run: evaluate says so, `train --resume` mends it")
def damaged_run(bench: Bench, chance: random.Random) -> str:
    out, file, how = damaged(bench, chance, bench.whole("train"))
    read = bench.commands.start("evaluate", out).wait()
    for_resuming = file.relative_to(out).parts[0].startswith(("checkpoint-", "best"))
    if not for_resuming and not _said(file, read.stderr, out):
        raise Lost(f"evaluate, {how}: {read.returncode} {read.stderr}")
    done = bench.start("train", out, "--resume").wait()
    said = _said(file, done.stderr, out)
    if done.returncode:
        if not said or len(done.stderr.splitlines()) != 1:
            raise Lost(f"train --resume, {how}: {done.returncode} {done.stderr}")
        return "refused by its name"
    older = min(path.name for path in out.glob("checkpoint-*"))
    if for_resuming and not said and file.parent.name != older:
        raise Lost(f"train --resume, {how}: nothing was said")
    bench.must_be_whole("train", out)
    return "said, and mended" if said or not for_resuming else "of the older checkpoint, not needed"


@fault("damage, prepared log", f"{ANY_FILE} a prepared log: train says so, `prepare` given again mends it")
def damaged_log(bench: Bench, chance: random.Random) -> str:
    out, file, how = damaged(bench, chance, bench.whole("prepare"))
    run = out.parent / "run"
    done = bench.commands.start("train", out, "--out", run, "--epochs", "1", "--dim", "4").wait()
    if done.returncode != 2 or not _said(file, done.stderr, out) or len(done.stderr.splitlines()) != 1:
        raise Lost(f"train on a prepared log, {how}: {done.returncode} {done.stderr}")
    bench.again("prepare", out)
    bench.must_be_whole("prepare", out)
    return "said, and mended"
