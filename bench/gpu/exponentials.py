"""A kernel of exponentials alone: what the special-function units of a card give."""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

PROGRAMS, BLOCK, TIMES = 132 * 16, 1024, 2048


@triton.jit
def exponentials_kernel(x_ptr, y_ptr, TIMES: tl.constexpr, BLOCK: tl.constexpr):
    """Program owns BLOCK numbers: x = exp2(-x), TIMES times. In registers throughout."""
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    for _ in range(TIMES):
        x = tl.exp2(-x)
    tl.store(y_ptr + offs, x)


def launches_on(device: Any) -> tuple[Callable[[], object], float]:
    """(what launches it, the number of exponentials)."""
    x = torch.full((PROGRAMS * BLOCK,), 0.5, device=device)
    y = torch.empty_like(x)

    def launch() -> None:
        exponentials_kernel[(PROGRAMS,)](x, y, TIMES=TIMES, BLOCK=BLOCK, num_warps=4)

    return launch, float(PROGRAMS) * BLOCK * TIMES
