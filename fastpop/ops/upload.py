"""Arrays of the host on a device, which is not waited for."""

import numpy as np
import torch
from torch import Tensor


def uploaded(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device; on the CPU the same memory. A GPU copies from pinned memory, which torch keeps
    until it has."""
    here = torch.from_numpy(array)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
