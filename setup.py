"""Builds fastpop._C (C++ always, CUDA where nvcc is) and maps kernels/ to fastpop.kernels.

FASTPOP_CUDA=auto (default) builds the CUDA part when nvcc is on PATH or under CUDA_HOME; a
failure there prints one line and the CPU build goes on. FASTPOP_CUDA=1 makes such a failure an
error, FASTPOP_CUDA=0 skips the part. FASTPOP_CUDA_ARCHES=90 builds machine code for sm_90 alone, where
the card is known; the default is 80,90,100+PTX: three architectures, and for later ones the PTX of the
last, which their driver compiles. The extension neither includes nor links torch.

Where the compiler has no OpenMP, kernels run on the system's threads, with the same bits, and a team is made
for each call; `fastpop doctor` says whose they are. FASTPOP_OPENMP=0 builds so anywhere.

FASTPOP_MUTANT=n builds with one line wrong, MUTANT(n, ...) in csrc/, for tests/mutants.py: only what holds
it is compiled, beside the objects that the last ordinary build left in build/objects. 0: nothing is wrong.

FASTPOP_SANITIZE=address (with undefined behaviour) or thread builds for tests/sanitize.py, with objects of
its own in build/sanitize-address or build/sanitize-thread: kernels' scratch memory then starts as NaN.
FASTPOP_HOME=https://... is where the repository lies: what a package index shows of README then has its
pictures and links. Without it pictures are left out there, and links are their words.
FASTPOP_COVERAGE=1 counts lines for tests/coverage_page.py, beside the objects in build/coverage.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.errors import CompileError

try:
    from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
except ImportError:
    sys.exit("fastpop needs pybind11 at build time: pip install pybind11, then build again")

ROOT = Path(__file__).parent
CUDA_ARCHES = "80,90,100+PTX"
SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread", "-DFASTPOP_PLAIN_THREADS"],
}


# torch's libgomp, which is loaded once whoever asks for it first; a system need not have one of its own.
BESIDE_TORCH = ["-Wl,-rpath,$ORIGIN/../torch/lib"] if sys.platform == "linux" else []


def described(page: str, home: str | None, version: str) -> str:
    """README as a package index may show it, which knows no files beside it."""

    def picture(found: re.Match) -> str:
        return f"![{found[1]}]({home}/raw/v{version}/{found[2]})" if home else ""

    def link(found: re.Match) -> str:
        return f"[{found[1]}]({home}/blob/v{version}/{found[2]})" if home else found[1]

    page = re.sub(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)", picture, page)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)", link, page)


def version() -> str:
    (found,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "fastpop" / "__init__.py").read_text(), re.M)
    return found


def code_flags(arches: str) -> list[str]:
    """nvcc's flags for a list such as 80,90,100+PTX: machine code for each, PTX where it says so."""
    flags = []
    for arch in arches.split(","):
        named = re.fullmatch(r"\s*(\d{2,3}[af]?)(\+PTX)?\s*", arch)
        if named is None:
            sys.exit(f"FASTPOP_CUDA_ARCHES: expected a list such as 90 or {CUDA_ARCHES}; got {arches!r}")
        number, ptx = named.groups()
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if ptx:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    if home and (Path(home) / "bin" / "nvcc").exists():
        return str(Path(home) / "bin" / "nvcc")
    return shutil.which("nvcc")


