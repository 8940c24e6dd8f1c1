"""Hostile bytes for everything that reads: no crash, no hang, no memory blow-up, no error but one that says
what is wrong.

    pip install atheris==3.0.0
    python tests/fuzz.py --seconds 60              # every target, guided by what Python lines are reached
    python tests/fuzz.py csv --seconds 600 --corpus DIR

Without atheris the same targets take inputs that are made of the seeds by plain mutation; so does make test.
"""

import argparse
import contextlib
import gzip
import importlib.util
import io
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

GUIDED = "--guided" in sys.argv  # a process that atheris drives: what reads is instrumented as it is imported
if GUIDED:
    import atheris
with atheris.instrument_imports(include=["fastpop"]) if GUIDED else contextlib.nullcontext():
    import fastpop
    from fastpop import files, report
    from fastpop.cli import toml
    from fastpop.cli.options import array
    from fastpop.cli.parse import VERBS
    from fastpop.data.cases import Cases
    from fastpop.data.prepared import card_text
    from fastpop.experiments import unfinished
    from fastpop.training import CheckpointError, TrainConfig, checkpoint, sealed

SAID = (ValueError, TypeError, OSError, CheckpointError)  # what bad input may raise, with a message
LONGEST = 4_000  # characters of a message
SLOWEST = 20.0  # seconds of one input, on a busy machine
MOST = 400 << 20  # bytes of memory that one input may add
WORDS = [
    b"\n",
    b'"',
    b",",
    b"\t",
    b"::",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"1e400",
    b"-1",
    b"NaN",
    b"[" * 99,
]
WORDS += [b"9" * 30, b"null", b"{}", b"\r\n", b"\xf0\x9f\x92\xa9", b"\xed\xa0\x80", b"=cmd()", b"<script>"]


@dataclass(frozen=True)
class Target:
    """read: what is done with the bytes, in a folder. seeds: sound inputs, of which others are made."""

    read: Callable[[bytes, Path], object]
    seeds: list[bytes] = field(default_factory=list)


def _log(data: bytes, folder: Path, name: str = "log.csv", **how: object) -> None:
    (folder / name).write_bytes(data)
    log = fastpop.read_log(folder / name, memory_limit="64MB", threads=1, progress=False, **how)
    if log.facts["rows_read"] + log.facts["rows_rejected"] != log.facts["records"]:
        raise AssertionError("records are missing")


def _npy(value: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, value, allow_pickle=value.dtype.hasobject)
    return out.getvalue()


def _folder(name: str, write: Callable[[Path], object]) -> Callable[[], dict[str, bytes]]:
    """The files of a sound folder, written once."""
    known: dict[str, bytes] = {}

    def found() -> dict[str, bytes]:
        if not known:
            with tempfile.TemporaryDirectory() as place:
                write(Path(place) / name)
                known.update({path.name: path.read_bytes() for path in (Path(place) / name).iterdir()})
        return known

    return found


_words = fastpop.Interactions.from_arrays(["a", "b", "b"], ["x", "y", "é"], [1, 2, 3], weight=[1.0, 2.0, 3.0])
_prepared = _folder("log", _words.save)
_cases = _folder("cases", lambda place: fastpop.data.split(_words, "leave-last-out").test.save(place))
_checkpoint = _folder(
    "model", lambda place: checkpoint.write_folder(place, {"model": {"a": torch.zeros(2)}}, {"epoch": 1})
)


def _replaced(of: Callable[[], dict[str, bytes]], data: bytes, folder: Path) -> Path:
    """A sound folder in which the rest of the bytes take the place of a file, which the first chooses. Its
    checksum elsewhere is made to fit, so that what reads it has to be safe by itself."""
    place = folder / "folder"
    place.mkdir(exist_ok=True)
    sound = of()
    names = sorted(sound)
    chosen = names[data[0] % len(names)] if data else names[0]
    for name in names:
        (place / name).write_bytes(data[1:] if name == chosen else sound[name])
    if chosen != "log.json" and "log.json" in sound:
        card = json.loads(sound["log.json"])
        card["files"][chosen] = {"bytes": len(data[1:]), "sha256": files.sha256(place / chosen)}
        (place / "log.json").write_text(card_text({k: v for k, v in card.items() if k != "sha256"}))
    if chosen.endswith(".safetensors"):
        state = json.loads(sound["state.json"])
        state["sha256"] = {chosen: files.sha256(place / chosen)}
        state.pop(sealed.SEAL)
        sealed.write(place / "state.json", state)
    return place


