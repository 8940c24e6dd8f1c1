"""What is in an sdist and in a wheel, and what is not: `python tests/archives.py dist`."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("csrc", "kernels", "fastpop")  # all of what is tracked there is in an sdist


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return set(listed.splitlines())


def of_sdist(path: Path) -> set[str]:
    """Faults of an sdist: what it lacks, what it should not have."""
    with tarfile.open(path) as archive:
        names = {one.name.partition("/")[2] for one in archive if one.isfile()}
    wanted = tracked(*SOURCES) | {
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "MANIFEST.in",
    }
    faults = {f"lacks {name}" for name in wanted - names}
    beyond = {
        name for name in names - tracked() if not re.match(r"(PKG-INFO|setup\.cfg|fastpop\.egg-info/)", name)
    }
    return faults | {f"has {name}" for name in beyond}


def of_wheel(path: Path) -> set[str]:
    """Faults of a wheel: a module that it lacks; more than modules, bundled data, metadata, one library."""
    with zipfile.ZipFile(path) as archive:
        names = {one.filename for one in archive.infolist() if not one.is_dir()}
    modules = {name for name in tracked("fastpop") if not name.endswith(".so")}
    modules |= {f"fastpop/{name}" for name in tracked("kernels")}
    library = {name for name in names if re.fullmatch(r"fastpop/_C\.[\w.-]+\.(so|pyd)", name)}
    notes = {name for name in names if re.match(r"fastpop-[^/]+\.dist-info/", name)}
    faults = {f"lacks {name}" for name in modules - names}
    faults |= set() if len(library) == 1 else {f"has {len(library)} compiled modules"}
    faults |= set() if any(name.endswith("licenses/LICENSE") for name in notes) else {"lacks its licence"}
    return faults | {f"has {name}" for name in names - modules - library - notes}


def main(folder: Path) -> None:
    found = {path: of_sdist(path) for path in folder.glob("fastpop-*.tar.gz")}
    found |= {path: of_wheel(path) for path in folder.glob("fastpop-*.whl")}
    if len(found) < 2:
        sys.exit(f"{folder}: expected an sdist and a wheel, got {[path.name for path in found]}")
    for path, faults in found.items():
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {', '.join(sorted(faults)) or 'no fault'}")
    if any(found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
