"""What a process of test_sharded.py does: python helpers_sharded.py RANK WORLD STORE. Ends with "fine"."""

import copy
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from fastpop import ops, optim

KINDS = {"sgd": optim.RowSGD, "adagrad": optim.RowAdagrad, "adam": optim.RowAdam}


class Scorer(torch.nn.Module):
    """Queries and items in one module, so that FSDP2 hands forward whole tables."""

    def __init__(self, num_items: int, dim: int = 4):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.users = torch.nn.Parameter(torch.randn(6, dim, generator=generator))
        self.items = torch.nn.Parameter(torch.randn(num_items, dim, generator=generator))
        self.item_bias = torch.nn.Parameter(torch.randn(num_items, generator=generator))

    def forward(self, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(step)
        pos_id = torch.randint(len(self.items), (6,), generator=generator)
        return ops.full_softmax(self.users, self.items, pos_id, log_prior=self.item_bias, reduction="mean")


def steps(model, optimizer, which) -> None:
    for step in which:
        optimizer.zero_grad()
        model(step).backward()
        optimizer.step()


def assert_equal(model: Scorer, plain: Scorer) -> None:
    for one, other in zip(model.parameters(), plain.parameters()):
        assert torch.equal(one.full_tensor(), other), (one.full_tensor(), other)


def check_steps(world: int, kind: str, num_items: int, mesh, placements: tuple) -> None:
    """The same steps on parts as on whole tables, bit for bit, through a state dict in the middle."""
    model, plain = Scorer(num_items), Scorer(num_items)
    fully_shard(model, mesh=mesh)
    assert model.items.placements == placements
    optimizer, whole = KINDS[kind](model.parameters(), lr=0.1), KINDS[kind](plain.parameters(), lr=0.1)
    for one in (model, plain):
        steps(one, optimizer if one is model else whole, range(2))
    assert_equal(model, plain)
    for value in optimizer.state.get(model.items, {}).values():
        assert value.placements == placements
        assert value.shape[0] == num_items

    options = StateDictOptions(full_state_dict=True)
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    expected = whole.state.get(plain.items, {})
    for name, value in saved["state"].get("items", {}).items():
        assert torch.equal(value, expected[name])
    assert bool(optimizer.state) == (kind != "sgd")
    resumed = KINDS[kind](model.parameters(), lr=9.0 if optimizer.state else 0.1)
    model.zero_grad()  # torch's function makes a state to load into, unless there are gradients
    if optimizer.state:
        set_optimizer_state_dict(model, resumed, saved, options=options)
    steps(model, resumed, range(2, 4))
    steps(plain, whole, range(2, 4))
    assert_equal(model, plain)


def check_clipping(world: int, mesh) -> None:
    for norm_type in (2.0, 1.0, float("inf")):
        model, plain = Scorer(7), Scorer(7)
        fully_shard(model, mesh=mesh)
        for one in (model, plain):
            one(0).backward()
        norm = optim.clip_grad_norm_(model.parameters(), 0.1, norm_type)
        expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1, norm_type)
        torch.testing.assert_close(norm, expected)
        for one, other in zip(model.parameters(), plain.parameters()):
            torch.testing.assert_close(one.grad.full_tensor(), other.grad)


def check_other_layouts(mesh) -> None:
    """A gradient that came in another layout than its table is laid out anew; columns are refused."""
    whole = torch.arange(20.0).view(5, 4)
    for layout in (Replicate(), Shard(0)):
        table = torch.nn.Parameter(distribute_tensor(whole.clone(), mesh, [layout]))
        for grad_layout in (Replicate(), Shard(0), Shard(1)):
            before = table.full_tensor().detach().clone()
            table.grad = distribute_tensor(torch.ones(5, 4), mesh, [grad_layout])
            optim.RowSGD([table], lr=1.0).step()
            assert torch.equal(table.full_tensor(), before - 1)
    refused(
        ValueError,
        "params: expected DTensor tables that are sharded by rows",
        lambda: optim.RowSGD([torch.nn.Parameter(distribute_tensor(whole, mesh, [Shard(1)]))]),
    )


def check_refusals(mesh) -> None:
    table = torch.nn.Parameter(distribute_tensor(torch.ones(5, 4), mesh, [Shard(0)]))
    refused(
        ValueError,
        "update_in_backward: expected False",
        lambda: optim.RowSGD([table], update_in_backward=True),
    )
    optimizer = optim.RowAdagrad([table])
    plain = optim.RowAdagrad([torch.nn.Parameter(torch.ones(5, 4))])
    plain.param_groups[0]["params"][0].grad = torch.ones(5, 4)
    plain.step()
    before = table.to_local().clone()
    refused(
        TypeError,
        "state_dict['square']: expected a DTensor",
        lambda: optimizer.load_state_dict(plain.state_dict()),
    )
    ids, rows = torch.tensor([1]), torch.ones(1, 4)
    square = distribute_tensor(torch.zeros(5), mesh, [Shard(0)])
    refused(
        TypeError,
        "table: expected a plain torch tensor; got DTensor: to_local()",
        lambda: ops.row_sgd_(table, ids, rows, lr=0.1),
    )
    refused(
        TypeError,
        "square: expected a plain",
        lambda: ops.row_adagrad_(torch.ones(5, 4), ids, rows, square, lr=0.1),
    )
    query, items = torch.ones(3, 4), table
    pos_id = torch.tensor([0, 1, 2])
    for name, call in {
        "items": lambda: ops.top_items(query, items, 2),
        "query": lambda: ops.top_items(items, query, 2),
        "items ": lambda: ops.target_ranks(query, items, [0, 1, 2, 3], pos_id),
        "items  ": lambda: ops.full_softmax(query, items, pos_id),
        "items   ": lambda: ops.sampled_softmax(query, items, pos_id, pos_id, logq="none"),
        "neg_item": lambda: ops.gathered_softmax(query, query, items, logq="none"),
        "log_prior": lambda: ops.full_softmax(query, torch.ones(5, 4), pos_id, log_prior=square),
    }.items():
        refused(TypeError, f"{name.strip()}: expected a plain torch tensor; got DTensor", call)
    refused(
        TypeError,
        "items: expected an array that holds its numbers itself; got DTensor",
        lambda: ops.score_energy(query, items, torch.arange(5.0)),
    )
    refused(
        TypeError,
        "labels: expected an array that holds its numbers itself; got DTensor",
        lambda: ops.permutation(square, torch.ones(5, 2), 3),
    )
    assert torch.equal(table.to_local(), before)


def refused(kind: type[Exception], message: str, call) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value), caught.value


def main(rank: int, world: int, store: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, store=dist.FileStore(store, world))
    mesh = init_device_mesh("cpu", (world,))
    for kind in KINDS:
        check_steps(world, kind, 7, mesh, (Shard(0),))  # an odd row
    check_steps(world, "adam", 1, mesh, (Shard(0),))  # a process without rows
    pairs = init_device_mesh("cpu", (world, 1), mesh_dim_names=("copies", "parts"))
    check_steps(world, "adam", 7, pairs, (Replicate(), Shard(0)))
    check_clipping(world, mesh)
    check_other_layouts(mesh)
    check_refusals(mesh)
    dist.destroy_process_group()
    print("fine")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
