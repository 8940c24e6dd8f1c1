"""Embedding tables, and what optimisers keep beside them: where their memory lies."""

import torch
from torch import Tensor, nn

from fastpop.pages import on_huge_pages


def normal_table(num_rows: int, dim: int, std: float = 0.02) -> nn.Parameter:
    """[num_rows, dim] float32 normal numbers of torch's generator, on huge pages where it is large."""
    return nn.Parameter(on_huge_pages(torch.empty(num_rows, dim)).normal_(std=std))


def zeros_beside(table: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros on the table's device, on huge pages where they are many."""
    return on_huge_pages(torch.empty(shape, dtype=dtype, device=table.device)).zero_()
