"""What a process of test_sharded.py does: python helpers_sharded.py RANK WORLD STORE. Ends with "fine"."""

import copy
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from fastpop import ops, optim
from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss

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
        "query": lambda: ops.top_items(items, query, 2),
        "neg_item": lambda: ops.gathered_softmax(query, query, items, logq="none"),
        "log_prior": lambda: ops.full_softmax(query, torch.ones(5, 4), pos_id, log_prior=square),
    }.items():
        refused(TypeError, f"{name.strip()}: expected a plain torch tensor; got DTensor", call)
    columns = distribute_tensor(torch.ones(5, 4), mesh, [Shard(1)])
    if mesh.size() > 1:
        for call in (
            lambda: ops.full_softmax(query, columns, pos_id),
            lambda: ops.top_items(query, columns, 2),
            lambda: ops.score_energy(query, columns, torch.arange(5.0)),
        ):
            refused(ValueError, "items: expected a DTensor that is sharded by rows, Shard(0), over one", call)
    refused(
        ValueError,
        "sparse_grad: expected False with a DTensor table",
        lambda: ops.sampled_softmax(query, items, pos_id, pos_id, logq="none", sparse_grad=True),
    )
    refused(
        ValueError,
        "shard: expected None beside a DTensor",
        lambda: ops.full_softmax(query, items, pos_id, shard=ops.RowShard(0, 5)),
    )
    refused(
        TypeError,
        "labels: expected an array that holds its numbers itself; got DTensor",
        lambda: ops.permutation(square, torch.ones(5, 2), 3),
    )
    assert torch.equal(table.to_local(), before)


def check_modules(world: int, mesh) -> None:
    """Losses of a table that is a DTensor, each process with queries of its own, against one with them all:
    gradients are of the mean of the processes' losses, and a step of RowAdam moves the same rows."""
    generator = torch.Generator().manual_seed(0)
    num_items, dim = 7, 4
    whole = torch.randn(num_items, dim, generator=generator)
    every_query = torch.randn(world, 5, dim, generator=generator)
    every_pos = torch.randint(num_items, (world, 5), generator=generator)
    every_pos[0, 0] = -100
    counts = torch.randint(1, 9, (num_items,), generator=generator).numpy()
    rank = dist.get_rank()
    for make in (
        lambda: FullSoftmaxLoss.from_counts(counts, label_smoothing=0.1),
        lambda: SampledSoftmaxLoss.from_counts(counts, num_negatives=6),
        lambda: SampledSoftmaxLoss.from_counts(counts, num_negatives=6, group_size=2),
    ):
        head = make()
        if getattr(head, "group_size", None) and world > 1:
            continue  # groups go on from one process's rows to the next's: another draw than a process's own
        table = torch.nn.Parameter(distribute_tensor(whole.clone(), mesh, [Shard(0)]))
        query = every_query[rank].clone().requires_grad_()
        step = {} if isinstance(head, FullSoftmaxLoss) else {"step": 0}
        loss = head(query, table, every_pos[rank], **step)
        loss.backward()

        plain, alone = torch.nn.Parameter(whole.clone()), make()
        alone.rank = 0
        queries = every_query.clone().requires_grad_()
        losses = [alone(queries[at], plain, every_pos[at], **step) for at in range(world)]
        torch.testing.assert_close(loss, losses[rank])
        (sum(losses) / world).backward()
        torch.testing.assert_close(table.grad.full_tensor(), plain.grad)
        torch.testing.assert_close(query.grad, queries.grad[rank] * world)
        for param in (table, plain):
            optim.RowAdam([param], lr=0.1).step()
        torch.testing.assert_close(table.full_tensor(), plain)
        # What is ranked and audited by it is what a whole table says.
        same = every_query[0]
        for one, other in zip(ops.top_items(same, table, 3), ops.top_items(same, plain, 3)):
            torch.testing.assert_close(one, other)
        targets = [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]
        found, expected = (ops.target_ranks(same, one, *targets) for one in (table, plain))
        torch.testing.assert_close(found, expected)
        log_prior = head.log_prior_V
        found, expected = (
            ops.score_energy(same, one, log_prior).direction for one in (table, plain.detach())
        )
        assert abs(found - expected) <= 1e-4 * expected  # of tables that differ by a rounding
    refused(
        ValueError,
        "items: expected a table in one piece, or rows with a RowShard of queries='each', beside an InBatch",
        lambda: SampledSoftmaxLoss.from_counts(counts, proposal="in_batch")(query, table, every_pos[rank]),
    )


class Towers(torch.nn.Module):
    """docs/embedding.md's, small."""

    def __init__(self, counts, dim=4):
        super().__init__()
        torch.manual_seed(0)
        self.items = torch.nn.Parameter(torch.randn(len(counts), dim))
        self.encoder = torch.nn.Sequential(torch.nn.Linear(dim, 5), torch.nn.GELU(), torch.nn.Linear(5, dim))
        self.head = SampledSoftmaxLoss.from_counts(counts, num_negatives=6, rank=0)

    def forward(self, history, target, step):
        if isinstance(self.items, DTensor):
            rows = ops.shared_rows(self.items, history)
        else:
            rows = self.items[history]
        return self.head(self.encoder(rows.mean(1)), self.items, target, step=step)

    def optimizers(self):
        return [optim.RowAdam([self.items], lr=0.1), torch.optim.AdamW(self.encoder.parameters(), lr=0.1)]


def check_fsdp(world: int, mesh) -> None:
    """FSDP2 beside a table that it does not gather makes the steps of one process with all the rows, clipping
    included, and goes through a state dict."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.randint(1, 9, (7,), generator=generator).numpy()
    history = torch.randint(7, (4, world, 3, 2), generator=generator)
    target = torch.randint(7, (4, world, 3), generator=generator)
    model, plain = Towers(counts), Towers(counts)
    model.items = torch.nn.Parameter(distribute_tensor(model.items.detach(), mesh, [Shard(0)]))
    fully_shard(model, mesh=mesh, ignored_params={model.items})
    assert isinstance(model.encoder[0].weight, DTensor)
    ours, whole = model.optimizers(), plain.optimizers()
    for step in range(4):
        model(history[step, dist.get_rank()], target[step, dist.get_rank()], step).backward()
        plain(history[step].flatten(0, 1), target[step].flatten(), step).backward()
        norms = [optim.clip_grad_norm_(one.parameters(), 0.5) for one in (model, plain)]
        torch.testing.assert_close(*norms)
        for optimizer in (*ours, *whole):
            optimizer.step()
            optimizer.zero_grad()
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


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
    check_modules(world, mesh)
    check_fsdp(world, mesh)
    dist.destroy_process_group()
    print("fine")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
