"""Row-wise optimisers as torch uses them: sparse gradients, state, and steps made in backward."""

import copy

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
    return ops.sampled_softmax(query, items, pos_id, neg_id, logq="none", sparse_grad=True,
                               reduction="mean")


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
        ops.sampled_softmax(query, items, torch.arange(10, 20), torch.arange(30), logq="none",
                            sparse_grad=True, reduction="mean").backward()
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