def toolkit_of(nvcc: str) -> Path:
    """The toolkit's root as nvcc itself reports it: nvcc on PATH may be a wrapper script."""
    dry_run = subprocess.run(
        [nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in (dry_run.stdout + dry_run.stderr).splitlines():
        if "TOP=" in line:
            return Path(line.split("TOP=", 1)[1].strip()).resolve()
    raise RuntimeError(f"{nvcc} does not say where its toolkit is")


def made_from(target: Path) -> list[Path]:
    """The files of csrc/ that an object was compiled from, as the compiler noted beside it."""
    words = target.with_suffix(".d").read_text().replace("\\\n", " ").split()
    return [ROOT / word for word in words if word.startswith("csrc/")]


def is_current(target: Path) -> bool:
    if not target.exists() or not target.with_suffix(".d").exists():
        return False
    made = target.stat().st_mtime
    return all(part.exists() and part.stat().st_mtime < made for part in made_from(target))


def mentions(target: Path, text: str) -> bool:
    return any(text in part.read_text() for part in made_from(target))


def reusable(kept: Path, target: Path, mutant: str) -> Path | None:
    """The object that a mutant has in common with the last build, of one with CUDA too where its source
    asks nothing of that."""
    for folder in (kept, kept.with_name(f"{kept.name}-cuda")):
        there = folder / target
        if not is_current(there) or mentions(there, f"MUTANT({mutant},"):
            continue
        if folder == kept or not mentions(there, "FASTPOP_WITH_CUDA"):
            return there
    return None


def copy_object(target: Path, to: Path) -> None:
    """Whole or not at all, since tests build side by side; the object last: it says that both are there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".d", ".o"):
        own = to.with_suffix(f"{suffix}.{os.getpid()}")
        shutil.copy2(target.with_suffix(suffix), own)
        own.replace(to.with_suffix(suffix))


class BuildExt(build_ext):
    def has_openmp(self) -> bool:
        """Whether the compiler has it: Apple's clang, as it comes, has not."""
        if os.environ.get("FASTPOP_OPENMP") == "0":
            return False
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "asks.cpp"
            source.write_text("#include <omp.h>\nint most() { return omp_get_max_threads(); }\n")
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=["-fopenmp"])
            except CompileError:
                return False
        return True

    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            sys.exit(
                "fastpop: expected GCC or clang, which csrc/ is written for; got Microsoft's compiler. "
                "On Windows build and run it under WSL"
            )
        if not self.has_openmp():
            print("fastpop: no OpenMP here: kernels run on the system's threads", file=sys.stderr)
            ext.define_macros.append(("FASTPOP_PLAIN_THREADS", "1"))
            for flags in (ext.extra_compile_args, ext.extra_link_args):
                flags.remove("-fopenmp")
            if sys.platform == "linux":
                ext.extra_link_args.append("-pthread")
        mode = os.environ.get("FASTPOP_CUDA", "auto")
        if mode not in ("auto", "0", "1"):
            sys.exit(f"FASTPOP_CUDA: expected auto, 0 or 1; got {mode!r}")
        if mode != "0":
            try:
                self.add_cuda(ext)
            except Exception as error:
                if mode == "1":
                    raise
                print(f"fastpop: building without CUDA ({error})", file=sys.stderr)
        if self.compiler.compiler_type == "unix":
            ext.extra_compile_args = [*ext.extra_compile_args, "-MMD"]
            cuda = "-cuda" if ("FASTPOP_WITH_CUDA", "1") in ext.define_macros else ""
            threads = "" if "-fopenmp" in ext.extra_compile_args else "-threads"
            kept = ROOT / "build" / "objects" / f"{sys.implementation.cache_tag}{cuda}{threads}"
            if "FASTPOP_SANITIZE" in os.environ:
                kept = self.add_sanitizer(ext, os.environ["FASTPOP_SANITIZE"]) / kept.name
            if os.environ.get("FASTPOP_COVERAGE") == "1":
                ext.extra_compile_args = [*ext.extra_compile_args, "--coverage", "-O1"]
                ext.extra_link_args = [*ext.extra_link_args, "--coverage"]
                kept = ROOT / "build" / "coverage" / kept.name
            if "FASTPOP_MUTANT" in os.environ:
                return self.build_mutant(ext, os.environ["FASTPOP_MUTANT"], kept)
            self.build_temp = str(kept)
        super().build_extension(ext)

    def add_sanitizer(self, ext, name) -> Path:
        """Where its objects are kept."""
        if name not in SANITIZERS:
            sys.exit(f"FASTPOP_SANITIZE: expected one of {sorted(SANITIZERS)}; got {name!r}")
        flags = [*SANITIZERS[name], "-O1", "-g1", "-fno-omit-frame-pointer", "-DFASTPOP_SANITIZE"]
        ext.extra_compile_args = [*ext.extra_compile_args, *flags]
        ext.extra_link_args = [*ext.extra_link_args, *SANITIZERS[name][:1]]
        return ROOT / "build" / f"sanitize-{name}"

    def build_mutant(self, ext, mutant, kept):
        sources = "".join(path.read_text() for path in sorted(ROOT.glob("csrc/**/*.*")))
        marks = re.findall(r"\bMUTANT\((\d+),", sources)
        if mutant not in ("0", *marks):
            sys.exit(f"FASTPOP_MUTANT: expected 0 or one of {sorted(marks, key=int)}; got {mutant!r}")
        ext.define_macros = [*ext.define_macros, ("FASTPOP_MUTANT", mutant)]
        own = Path(self.build_temp)
        targets = [Path(source).with_suffix(".o") for source in ext.sources]
        for target in targets:
            there = reusable(kept, target, mutant)
            if there is not None:
                copy_object(there, own / target)
        super().build_extension(ext)
        for target in targets:  # what was not there, for the next
            if reusable(kept, target, mutant) is None and not mentions(own / target, f"MUTANT({mutant},"):
                copy_object(own / target, kept / target)

    def add_cuda(self, ext):
        nvcc = find_nvcc()
        if nvcc is None:
            raise RuntimeError("nvcc is neither on PATH nor under CUDA_HOME")
        toolkit = toolkit_of(nvcc)
        arches = os.environ.get("FASTPOP_CUDA_ARCHES") or CUDA_ARCHES
        flags = code_flags(arches)
        folder = Path(self.build_temp).absolute()
        folder.mkdir(parents=True, exist_ok=True)

        def compiled(source: Path) -> str:
            print(
                f"fastpop: nvcc compiles {source.relative_to(ROOT)} (FASTPOP_CUDA=0 leaves CUDA out)",
                file=sys.stderr,
                flush=True,
            )
            target = folder / f"{source.parent.name}_cuda.o"
            command = [nvcc, "-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", *flags]
            command += ["--threads=0", f"-I{ROOT / 'csrc'}", "-c", str(source), "-o", str(target)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"nvcc failed on {source.name}: {done.stderr.strip()[-400:]}")
            return str(target)

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compiled, sorted(ROOT.glob("csrc/*/cuda.cu"))))
        library = next(
            (
                p
                for p in (toolkit / "lib64", *toolkit.glob("targets/*/lib"), toolkit / "lib")
                if (p / "libcudart_static.a").exists()
            ),
            None,
        )
        if library is None:
            raise RuntimeError(f"libcudart_static.a is not under {toolkit}")
        ext.extra_objects = [*ext.extra_objects, *objects]
        ext.define_macros = [
            *ext.define_macros,
            ("FASTPOP_WITH_CUDA", "1"),
            ("FASTPOP_CUDA_ARCHES", f'"{arches}"'),
        ]
        cudart = str(library / "libcudart_static.a")
        ext.extra_link_args = [*ext.extra_link_args, cudart, "-ldl", "-lrt", "-lpthread"]


