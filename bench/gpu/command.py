"""What both commands share: arguments, the environment of the sections, the table at the end. Standard
library only, so that --plan and --read work anywhere."""

import argparse
import datetime
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu import judging, plan, runner
from gpu.plan import Section
from gpu.record import Record, last_run, read

BENCH = Path(__file__).resolve().parents[1]
CARRIED = BENCH.parent / ".gpu"


def main(name: str, sections: tuple[Section, ...], words: str, arguments: list[str] | None = None) -> int:
    given = parsed(name, sections, words, arguments)
    if given.read is not None:
        return show(given.read)
    chosen = tuple(one for one in sections if not given.only or one.name in given.only)
    if given.plan:
        print(plan.table(chosen))
        return 0
    if given.prepare or given.count:
        scratch = Path(tempfile.mkdtemp(prefix="fastpop-gpu-"))
        environment = sections_environment(name, scratch, scratch, "", cuda=False) | {"FASTPOP_BENCH": "full"}
        words = [sys.executable, "-P", "-m", "gpu.prepare", "count" if given.count else "all"]
        try:
            return subprocess.run(words, env=environment).returncode
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if not given.cpu and not has_card():
        print(
            f"{name.replace('-', '_')}.py: expected a CUDA device; this machine has none "
            "(--cpu runs the same code, small, on a processor)",
            file=sys.stderr,
        )
        return 2
    out = Path(os.environ.get("OUT") or BENCH / "records")
    run = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = Record(out / f"{name}.jsonl", run)
    record.add("", "run", name, sections=[one.name for one in chosen], cpu=given.cpu, python=sys.version)
    # What an outer deadline sends must end what this has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = Path(tempfile.mkdtemp(prefix="fastpop-gpu-"))
    print(judging.HEAD, flush=True)
    try:
        runner.run(
            chosen,
            record,
            sections_environment(name, out, scratch, run, cuda=not given.cpu),
            out / f"{name}.log",
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lines = record.lines()
        print(
            "\n".join(
                ["", *judging.summary(lines, judging.ceilings_of(lines)), f"the record: {record.path}"]
            ),
            flush=True,
        )
    return 0


def has_card() -> bool:
    """By the driver's files; where those are elsewhere, by torch, which takes seconds to load."""
    if Path("/dev/nvidiactl").exists():
        return True
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-P", "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def parsed(
    name: str, sections: tuple[Section, ...], words: str, arguments: list[str] | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        f"{name.replace('-', '_')}.py",
        description=words,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plan", action="store_true", help="print the sections and their budgets")
    parser.add_argument("--cpu", action="store_true", help="the same code at small shapes, without a card")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="SECTION",
        choices=[one.name for one in sections],
        help="these sections alone",
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="print a record as a table")
    if name == "gpu-day":
        parser.add_argument("--prepare", action="store_true", help="fill .gpu/ with what to take to the card")
        parser.add_argument(
            "--count", action="store_true", help="count instructions again and write the predictions"
        )
    else:
        parser.set_defaults(prepare=False, count=False)
    return parser.parse_args(arguments)


def sections_environment(name: str, out: Path, scratch: Path, run: str, *, cuda: bool) -> dict[str, str]:
    site = scratch / "site"
    path = [str(site), str(BENCH)]
    if os.environ.get("PYTHONPATH"):
        path.append(os.environ["PYTHONPATH"])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "FASTPOP_BENCH_DEVICE": "cuda" if cuda else "cpu",
        "FASTPOP_BENCH": "full" if cuda else "small",
        "GPU_DAY_RECORD": str(out / f"{name}.jsonl"),
        "GPU_DAY_RUN": run,
        "GPU_DAY_SITE": str(site),
        "GPU_DAY_CARRIED": str(CARRIED),
    }
    if cuda:
        environment.setdefault("TRITON_CACHE_DIR", str(CARRIED / "triton"))
    return environment


def show(path: Path) -> int:
    lines = last_run(read(path))
    if not lines:
        print(f"{path}: expected the record of a run; got no line of one", file=sys.stderr)
        return 1
    print(judging.table(lines))
    return 0
