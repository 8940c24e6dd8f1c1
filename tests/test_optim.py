"""Row-wise optimisers as torch uses them: sparse gradients, state, and steps made in backward."""

import copy
import gc
import pickle

import pytest
import torch

from fastpop import ops, optim

MAKERS = {
    "sgd": lambda params, **options: optim.RowSGD(params, lr=0.1, **options),
    "adagrad": lambda params, **options: optim.RowAdagrad(params, lr=0.1, **options),
    "adam": lambda params, **options: optim.RowAdam(params, lr=0.1, **options),
}


def model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    items = torch.nn.Parameter(torch.randn(50, 8, generator=generator))
    users = torch.nn.Parameter(torch.randn(20, 8, generator=generator))
    return items, users


def losses(items, users, step):
    generator = torch.Generator().manual_seed(step)
    user = torch.randint(20, (16,), generator=generator)
    pos_id, neg_id = (torch.randint(50, (n,), generator=generator) for n in (16, 12))
    query = torch.nn.functional.embedding(user, users, sparse=True)
    return ops.sampled_softmax(query, items, pos_id, neg_id, logq="none", sparse_grad=True, reduction="mean")


@pytest.mark.parametrize("kind", MAKERS)
def test_steps_in_backward_are_the_same_steps(kind):
    found = []
    for in_backward in (False, True):
        items, users = model()
        optimizer = MAKERS[kind]([items, users], update_in_backward=in_backward)
        for step in range(4):
            losses(items, users, step).backward()
            assert (items.grad is None) == in_backward
            optimizer.step()
            optimizer.zero_grad()
        found.append((items.detach(), users.detach()))
    for one, other in zip(*found):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_second_backward_before_step_is_refused(kind):
    items, users = model()
    optimizer = MAKERS[kind]([items, users], update_in_backward=True)
    losses(items, users, 0).backward()
    with pytest.raises(RuntimeError, match=r"update_in_backward: expected one backward\(\)"):
        losses(items, users, 1).backward()
    optimizer.step()
    losses(items, users, 1).backward()


@pytest.mark.parametrize("kind", MAKERS)
def test_a_table_used_twice_in_one_graph_gets_one_step_on_the_sum(kind):
    found = []
    for in_backward in (False, True):
        items, _ = model()
        optimizer = MAKERS[kind]([items], update_in_backward=in_backward)
        query = torch.nn.functional.embedding(torch.arange(10), items, sparse=True)
        ops.sampled_softmax(
            query,
            items,
            torch.arange(10, 20),
            torch.arange(30),
            logq="none",
            sparse_grad=True,
            reduction="mean",
        ).backward()
        optimizer.step()
        found.append(items.detach())
    torch.testing.assert_close(*found)


def test_a_scaler_is_refused():
    items, users = model()
    optimizer = optim.RowSGD([items, users], update_in_backward=True)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(losses(items, users, 0)).backward()
    with pytest.raises(AssertionError, match="No inf checks were recorded"):
        scaler.step(optimizer)


