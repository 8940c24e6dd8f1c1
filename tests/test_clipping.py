"""clip_grad_norm_: torch's numbers on the same gradients made dense, whatever their layout."""

import math

import pytest
import torch
from helpers_device import device_of

from fastpop import ops, optim
from fastpop.ops import summed_ids

NORMS = (2.0, 1.0, 3.5, math.inf)


def tables(dtype=torch.float32):
    """Parameters with a sparse, a dense, an uncoalesced, an empty and no gradient, and one of bfloat16."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((9, 4), (5, 3), (9, 4), (9, 4), (2,))
    params = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]

    def rows(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    params[0].grad = torch.sparse_coo_tensor([[1, 4, 8]], rows(3, 4), (9, 4))
    params[1].grad = rows(5, 3)
    params[2].grad = torch.sparse_coo_tensor([[7, 2, 7, 7]], rows(4, 4), (9, 4))
    params[3].grad = torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.int64), rows(0, 4), (9, 4))
    half = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16))
    half.grad = torch.randn(3, 2, generator=generator).bfloat16()
    return [*params, half]


def dense(params):
    twins = [torch.nn.Parameter(torch.zeros_like(param)) for param in params]
    for twin, param in zip(twins, params):
        twin.grad = None if param.grad is None else param.grad.to_dense().clone()
    return twins


@pytest.mark.parametrize("norm_type", NORMS)
@pytest.mark.parametrize("max_norm", [0.0, 0.3, 1e6, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_and_the_gradients_are_torchs_on_dense_ones(norm_type, max_norm, dtype):
    params = tables(dtype)
    twins = dense(params)
    expected = torch.nn.utils.clip_grad_norm_(twins, max_norm, norm_type)
    got = optim.clip_grad_norm_(iter(params), max_norm, norm_type)
    torch.testing.assert_close(got, expected)
    for at, (param, twin) in enumerate(zip(params, twins)):
        assert (param.grad is None) == (twin.grad is None)
        if param.grad is not None:
            torch.testing.assert_close(param.grad.to_dense(), twin.grad)
            assert param.grad.is_sparse == (at in (0, 2, 3))


def test_entries_in_order_are_not_sorted(monkeypatch):
    params = tables()[:2]
    monkeypatch.setattr(torch.Tensor, "coalesce", lambda _: pytest.fail("sorted"))
    optim.clip_grad_norm_(params, 0.1)


def test_one_tensor_and_none_and_what_has_no_gradient():
    (param,) = tables()[:1]
    twin = dense([param])[0]
    torch.testing.assert_close(optim.clip_grad_norm_(param, 0.1), torch.nn.utils.clip_grad_norm_(twin, 0.1))
    for nothing in ([], [torch.nn.Parameter(torch.zeros(3))]):
        assert optim.clip_grad_norm_(nothing, 0.1) == 0


def test_clipped_sparse_training_is_clipped_dense_training():
    found = []
    for sparse in (True, False):
        generator = torch.Generator().manual_seed(1)
        items = torch.nn.Parameter(torch.randn(30, 6, generator=generator))
        users = torch.nn.Embedding(10, 6, sparse=sparse, _weight=torch.randn(10, 6, generator=generator))
        optimizer = optim.RowSGD([items, users.weight], lr=1.0)
        clip = optim.clip_grad_norm_ if sparse else torch.nn.utils.clip_grad_norm_
        for step in range(4):
            user, pos_id = (torch.randint(n, (8,), generator=generator) for n in (10, 30))
            optimizer.zero_grad()
            loss = ops.sampled_softmax(
                users(user),
                items,
                pos_id,
                torch.arange(step, step + 9),
                logq="none",
                sparse_grad=sparse,
                reduction="mean",
            )
            loss.backward()
            assert clip([items, users.weight], 0.05) > 0.05
            optimizer.step()
        found.append((items.detach(), users.weight.detach()))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_repeated_ids_are_summed_on_a_device_without_being_counted(monkeypatch):
    """By the host emulation of its kernels; the optimiser then has no sort to make, either."""
    device_of("host emulation", monkeypatch)
    monkeypatch.setattr(torch.Tensor, "coalesce", lambda _: pytest.fail("counted"))
    params = tables()[1:]
    expected, twins = params[1].grad.to_dense(), dense(params)
    norm = optim.clip_grad_norm_(params, 0.3)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(twins, 0.3))
    ids, rows = params[1].grad._indices()[0], params[1].grad._values()
    assert ids.tolist() == [2, 7, 7, 7]
    assert (rows[2:] == 0).all()
    assert summed_ids.is_marked(ids)
    torch.testing.assert_close(params[1].grad.to_dense(), expected * (0.3 / (norm + 1e-6)))


def test_a_norm_that_is_no_number_leaves_gradients_alone():
    params = tables()
    params[0].grad._values()[1, 2] = math.nan
    before = [None if one.grad is None else one.grad.to_dense().clone() for one in params]
    with pytest.raises(RuntimeError, match=r"clip_grad_norm_: expected a finite norm of .* got nan"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    for one, grad in zip(params, before):
        assert grad is None or torch.equal(one.grad.to_dense().nan_to_num(9), grad.nan_to_num(9))
    assert optim.clip_grad_norm_(params, 1.0).isnan()


def test_a_gradient_that_was_used_up_in_backward_is_missed():
    items = torch.nn.Parameter(torch.ones(6, 3))
    optimizer = optim.RowSGD([items], update_in_backward=True)
    items.sum().backward()
    with pytest.raises(ValueError, match="parameters: expected tables whose gradients stay until step"):
        optim.clip_grad_norm_([items], 1.0)
    del optimizer
    assert optim.clip_grad_norm_([items], 1.0) == 0


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"max_norm": -1.0}, ValueError, "max_norm: expected a finite number >= 0; got -1.0"),
        ({"max_norm": -math.inf}, ValueError, "max_norm: expected a finite number >= 0; got -inf"),
        ({"max_norm": math.nan}, ValueError, "max_norm: expected a finite number >= 0; got nan"),
        ({"max_norm": "1"}, TypeError, "max_norm: expected a finite number; got str"),
        ({"norm_type": 0.0}, ValueError, "norm_type: expected a finite number > 0; got 0.0"),
        ({"norm_type": -math.inf}, ValueError, "norm_type: expected a finite number > 0; got -inf"),
        ({"parameters": [3]}, TypeError, "parameters: expected tensors; got int"),
    ],
)
def test_bad_arguments_are_named(change, kind, message):
    with pytest.raises(kind) as caught:
        optim.clip_grad_norm_(**{"parameters": tables(), "max_norm": 1.0} | change)
    assert message in str(caught.value)
