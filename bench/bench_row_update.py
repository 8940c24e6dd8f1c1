"""One optimiser step on the touched rows of a large table, from a sparse gradient with duplicates or not.

Ours keep one adaptive number a row, torch's one an element: each is checked against its own formula.
"""

from functools import lru_cache, partial

import pytest
import torch
from measuring import DEVICE, judged
from shapes import ROW_UPDATE, RowUpdate

from fastpop import ops
from fastpop.ops._dispatch import IMPLEMENTATIONS

LR = 0.1


@lru_cache(maxsize=1)
def gradient_of(shape: RowUpdate):
    """(ids [n], rows [n, D], touched ids [t], their summed rows [t, D] float64)."""
    generator = torch.Generator().manual_seed(0)
    touched = torch.randperm(shape.items, generator=generator)[: shape.touched].sort().values
    extra = torch.randint(shape.touched, (shape.draws - shape.touched,), generator=generator)
    ids = torch.cat([touched, touched[extra]])
    if len(extra):
        ids = ids[torch.randperm(len(ids), generator=generator)]
    # An element has one sign in all its gradients: a sum near zero would have no accurate direction.
    sign = torch.randint(2, (shape.touched, shape.dim), generator=generator) * 2.0 - 1
    place = torch.searchsorted(touched, ids)
    rows = sign[place] * (0.1 + torch.rand(len(ids), shape.dim, generator=generator))
    summed = torch.zeros(shape.touched, shape.dim, dtype=torch.float64)
    summed.index_add_(0, place, rows.double())
    return ids.to(DEVICE), rows.to(DEVICE), touched.to(DEVICE), summed.to(DEVICE)


def our_adagrad(table, ids, rows, *, impl):
    square = torch.zeros(len(table), device=DEVICE)
    return lambda: ops.row_adagrad_(table, ids, rows, square, lr=LR, impl=impl)


def our_adam(table, ids, rows, *, impl):
    mean, square = torch.zeros_like(table), torch.zeros(len(table), device=DEVICE)
    step = torch.zeros(len(table), dtype=torch.int64, device=DEVICE)
    return lambda: ops.row_adam_(table, ids, rows, mean, square, step, lr=LR, impl=impl)


def theirs(table, ids, rows, *, optimizer, dense=False):
    param = torch.nn.Parameter(table)
    distinct = bool((ids[1:] > ids[:-1]).all())
    param.grad = torch.sparse_coo_tensor(
        ids[None], rows, table.shape, is_coalesced=distinct, check_invariants=False
    )
    if dense:
        param.grad = param.grad.to_dense()
    return optimizer([param], lr=LR).step


# The first step from zero states, of Adagrad and Adam alike, moves a row by -lr times these.
def by_element(grad, eps):
    return grad / (grad.abs() + eps)


def by_row(grad, eps):
    return grad / (grad.square().mean(1, keepdim=True).sqrt() + eps)


CONTENDERS = {
    "adagrad": {
        **{
            f"fastpop {impl}": (partial(our_adagrad, impl=impl), partial(by_row, eps=1e-10))
            for impl in IMPLEMENTATIONS["row_update"]
        },
        "torch Adagrad, sparse": (
            partial(theirs, optimizer=torch.optim.Adagrad),
            partial(by_element, eps=1e-10),
        ),
    },
    "adam": {
        **{
            f"fastpop {impl}": (partial(our_adam, impl=impl), partial(by_row, eps=1e-8))
            for impl in IMPLEMENTATIONS["row_update"]
        },
        # It adds eps before the second moment is corrected.
        "torch SparseAdam": (
            partial(theirs, optimizer=torch.optim.SparseAdam),
            partial(by_element, eps=1e-8 / 0.001**0.5),
        ),
        "torch Adam, dense": (
            partial(theirs, optimizer=torch.optim.Adam, dense=True),
            partial(by_element, eps=1e-8),
        ),
    },
}


@pytest.mark.parametrize(
    ("rule", "contender"),
    [(rule, contender) for rule, contenders in CONTENDERS.items() for contender in contenders],
)
@pytest.mark.parametrize("shape", ROW_UPDATE, ids=str)
def test_row_update(shape, rule, contender, measure):
    make, first_step = CONTENDERS[rule][contender]
    ids, rows, touched, summed = gradient_of(shape)
    table = torch.ones(shape.items, shape.dim, device=DEVICE)
    step = make(table, ids, rows)
    with judged(contender):
        step()
        error = (table[touched].double() - (1 - LR * first_step(summed))).abs().max().item()
        assert error < 1e-5, error
        assert (table != 1).any(1).sum() <= shape.touched
    # Least traffic: a gradient row read, a table row and its state read and written.
    state = {"adagrad": 4, "adam": 4 * shape.dim + 12}[rule]
    moved = 4 * shape.dim * shape.draws + 2 * shape.touched * (4 * shape.dim + state)
    measure(contender, f"{rule}, {shape}", step, error=error, work=moved, ceiling="copy")
