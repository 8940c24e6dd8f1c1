"""Counts what the cost model needs to know of Triton's machine code: python bench/gpu_day.py --count.

Of each kernel on tiles, for sm_90: the instructions of its main loop for a logit of a tile, how many of its
blocks fit on a multiprocessor (by registers, shared memory and threads), and the tile. Needs triton, no card.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

NAMES = {
    "sampled_softmax forward_kernel": "sampled forward",
    "sampled_softmax query_kernel": "sampled d_query",
    "sampled_softmax item_kernel": "sampled d_item",
    "full_softmax forward_kernel": "full forward",
    "full_softmax query_kernel": "full d_query",
    "full_softmax item_kernel": "full d_item",
    "score_energy sums_kernel": "score sums",
    "top_items best_kernel": "top maxima",
    "target_ranks ranks_kernel": "ranks",
}
REGISTERS, SHARED, THREADS = 65_536, 227 * 1024, 2048  # of a multiprocessor of sm_90
TOOLS = Path("backends") / "nvidia" / "bin"


def main_loop(sass: str) -> list[str]:
    """The longest stretch that a branch leads back over and that holds matrix instructions."""
    code: list[str] = []
    labels: dict[str, int] = {}
    found: list[str] = []
    for line in sass.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif one := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            code.append(one[1])
            target = re.search(r"BRA.*`\((\.L_x_\d+)\)", one[1])
            if target and target[1] in labels:
                body = code[labels[target[1]] :]
                if any("GMMA" in word or "MMA." in word for word in body) and len(body) > len(found):
                    found = body
    return found


def counted(compiled: Any) -> dict[str, float]:
    """Of a compiled kernel on tiles."""
    import triton

    tools = Path(triton.__file__).parent / TOOLS
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        sass, usage = (
            subprocess.run([tools / tool, option, cubin], capture_output=True, text=True, check=True).stdout
            for tool, option in (("nvdisasm", "-c"), ("cuobjdump", "--dump-resource-usage"))
        )
    names = compiled.src.fn.arg_names
    constants = {names[at[0]]: value for at, value in compiled.src.constants.items()}
    threads = 32 * compiled.metadata.num_warps
    logits = constants["BLOCK_B"] * constants.get("BLOCK_K", constants.get("BLOCK_V"))
    registers = int(re.search(r"REG:(\d+)", usage)[1])  # type: ignore[index]
    blocks = min(
        REGISTERS // (-(-registers // 8) * 8 * threads),
        SHARED // (compiled.metadata.shared + 1024),
        THREADS // threads,
    )
    loop = main_loop(sass)
    return {
        "per_logit": round(len(loop) * threads / logits, 2),
        "blocks": blocks,
        "registers": registers,
        "shared": compiled.metadata.shared,
        "rows": constants["BLOCK_B"],
        "candidates": logits // constants["BLOCK_B"],
        "wgmma": any("GMMA" in word for word in loop),
    }


def count(small: bool = False) -> dict[str, Any]:
    """Of every kernel that the day times. small: of one, for a test."""
    import shapes
    import torch
    import triton

    from gpu import inputs, launches, pretend
    from gpu.progress import bar

    cases = launches.cases()
    kinds = ("sampled", "energy", "top", "ranks", "full", "step")
    names = [name for name in cases if name.split()[0] in kinds]
    if small:
        names = [f"energy {shapes.GPU_ENERGY[0]} {torch.bfloat16}"]
    else:
        wide = [shapes.Softmax(4096, 8192, dim, 100_000, "float32") for dim in (64, 128)]
        cases |= {
            f"sampled {shape}": (lambda shape=shape: inputs.Both(inputs.made(shape, "cpu"))())
            for shape in wide
        }
        names += [f"sampled {shape}" for shape in wide]
    found: dict[str, dict[str, float]] = {}
    with pretend.card() as launched:
        for name in bar(names, "kernels"):
            cases[name]()
    for kernel, compiled in launched:
        if kernel in NAMES:
            constants = {
                compiled.src.fn.arg_names[at[0]]: value for at, value in compiled.src.constants.items()
            }
            dtype = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}[str(constants["DOT"])]
            key = f"{NAMES[kernel]} {constants['BLOCK_D']} {dtype}"
            if key not in found:
                found[key] = counted(compiled)
    return {"triton": triton.__version__, "arch": 90, "kernels": dict(sorted(found.items()))}


def write(path: Path) -> None:
    path.write_text(json.dumps(count(), indent=1) + "\n")
