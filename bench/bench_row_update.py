"""One optimiser step on the touched rows of a large table."""

import pytest
import torch
from shapes import ROW_UPDATE

from fastpop import optim

CONTENDERS = {
    "fastpop RowAdagrad": lambda table: optim.RowAdagrad([table], lr=0.1),
    "fastpop RowAdam": lambda table: optim.RowAdam([table], lr=0.1),
    "torch sparse Adagrad": lambda table: torch.optim.Adagrad([table], lr=0.1),
    "torch SparseAdam": lambda table: torch.optim.SparseAdam([table], lr=0.1),
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", ROW_UPDATE, ids=str)
def test_row_update(shape, contender, generator, measure):
    touched, rows, dim = shape
    table = torch.nn.Parameter(torch.zeros(rows, dim))
    ids = torch.randperm(rows, generator=generator)[:touched].sort().values
    grad = torch.sparse_coo_tensor(ids[None], torch.randn(touched, dim, generator=generator),
                                   (rows, dim), is_coalesced=True)
    optimizer = CONTENDERS[contender](table)

    def step():
        table.grad = grad
        optimizer.step()

    measure(contender, shape, step)
    assert torch.count_nonzero(table.detach().abs().sum(1)) == touched