def test_several_processes_are_refused(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
    try:
        optim.RowSGD(list(model()), update_in_backward=True)  # one process is fine
    finally:
        torch.distributed.destroy_process_group()


def test_several_processes_are_counted(monkeypatch):
    monkeypatch.setattr(optim, "_num_processes", lambda: 2)
    with pytest.raises(ValueError, match="update_in_backward: expected False with several processes"):
        optim.RowSGD(list(model()), update_in_backward=True)


@pytest.mark.parametrize("kind", MAKERS)
def test_state_dicts_go_round(kind):
    items, users = model()
    optimizer = MAKERS[kind]([items, users])
    losses(items, users, 0).backward()
    optimizer.step()
    other_items, other_users = (torch.nn.Parameter(one.detach().clone()) for one in (items, users))
    other = MAKERS[kind]([other_items, other_users])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, (a, b) in ((optimizer, (items, users)), (other, (other_items, other_users))):
        one.zero_grad()
        losses(a, b, 1).backward()
        one.step()
    assert torch.equal(items, other_items)
    assert torch.equal(users, other_users)


def one_table(kind, dtype=torch.float32, **options):
    table = torch.nn.Parameter(torch.linspace(-1, 1, 24).view(6, 4).to(dtype))
    return table, kind([table], **options)


def a_step(table, optimizer):
    optimizer.zero_grad()
    table.float().square().sum().backward()
    optimizer.step()


def test_updates_in_backward_follow_a_loaded_learning_rate():
    _, other = one_table(optim.RowSGD, lr=1.0, update_in_backward=True)
    table, optimizer = one_table(optim.RowSGD, lr=5.0, update_in_backward=True)
    before = table.detach().clone()
    optimizer.load_state_dict(other.state_dict())
    table.sum().backward()
    optimizer.step()
    assert torch.equal(table, before - 1)


def test_a_table_outlives_an_optimizer_that_updated_it_in_backward():
    table, optimizer = one_table(optim.RowSGD, lr=1.0, update_in_backward=True)
    del optimizer
    gc.collect()
    before = table.detach().clone()
    table.sum().backward()
    assert torch.equal(table, before)
    assert (table.grad == 1).all()
    table.grad = None
    second = optim.RowSGD([table], lr=10.0, update_in_backward=True)
    table.sum().backward()
    second.step()
    assert torch.equal(table, before - 10)


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_goes_on_by_itself(copied, in_backward):
    table, optimizer = one_table(optim.RowAdam, update_in_backward=in_backward)
    a_step(table, optimizer)
    other = copied(optimizer)
    (twin,) = other.param_groups[0]["params"]
    a_step(twin, other)
    assert not torch.equal(table, twin)
    a_step(table, optimizer)
    assert torch.equal(table, twin)


@pytest.mark.parametrize("kind", [optim.RowAdagrad, optim.RowAdam])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_state_of_half_tables_resumes_bit_for_bit(kind, dtype):
    table, optimizer = one_table(kind, dtype)
    a_step(table, optimizer)
    twin, other = one_table(kind, dtype)
    twin.data.copy_(table.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    a_step(table, optimizer)
    a_step(twin, other)
    assert torch.equal(table, twin)
    for name, value in optimizer.state[table].items():
        assert other.state[twin][name].dtype == value.dtype
        assert torch.equal(other.state[twin][name], value)


@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
def test_a_gradient_of_no_rows_changes_nothing(kind):
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    before = embedding.weight.detach().clone()
    optimizer = kind(embedding.parameters())
    embedding(torch.zeros(0, dtype=torch.int64)).sum().backward()
    optimizer.step()
    assert torch.equal(embedding.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (2, 0.9)}, "betas: expected numbers in"),
        ({"betas": (0.9,)}, "betas: expected two numbers"),
        ({"eps": -1}, "eps: expected"),
    ],
)
def test_numbers_of_an_optimizer_are_checked_when_it_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        one_table(optim.RowAdam, **options)


def test_a_refused_group_is_not_added():
    _, optimizer = one_table(optim.RowSGD)
    for group in (
        {"params": [torch.nn.Parameter(torch.zeros(2, 3, 4))]},
        {"params": [torch.nn.Parameter(torch.zeros(2, 3))], "lr": -3},
    ):
        with pytest.raises(ValueError, match="expected"):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
def test_a_gradient_is_completed_before_its_step_in_backward(kind):
    """As several processes do, whose gradients are summed first."""
    start = torch.arange(6.0).view(3, 2)
    table, whole = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer = kind([table], lr=0.1, update_in_backward=True, complete=lambda one: one.grad.mul_(3))
    table[1:].sum().backward()
    optimizer.step()
    assert table.grad is None
    expected = kind([whole], lr=0.1)
    (3 * whole[1:].sum()).backward()
    expected.step()
    assert torch.equal(table, whole)
    assert not torch.equal(table, start)
