"""A kernel of exponentials alone: what the special-function units of a card give."""

from typing import Any

import torch
import triton
import triton.language as tl

PROGRAMS, BLOCK, TIMES = 132 * 16, 1024, 256


@triton.jit
def exponentials_kernel(x_ptr, y_ptr, TIMES: tl.constexpr, BLOCK: tl.constexpr):
    """Program owns BLOCK numbers: x = exp2(-x), TIMES times. In registers throughout."""
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    for _ in range(TIMES):
        x = tl.exp2(-x)
    tl.store(y_ptr + offs, x)


def launch(device: Any) -> float:
    """Runs it once; gives the number of exponentials."""
    x = torch.full((PROGRAMS * BLOCK,), 0.5, device=device)
    exponentials_kernel[(PROGRAMS,)](x, torch.empty_like(x), TIMES=TIMES, BLOCK=BLOCK, num_warps=4)
    return float(PROGRAMS) * BLOCK * TIMES
