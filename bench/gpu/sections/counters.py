"""Six kernels under ncu: which unit is busy, how many slots issue, what memory gives."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from gpu.context import Context, Skip

METRICS = {
    "gpu__time_duration.sum": "ns",
    "sm__inst_issued.avg.pct_of_peak_sustained_active": "issue_pct",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active": "tensor_pct",
    "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": "exp_pct",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_pct",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "dram_pct",
    "lts__t_sector_hit_rate.pct": "l2_hit_pct",
    "sm__cycles_elapsed.avg.per_second": "hertz",
    "smsp__inst_executed.sum": "instructions",
    "l1tex__data_bank_conflicts_pipe_lsu.sum": "bank_conflicts",
}
PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute")


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    from gpu.profiled import KERNELS

    for name in KERNELS:
        yield name, lambda name=name: counted(context, name)


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
        raise Skip("ncu is not installed; the kernel ran without it" if context.cuda
                   else "no CUDA device; its call was run on the processor")
    words = [program, "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw",
             "--print-units", "base", "--kernel-name", f"regex:{KERNELS[name]}", "--metrics",
             ",".join(METRICS), *script]
    done = subprocess.run(words, capture_output=True, text=True)
    with open(context.out / "gpu-profile-ncu.csv", "a") as out:
        out.write(f"# {name}\n{done.stdout}\n{done.stderr}\n")
    found = parsed(done.stdout)
    if not found:
        raise RuntimeError(f"ncu gave no counters: {(done.stdout + done.stderr).strip()[-400:]}")
    for kernel, values in found:
        context.add("fact", f"{name}: {kernel[:24]}", **values)


def parsed(text: str) -> list[tuple[str, dict[str, float]]]:
    """(kernel, our name of each metric: its value) of ncu's CSV, which words of the program may precede."""
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[start:]))))
    found = []
    for row in rows:
        if not row.get("ID"):  # the line of units
            continue
        values = {}
        for metric, name in METRICS.items():
            number = re.sub(r"[^\d.eE+-]", "", row.get(metric) or "")
            if number:
                values[name] = round(float(number), 2)
        found.append((row["Kernel Name"], values))
    return found