def _open_prepared(data: bytes, folder: Path) -> None:
    place = _replaced(_prepared, data, folder)
    for verify in (False, True):
        log = fastpop.Interactions.open(place, verify=verify)
        if verify:
            log.item_counts()
            log.decode_items(log.history(0))


def _in_folder(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def of(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return of


def _finished(data: bytes, folder: Path) -> None:
    (folder / unfinished.FINISHED).write_bytes(data)
    found = unfinished.finished(folder, {"config": {}})
    if found is not None:
        report.comparison_text(found)


TABLE = b"u,i,t\n1,7,1500000000\n2,8,1500000001\n2,7,2024-01-01\n"
TOML = b'encoder = "sasrec"\n[train]\nloss = {name = "bpr"}\nregularizers = [{name = "l2", weight = 1}]\n'
TARGETS = {
    "csv": Target(
        lambda data, folder: _log(data, folder, user="u", item="i", time="t", on_bad_row="skip"),
        [
            TABLE,
            TABLE.replace(b",", b"\t"),
            b'u,i,t\n"a ""b",x,1\n\n c ,"y\nz",2\n',
            TABLE.replace(b"\n", b"\r\n"),
        ],
    ),
    "positions": Target(
        lambda data, folder: _log(data, folder, user=0, item=1, weight=2),
        [b"1,2,3\n4,5,6\n", b"a::b::1.5\nc::d::2\n", b"0,1,2\n1,2,3\n"],
    ),
    "gzip": Target(
        lambda data, folder: _log(data, folder, "log.csv.gz", user="u", item="i", on_bad_row="skip"),
        [gzip.compress(TABLE, mtime=0), gzip.compress(b"u,i\n" + b"1,2\n" * 99, mtime=0)],
    ),
    "utf-16": Target(
        lambda data, folder: _log(data, folder, user="u", item="i", encoding="utf-16"),
        [TABLE.decode().encode("utf-16")],
    ),
    "sequence": Target(
        lambda data, folder: _log(data, folder, preset="sequence"), [b"1 2 3\n2 3 4 5\n", b"a b c\n"]
    ),
    "sessions": Target(
        lambda data, folder: _log(data, folder, preset="sessions", on_bad_row="skip"),
        [b"1 2 3\n3 4\n", b"x y\n"],
    ),
    "prepared": Target(
        _open_prepared, [bytes([n]) + data for n, (_, data) in enumerate(sorted(_prepared().items()))]
    ),
    "cases": Target(
        lambda data, folder: Cases.load(_replaced(_cases, data, folder)),
        [bytes([n]) + data for n, (_, data) in enumerate(sorted(_cases().items()))],
    ),
    "checkpoint": Target(
        lambda data, folder: checkpoint.read_folder(_replaced(_checkpoint, data, folder), ("model",)),
        [
            b"\0" + save({"a": torch.zeros(2), "b": torch.zeros(3, dtype=torch.int64)}),
            b"\1" + _checkpoint()["state.json"],
        ],
    ),
    "npy": Target(
        _in_folder("a.npy", lambda path: array("counts", path)),
        [_npy(np.arange(3)), _npy(np.ones((2, 2), np.float32)), _npy(np.array([{}, 1], dtype=object))],
    ),
    "sealed": Target(
        _in_folder("a.json", lambda path: sealed.read(path, older=True)),
        [sealed.sealed_text({"a": [1, 2.5, None], "b": {"c": "é"}}).encode(), b'{"a": 1}'],
    ),
    "config": Target(
        _in_folder("a.toml", TrainConfig.from_toml), [b'encoder = "sasrec"\nepochs = 3\n', b"dim = 1e400\n"]
    ),
    "run file": Target(
        _in_folder("a.toml", lambda path: toml.defaults(VERBS["train"], path, None)),
        [TOML, b'log = "x"\nout = "y"\n'],
    ),
    "comparison": Target(
        _finished, [json.dumps({"made_by": {"asked": {"config": {}}}, "rows": []}).encode()]
    ),
}


class Broken(AssertionError):
    """An input got through to where none may."""


def tried(target: Target, data: bytes) -> str:
    """How the bytes were taken: "read" or the kind of error. Raises Broken."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(data, Path(folder))
            went = "read"
        except SAID as error:
            went, said = type(error).__name__, str(error)
            if not said or len(said) > LONGEST:
                raise Broken(f"{went} says {len(said)} characters: {said[:200]}") from error
        except BaseException as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
    seconds = time.monotonic() - started
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if seconds > SLOWEST or added > MOST:
        raise Broken(f"{len(data)} bytes took {seconds:.1f} s and {added >> 20} MiB")
    return went


def mutated(target: Target, chance: random.Random) -> bytes:
    """A seed with some bytes changed, left out, said twice, or words put in."""
    data = bytearray(chance.choice(target.seeds))
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at : at + chance.randint(1, 8)]
        elif kind == 2:
            data[at:at] = chance.choice(WORDS)
        elif kind == 3:
            data[at:at] = data[at : at + chance.randint(1, 40)] * chance.randint(1, 5)
        elif kind == 4:
            data[at : at + chance.randint(1, 4)] = chance.randbytes(chance.randint(1, 8))
        else:
            data = data[:at]
    return bytes(data)


def plainly(target: Target, inputs: Iterator[bytes]) -> dict[str, int]:
    """How many of the inputs went which way. Raises Broken, which shows the bytes."""
    went: dict[str, int] = {}
    for data in inputs:
        try:
            kind = tried(target, data)
        except Broken as error:
            raise Broken(f"{error}; bytes {data[:400]!r}") from error
        went[kind] = went.get(kind, 0) + 1
    return went


def _until(target: Target, seconds: float) -> Iterator[bytes]:
    end, chance = time.monotonic() + seconds, random.Random(0)
    while time.monotonic() < end:
        yield mutated(target, chance)


def _guided(name: str, seconds: float, corpus: Path) -> None:
    """In a process of its own: libFuzzer never returns."""
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds:g}", f"-timeout={SLOWEST:g}", "-rss_limit_mb=3000", "-max_len=4096"]
    words = [sys.argv[0], *limits, f"-artifact_prefix={corpus}/", str(corpus)]
    atheris.Setup(words, lambda data: tried(target, data))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TARGETS)}; all where none is given")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what reaches new lines")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    failed = 0
    for name in given.names or TARGETS:
        if given.guided:
            _guided(name, given.seconds, given.corpus)
        if importlib.util.find_spec("atheris") is None:
            print(name, plainly(TARGETS[name], _until(TARGETS[name], given.seconds)), flush=True)
            continue
        with tempfile.TemporaryDirectory() as place:
            corpus = (given.corpus or Path(place)) / name.replace(" ", "-")
            corpus.mkdir(parents=True, exist_ok=True)
            words = [
                sys.executable,
                __file__,
                name,
                "--guided",
                f"--seconds={given.seconds:g}",
                f"--corpus={corpus}",
            ]
            done = subprocess.run(words, capture_output=True, text=True)
            last = re.findall(r"^#\d+\s+DONE .*$|^Done .*$", done.stderr, re.MULTILINE)
            print(name, "ok" if done.returncode == 0 else "FAILED", *last, sep=": ", flush=True)
            if done.returncode:
                failed += 1
                print(done.stderr[-4000:], file=sys.stderr, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