def packages() -> list[str]:
    ours = find_packages(include=["fastpop", "fastpop.*"])
    below = [f"fastpop.kernels.{name}" for name in find_packages("kernels")]
    return [*ours, "fastpop.data.bundled", "fastpop.kernels", *below]


# As many compilers as there are cores. Objects that are there before a mutant is built are right.
ParallelCompile(default=0, needs_recompile=lambda *_: "FASTPOP_MUTANT" not in os.environ).install()
setup(
    long_description=described((ROOT / "README.md").read_text(), os.environ.get("FASTPOP_HOME"), version()),
    long_description_content_type="text/markdown",
    packages=packages(),
    package_dir={"fastpop": "fastpop", "fastpop.kernels": "kernels"},
    package_data={"fastpop": ["py.typed"], "fastpop.data.bundled": ["*"]},
    ext_modules=[
        Pybind11Extension(
            "fastpop._C",
            sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.cpp")),
            include_dirs=["csrc"],
            depends=[
                str(p.relative_to(ROOT))
                for kind in ("h", "inc", "cu")
                for p in sorted(ROOT.glob(f"csrc/**/*.{kind}"))
            ],
            cxx_std=17,
            extra_compile_args=["-O3", "-fopenmp", "-fvisibility=hidden"],
            extra_link_args=["-fopenmp", *BESIDE_TORCH],
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
