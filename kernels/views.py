"""Arrays as tensors that lie where they lay."""

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor


def view_of(value: np.ndarray) -> Tensor:
    """The array's memory as a tensor that nobody writes to: torch takes no read-only array in silence."""
    if value.flags.writeable or not value.flags.c_contiguous or value.size == 0:
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    raw: Any = (ctypes.c_char * value.nbytes).from_address(value.ctypes.data)
    raw.held = value  # as long as the tensor
    return torch.from_numpy(np.frombuffer(raw, value.dtype).reshape(value.shape))
