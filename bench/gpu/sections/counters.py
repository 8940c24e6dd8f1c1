"""Six kernels under ncu: which unit is busy, how many slots issue, what memory gives."""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from gpu.context import Context, Skip

SECTIONS = (
    "SpeedOfLight",
    "ComputeWorkloadAnalysis",
    "MemoryWorkloadAnalysis",
    "SchedulerStats",
    "WarpStateStats",
    "Occupancy",
    "InstructionStats",
    "LaunchStats",
)
# Of what ncu prints, by its own names; the rest is in gpu-profile-ncu.csv.
WANTED = {
    "Duration": "duration",
    "SM Frequency": "sm_frequency",
    "Compute (SM) Throughput": "compute_pct",
    "Memory Throughput": "memory",
    "DRAM Throughput": "dram_pct",
    "L2 Hit Rate": "l2_hit_pct",
    "Issue Slots Busy": "issue_pct",
    "No Eligible": "no_eligible_pct",
    "Executed Ipc Active": "ipc",
    "Achieved Occupancy": "occupancy_pct",
    "Registers Per Thread": "registers",
    "Block Limit Registers": "blocks_by_registers",
    "Block Limit Shared Mem": "blocks_by_shared",
    "Executed Instructions": "instructions",
    "Warp Cycles Per Issued Instruction": "cycles_an_issue",
}
PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute")


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    from gpu.profiled import KERNELS

    for name in KERNELS:
        yield name, partial(counted, context, name)


def find_ncu() -> str | None:
    found = shutil.which("ncu")
    if found:
        return found
    home = os.environ.get("CUDA_HOME")
    for place in ([f"{home}/bin"] if home else []) + list(PLACES):
        for program in sorted(Path(place).glob("**/ncu")):
            if program.is_file():
                return str(program)
    return None


def counted(context: Context, name: str) -> None:
    """--clock-control none: the card's clocks are left as they are."""
    from gpu.profiled import KERNELS

    program = find_ncu()
    script = [sys.executable, "-P", "-m", "gpu.profiled", name]
    if program is None or not context.cuda:
        done = subprocess.run(script, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-500:])
        raise Skip(
            "ncu is not installed; the kernel ran without it"
            if context.cuda
            else "no CUDA device; its call was run on the processor"
        )
    words = [
        program,
        "--clock-control",
        "none",
        "--profile-from-start",
        "off",
        "--csv",
        "--page",
        "details",
        "--kernel-name",
        f"regex:{KERNELS[name]}",
    ]
    for one in SECTIONS:
        words += ["--section", one]
    words += script
    done = subprocess.run(words, capture_output=True, text=True)
    with open(context.out / "gpu-profile-ncu.csv", "a") as out:
        out.write(f"# {name}\n{done.stdout}\n{done.stderr}\n")
    found = parsed(done.stdout)
    if not found:
        raise RuntimeError(f"ncu gave no counters: {(done.stdout + done.stderr).strip()[-400:]}")
    for kernel, values in found:
        context.add("fact", f"{name}: {kernel[:24]}", **values)


def parsed(text: str) -> list[tuple[str, dict[str, str]]]:
    """(kernel, its metrics under our names, with units) of ncu's CSV, a line a metric, which words of the
    program may precede."""
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        _, values = found.setdefault(row["ID"], (row["Kernel Name"], {}))
        name = WANTED.get(row["Metric Name"] or "")
        # Two sections have a metric of one name: the first is kept.
        if name and name not in values:
            values[name] = f"{row['Metric Value']} {row['Metric Unit']}".strip()
    return list(found.values())
