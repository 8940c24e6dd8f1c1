"""Fills .gpu/ with what a card's machine takes a while to make, or cannot: python bench/gpu_day.py --prepare.

Run by a Python like the card's (the same minor version, torch and triton): a compiled module is loaded by
that version alone, and a Triton cache is read by that Triton alone.

    .gpu/build/fastpop/_C*.so    fastpop._C with machine code for sm_90
    .gpu/triton, triton-key.json kernels of the day for sm_90, and what their names depend on
    .gpu/wheels                  peers without their dependencies (liger-kernel, cut-cross-entropy)
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu import layout

CARRIED = layout.ROOT / ".gpu"
PEERS = ("liger-kernel", "cut-cross-entropy")
MOST_MIB = 64.0


def build() -> str:
    """Kept while the sources are those that it was made from."""
    target = CARRIED / "build" / "fastpop" / layout.MODULE
    if not layout.is_of_these_sources(target) and (why := built_anew(target)):
        return why
    # What follows imports fastpop with this module, wherever that is not installed.
    layout.lay_out(Path(os.environ["GPU_DAY_SITE"]), target)
    importlib.invalidate_caches()
    return f"{target.relative_to(layout.ROOT)}: {mib(target):.1f} MiB"


def built_anew(target: Path) -> str:
    """ "", or why not."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        try:
            module = layout.build(Path(folder), "90", log)
        except RuntimeError as error:
            return f"not built: {error}\n{log.read_text(errors='replace')[-600:]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(module, target)
        strip = shutil.which("strip")
        if strip:
            subprocess.run([strip, "--strip-unneeded", str(target)], check=True)
    target.with_name(layout.DIGEST).write_text(layout.sources() + "\n")
    return ""


def triton_cache() -> str:
    folder = CARRIED / "triton"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # A launch reads the machine code alone; the texts on the way to it are ten times its size.
    os.environ |= {"TRITON_CACHE_DIR": str(folder), "TRITON_STORE_BINARY_ONLY": "1"}
    try:
        from gpu import launches, pretend
        from gpu.sections.compile import KEYS, in_parallel
    except ImportError as error:
        return f"no Triton cache: {error}"
    names = list(launches.cases())
    found, _ = in_parallel(names, 90, os.cpu_count() or 1)
    for name in found:
        if "error" in found[name]:
            print(f"{name}: {found[name]['error']}", file=sys.stderr)
    (CARRIED / KEYS).write_text(json.dumps(pretend.cache_key(), indent=1) + "\n")
    compiled = sum(one.get("compiled", 0) for one in found.values())
    return f"{folder.relative_to(layout.ROOT)}: {compiled} kernels, {mib(folder):.1f} MiB"


def wheels() -> str:
    folder = CARRIED / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-c",
            str(layout.ROOT / "constraints.txt"),
            "-d",
            str(folder),
            *PEERS,
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return f"no wheels of peers: {done.stderr.strip()[-300:]}"
    number = len(list(folder.glob("*.whl")))
    return f"{folder.relative_to(layout.ROOT)}: {number} wheels, {mib(folder):.1f} MiB"


def mib(path: Path) -> float:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files) / 2**20


def main(what: str) -> int:
    if what == "count":
        from gpu import instructions

        instructions.write(Path(__file__).parent / "instructions.json")
        from gpu import figures  # which reads what was just written

        figures.write()
        return 0
    for make in (build, wheels, triton_cache):
        print(make(), flush=True)
    whole = mib(CARRIED)
    print(f".gpu: {whole:.1f} MiB" + (f", MORE THAN {MOST_MIB:.0f}" if whole > MOST_MIB else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
