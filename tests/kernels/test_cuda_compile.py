"""What the compiler says of each cuda.cu, for every architecture that is built: no spills, registers
within the planned occupancy, 16-byte loads in flight together, no float atomics."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARCHES = ("80", "90", "100")
# Kernel -> (warps a multiprocessor that its launch plans for, 16-byte loads that it starts together).
PLANNED = {
    "sampled_rows_forward_kernel": (16, 8),
    "sampled_rows_backward_kernel": (12, 8),
    "row_sum_chunks_kernel": (16, 8),
    "row_sum_finish_kernel": (16, 0),
    "row_update_kernel": (12, 2),
}
SOURCES = {"sampled_softmax": 2, "row_sum": 2, "row_update": 1}  # folder -> kernels
LAYOUTS = 4  # of rows: three numbers of lanes and numbers a lane at 8 lanes, one at 32
DTYPES = ("F32", "Bf16Bits", "F16Bits", "Strided")
REGISTERS = 65_536  # of a multiprocessor, on all three architectures


class Kernel(NamedTuple):
    name: str
    stack: int
    spilled: int
    registers: int
    shared: int


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "")
    beside = Path(home) / "bin" / "nvcc"
    return str(beside) if home and beside.exists() else shutil.which("nvcc")


def compile_one(source: str, arch: str, folder: Path) -> tuple[list[Kernel], str]:
    """(kernels as ptxas saw them, their PTX)."""
    kept = folder / f"{source}_{arch}"
    kept.mkdir()
    done = subprocess.run(
        [
            nvcc(),
            "-O3",
            "-std=c++17",
            f"-gencode=arch=compute_{arch},code=sm_{arch}",
            "-Xptxas",
            "-v",
            "-cubin",
            "--keep",
            "--keep-dir",
            str(kept),
            f"-I{ROOT / 'csrc'}",
            str(ROOT / f"csrc/{source}/cuda.cu"),
            "-o",
            str(kept / "cuda.cubin"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    kernels = []
    for part in (done.stdout + done.stderr).split("Compiling entry function '")[1:]:
        number = {
            what: int((re.search(rf"(\d+) {what}", part) or [0, 0])[1])
            for what in ("bytes stack frame", "bytes spill stores", "bytes spill loads", "bytes smem")
        }
        kernels.append(
            Kernel(
                part.split("'")[0],
                number["bytes stack frame"],
                number["bytes spill stores"] + number["bytes spill loads"],
                int(re.search(r"Used (\d+) registers", part)[1]),
                number["bytes smem"],
            )
        )
    (ptx,) = kept.glob("*.ptx")
    return kernels, ptx.read_text()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[tuple[str, str], tuple[list[Kernel], str]]:
    if nvcc() is None:
        pytest.skip("nvcc is neither on PATH nor under CUDA_HOME")
    folder = tmp_path_factory.mktemp("cuda")
    pairs = [(source, arch) for source in SOURCES for arch in ARCHES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(pairs, pool.map(lambda pair: compile_one(*pair, folder), pairs)))


def planned(kernel: Kernel) -> tuple[int, int]:
    (name,) = (name for name in PLANNED if name in kernel.name)
    return PLANNED[name]


def body(ptx: str, kernel: Kernel) -> str:
    return ptx.split(f".entry {kernel.name}(", 1)[1].split(".entry ", 1)[0]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("source", SOURCES)
def test_no_spills_and_the_planned_occupancy(compiled, source, arch):
    kernels, _ = compiled[source, arch]
    assert len(kernels) == SOURCES[source] * LAYOUTS * len(DTYPES)
    for kernel in kernels:
        assert kernel.spilled == 0, kernel
        assert kernel.stack == 0, kernel
        assert kernel.shared == 0, kernel
        warps, _ = planned(kernel)
        # Registers are given out by eight a thread.
        assert warps * 32 * (-(-kernel.registers // 8) * 8) <= REGISTERS, kernel


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("source", SOURCES)
def test_rows_are_read_16_bytes_at_a_time_and_several_at_once(compiled, source, arch):
    kernels, ptx = compiled[source, arch]
    for kernel in kernels:
        code = body(ptx, kernel)
        if "Strided" in kernel.name:
            assert ".v4" not in code
            continue
        # What stands between two loads that leave together: nothing that waits, joins or branches.
        steps = re.findall(r"ld\.global(?:\.nc)?\.v4|ld\.global|st\.|fma\.|shfl\.|bra|^\$L", code, re.M)
        together = longest = 0
        for step in steps:
            together = together + 1 if step.endswith(".v4") else 0
            longest = max(longest, together)
        assert longest >= planned(kernel)[1], (kernel.name, longest)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("source", SOURCES)
def test_no_atomics(compiled, source, arch):
    _, ptx = compiled[source, arch]
    assert ".entry" in ptx
    assert re.findall(r"\b(?:atom|red)\.[\w.]+", ptx) == []
