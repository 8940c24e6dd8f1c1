"""The linear item tower: a product of matrices, and what gradient descent conserves of it."""

import itertools

import pytest
import torch

from fastpop.item_towers import Linear, LinearTower


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_gradient_descent_keeps_the_balance_of_neighbours(depth):
    """W_l' W_l - W_(l+1) W_(l+1)' of item @ W_1 @ ... @ W_depth (Arora et al. 2018), item among them."""
    torch.manual_seed(0)
    dim, items, lr, steps = 4, 9, 1e-6, 1000
    tower = LinearTower(dim, depth).double()
    with torch.no_grad():
        for weight_DD in tower.weights:
            weight_DD.add_(0.1 * torch.randn(dim, dim, dtype=torch.float64))
    table_VD = torch.randn(items, dim, dtype=torch.float64, requires_grad=True)
    wanted_VD = torch.randn(items, dim, dtype=torch.float64)
    params = [table_VD, *tower.weights]

    def balance():
        still = [param.detach() for param in params]
        return [one.T @ one - two @ two.T for one, two in itertools.pairwise(still)]

    before, start = balance(), [param.detach().clone() for param in params]
    optimizer = torch.optim.SGD(params, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (tower(table_VD) - wanted_VD).square().sum().mul(0.5).backward()
        optimizer.step()
    for param, old in zip(params, start):
        assert (param.detach() - old).norm() / old.norm() > 0.0005
    for now, then, param in zip(balance(), before, params[1:]):
        assert (now - then).norm() / param.detach().square().sum() <= 1e-6


def test_a_fresh_tower_is_the_table_whatever_its_depth():
    table_VD = torch.randn(7, 5)
    for depth in (1, 4, 16):
        assert torch.equal(LinearTower(5, depth)(table_VD), table_VD)
    with pytest.raises(ValueError, match=r"item_tower\.depth: expected an integer >= 1 <= 16; got 17"):
        Linear(depth=17)
