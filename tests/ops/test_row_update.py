"""Row-wise optimiser steps: the touched rows move as they should, no other row at all."""

import pytest
import torch

from fastpop import ops, optim


def table_and_rows(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(20, 6, generator=generator, dtype=dtype)
    ids = torch.tensor([4, 9, 4, 0, 9, 9])
    rows = torch.randn(6, 6, generator=generator, dtype=dtype)
    return table, ids, rows


def summed(ids, rows):
    dense = torch.zeros(20, rows.shape[1], dtype=rows.dtype).index_add(0, ids, rows)
    return dense, torch.tensor([0, 4, 9])


def test_sgd_is_index_add():
    table, ids, rows = table_and_rows()
    expected = table.index_add(0, ids, rows, alpha=-0.3)
    ops.row_sgd_(table, ids, rows, lr=0.3)
    torch.testing.assert_close(table, expected)


def test_adagrad_squares_the_sum_of_duplicates():
    table, ids, rows = table_and_rows()
    before, square = table.clone(), torch.zeros(20)
    dense, touched = summed(ids, rows)
    for _ in range(3):
        ops.row_adagrad_(table, ids, rows, square, lr=0.1)
    expected_square = 3 * dense.square().mean(1)
    torch.testing.assert_close(square, expected_square)
    steps = sum((k * dense.square().mean(1)).rsqrt() for k in (1, 2, 3))
    expected = before[touched] - 0.1 * steps[touched, None] * dense[touched]
    torch.testing.assert_close(table[touched], expected)
    rest = [i for i in range(20) if i not in touched.tolist()]
    assert torch.equal(table[rest], before[rest])


def test_adam_with_equal_columns_is_adam():
    """Where all columns of a row have the same gradient, one second moment a row is Adam's."""
    table, ids, _ = table_and_rows(dtype=torch.float64)
    rows = torch.randn(6, 1, dtype=torch.float64).expand(6, 6).contiguous()
    dense, touched = summed(ids, rows)
    twin = table.clone().requires_grad_()
    adam = torch.optim.Adam([twin], lr=0.01)
    mean, square = torch.zeros(20, 6, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
    step = torch.zeros(20, dtype=torch.int64)
    for _ in range(5):
        ops.row_adam_(table, ids, rows, mean, square, step, lr=0.01)
        twin.grad = dense.clone()
        adam.step()
    torch.testing.assert_close(table[touched], twin.detach()[touched])
    assert step[touched].tolist() == [5, 5, 5]
    assert step.sum() == 15


@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
@pytest.mark.parametrize("shape", [(20, 6), (20,)])
def test_sparse_and_dense_gradients_agree_where_they_touch(kind, shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    sparse, dense = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [kind([sparse], lr=0.1), kind([dense], lr=0.1)]
    for _ in range(3):
        ids = torch.tensor([3, 7, 3])
        rows = torch.randn((3, *shape[1:]), generator=generator)
        sparse.grad = torch.sparse_coo_tensor(ids[None], rows, shape)
        dense.grad = torch.zeros(shape).index_add(0, ids, rows)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(sparse[[3, 7]], dense[[3, 7]])
    rest = [i for i in range(20) if i not in (3, 7)]
    assert torch.equal(sparse[rest].detach(), start[rest])


@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
def test_optimizers_learn(kind):
    target = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    table = torch.nn.Parameter(torch.zeros(20, 6))
    optimizer = kind([table], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (table - target).square().sum().backward()
        optimizer.step()
    assert (table - target).square().mean() < 1e-2


def test_state_survives_a_state_dict():
    start = torch.randn(20, 6)
    one, two = (torch.nn.Parameter(start.clone()) for _ in range(2))
    first, second = optim.RowAdam([one], lr=0.1), optim.RowAdam([two], lr=0.1)
    one.grad = torch.randn(20, 6)
    two.grad = one.grad.clone()
    first.step()
    second.step()
    third = optim.RowAdam([two], lr=0.1)
    third.load_state_dict(second.state_dict())
    first.step()
    third.step()
    assert torch.equal(one, two)


@pytest.mark.parametrize(("change", "kind", "message"), [
    ({"ids": torch.tensor([20])}, ValueError, "ids: expected ids in [0, 20); got 20"),
    ({"ids": torch.tensor([1.0])}, TypeError, "ids: expected an int64 tensor"),
    ({"rows": torch.zeros(1, 5)}, ValueError, "rows: expected shape [1, 6]"),
    ({"lr": -1.0}, ValueError, "lr: expected a finite number >= 0; got -1.0"),
    ({"table": torch.zeros(3)}, ValueError, "table: expected shape [V, D]"),
])
def test_bad_input_gets_one_clear_error(change, kind, message):
    given = {"table": torch.zeros(20, 6), "ids": torch.tensor([1]), "rows": torch.zeros(1, 6),
             "lr": 0.1} | change
    with pytest.raises(kind) as caught:
        ops.row_sgd_(**given)
    assert message in str(caught.value)
