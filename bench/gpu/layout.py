"""The package as an install lays it out, made of links: no pip, milliseconds. Standard library only.

fastpop/ and kernels/ stay where they are; a folder for PYTHONPATH holds links to them, kernels/ under its
installed name, and to one compiled module, wherever that was built.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = "_C" + sysconfig.get_config_var("EXT_SUFFIX")
# The Python beside the module asks it for names: one built from other sources may lack them.
TRY = "from fastpop import _C; from fastpop.kernels import device; print(_C.best_path(), _C.has_cuda)"
DIGEST = "sources.sha256"  # beside a carried module


def lay_out(site: Path, module: Path) -> None:
    package = site / "fastpop"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for one in (ROOT / "fastpop").iterdir():
        if one.name != "__pycache__" and not one.name.startswith("_C"):
            (package / one.name).symlink_to(one)
    (package / "kernels").symlink_to(ROOT / "kernels")
    (package / MODULE).symlink_to(module)


def loads(site: Path | None, *, cuda: bool) -> str:
    """What is wrong with the compiled module that is found first, "" if nothing; in another process."""
    path = [str(site)] if site is not None else []
    if os.environ.get("PYTHONPATH"):
        path.append(os.environ["PYTHONPATH"])
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRY],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    if cuda and done.stdout.split()[1] != "True":
        return "it was built without CUDA"
    return ""


def sources() -> str:
    """A digest of what a compiled module is made from."""
    digest = hashlib.sha256()
    for path in [ROOT / "setup.py", *sorted((ROOT / "csrc").rglob("*"))]:
        if path.is_file():
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def is_of_these_sources(module: Path) -> bool:
    written = module.with_name(DIGEST)
    return module.exists() and written.exists() and written.read_text().strip() == sources()


def build(folder: Path, arches: str, log: Path, *, cuda: str = "1") -> Path:
    """The compiled module for these architectures, built into `folder`. Raises RuntimeError."""
    environment = os.environ | {"FASTPOP_CUDA": cuda, "FASTPOP_CUDA_ARCHES": arches}
    with open(log, "ab") as out:
        done = subprocess.run(
            [
                sys.executable,
                "setup.py",
                "build_ext",
                "--build-lib",
                str(folder),
                "--build-temp",
                str(folder / "objects"),
            ],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=out,
        )
    module = folder / "fastpop" / MODULE
    if done.returncode or not module.exists():
        raise RuntimeError(f"setup.py build_ext ended with status {done.returncode}; its words are in {log}")
    return module
