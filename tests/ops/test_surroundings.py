"""The ops among what other code sets or holds: default dtypes and devices, graphs, loss scales, NaN in
rows that do not count."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from fastpop import Draw, ops
from fastpop.popularity import InBatch, uniform

IDS = torch.arange(6)


def parts(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(6, 16, generator=generator).to(dtype), torch.randn(20, 16, generator=generator))


def everything(query, items):
    """One number or tensor of each op that makes results of its own."""
    query, items = query.detach().requires_grad_(), items.detach().requires_grad_()
    sampled = ops.sampled_softmax(query, items, IDS, IDS, logq="none", reduction="mean")
    full = ops.full_softmax(query, items, IDS, reduction="mean")
    (sampled + full).backward()
    rows = ops.sampled_softmax(query, items, IDS, IDS, logq="none").detach()
    item_id, score = ops.top_items(query.detach(), items.detach(), 3)
    return [sampled.detach(), full.detach(), rows, query.grad, items.grad, item_id, score]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_torchs_default_dtype_changes_nothing(dtype):
    expected = everything(*parts())
    made = parts()
    torch.set_default_dtype(dtype)
    try:
        found = everything(*made)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_torchs_default_device_changes_nothing():
    expected, made = everything(*parts()), parts()
    with torch.device("meta"):
        found = everything(*made)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("op", ["sampled", "full"])
def test_a_second_derivative_is_refused(op, reduction):
    query, items = parts()
    query.requires_grad_()
    loss = (
        ops.full_softmax(query, items, IDS, reduction=reduction)
        if op == "full"
        else ops.sampled_softmax(query, items, IDS, IDS, logq="none", reduction=reduction)
    ).sum()
    (grad,) = torch.autograd.grad(loss, query, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        grad.square().sum().backward()


def test_create_graph_gives_the_same_first_derivative():
    query, items = parts()
    query.requires_grad_()
    loss = ops.sampled_softmax(query, items, IDS, IDS, logq="none", reduction="mean")
    (made_anew,) = torch.autograd.grad(loss, query, create_graph=True)
    (made_along,) = torch.autograd.grad(loss, query)
    assert torch.allclose(made_anew, made_along, rtol=1e-5, atol=1e-7)


def test_inside_activation_checkpointing():
    query, items = parts()

    def loss(rows):
        return ops.sampled_softmax(2 * rows, items, IDS, IDS, logq="none", reduction="mean")

    plain = query.clone().requires_grad_()
    loss(plain).backward()
    again = query.clone().requires_grad_()
    checkpoint(loss, again, use_reentrant=False).backward()
    assert torch.equal(plain.grad, again.grad)


@pytest.mark.parametrize("scale", [1.0, 2.0**10, 2.0**16])
def test_a_loss_scale_lifts_half_gradients(scale):
    # A mean over many rows has gradients that float16 drops unless they are scaled before rounding.
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2048, 32, generator=generator).half()
    items = torch.randn(500, 32, generator=generator)
    pos_id, neg_id = (torch.randint(500, (size,), generator=generator) for size in (2048, 64))

    def gradient(query, items, factor):
        query = query.clone().requires_grad_()
        (factor * ops.sampled_softmax(query, items, pos_id, neg_id, logq="none", reduction="mean")).backward()
        return query.grad.double() / factor

    truth = gradient(query.double(), items.double(), 1.0)
    error = (gradient(query, items, scale) - truth).norm() / truth.norm()
    assert error < (1e-3 if scale > 1 else 1e-2)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_what_an_ignored_row_holds_reaches_nothing(impl):
    query, items = parts()
    pos_id = IDS.clone()
    pos_id[2] = -100
    for op in (
        lambda q, e: ops.full_softmax(q, e, pos_id, reduction="mean", impl=impl),
        lambda q, e: ops.sampled_softmax(q, e, pos_id, IDS, logq="none", reduction="mean", impl=impl),
    ):
        found = []
        for fill in (0.0, float("nan")):
            rows, table = query.clone(), items.clone().requires_grad_()
            rows[2] = fill
            rows.requires_grad_()
            loss = op(rows, table)
            loss.backward()
            assert (rows.grad[2] == 0).all()
            found.append((loss.detach(), table.grad))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_a_full_softmax_loss_is_never_negative(impl):
    generator = torch.Generator().manual_seed(0)
    query, items = 3 * torch.randn(500, 16, generator=generator), torch.randn(300, 16, generator=generator)
    best = (query @ items.T).argmax(1)
    assert ops.full_softmax(query, items, best, impl=impl).min() >= 0


def test_a_negated_view_is_not_read_as_it_lies():
    query, items = parts()
    view = torch.complex(query, -query).conj().imag
    assert view.is_neg()
    assert torch.equal(ops.top_items(view, items, 3)[0], ops.top_items(query, items, 3)[0])
    with pytest.raises(NotImplementedError, match="to be negated"):
        ops.top_items(view, items, 3, impl="cpu")
    table, other = torch.zeros(20, 16), torch.zeros(20, 16)
    ops.row_sgd_(table, IDS, view, lr=1.0)
    ops.row_sgd_(other, IDS, query, lr=1.0)
    assert torch.equal(table, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": torch.tensor(float("inf"))}, "scale: expected a finite number > 0; got inf"),
        ({"prior_weight": torch.tensor(float("nan"))}, "prior_weight: expected a finite number; got nan"),
        ({"scale": 1e60}, "scale: expected a number that float32 holds"),
        ({"row_weight": torch.full((6,), float("inf"))}, "row_weight: expected finite weights >= 0; got inf"),
    ],
)
def test_numbers_in_tensors_are_checked_too(change, message):
    query, items = parts()
    for op in (
        lambda **more: ops.full_softmax(query, items, IDS, **more),
        lambda **more: ops.sampled_softmax(query, items, IDS, IDS, logq="none", **more),
    ):
        with pytest.raises(ValueError, match=message):
            op(**change)


def test_a_number_is_made_where_it_lies():
    """A copy from the host would wait for all that a device has to do: lift_fresh is torch.tensor's."""
    query, items = parts()

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.append(str(function))
            return function(*args, **kwargs or {})

    called: list[str] = []
    with Calls():
        ops.full_softmax(query, items, IDS, scale=1.3, prior_weight=0.5)
        ops.sampled_softmax(query, items, IDS, IDS, logq="none", scale=1.3, prior_weight=0.5)
    assert called.count("aten.full.default") >= 4
    assert not any("lift_fresh" in name for name in called)


def test_a_bias_elsewhere_is_refused():
    query, items = parts()
    with pytest.raises(ValueError, match="bias: expected a tensor on cpu or cuda; got meta"):
        ops.top_items(query, items, 3, bias=torch.zeros(20, device="meta"))


def test_a_draw_has_no_diagonal():
    query, items = parts()
    with pytest.raises(ValueError, match="exclude_diagonal: expected False with a Draw"):
        ops.sampled_softmax(query, items, IDS, Draw(uniform(20), 0, 0, 9), exclude_diagonal=True)


def in_batch(**options):
    from fastpop.nn import SampledSoftmaxLoss

    return SampledSoftmaxLoss(None, InBatch.from_counts(range(1, 21)), **options)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("extra", [None, uniform(20)])
def test_in_batch_negatives_leave_ignored_rows_out(reduction, extra):
    query, items = parts()
    head = in_batch(reduction=reduction, extra=extra, num_negatives=7)
    pos_id = IDS.clone()
    pos_id[[1, 4]] = -100
    kept = pos_id != -100
    weight = torch.arange(1.0, 7.0)
    loss = head(query, items, pos_id, step=3, row_weight=weight)
    alone = head(query[kept], items, pos_id[kept], step=3, row_weight=weight[kept])
    if reduction == "none":
        assert (loss[~kept] == 0).all()
        loss = loss[kept]
    assert torch.equal(loss, alone)


@pytest.mark.parametrize("num_rows", [0, 6])
def test_in_batch_negatives_of_no_row_that_counts(num_rows):
    query, items = parts()
    query, items = query[:num_rows].requires_grad_(), items.requires_grad_()
    pos_id = torch.full((num_rows,), -100)
    loss = in_batch(reduction="mean")(query, items, pos_id)
    loss.backward()
    assert loss == 0
    assert (items.grad == 0).all()
    assert in_batch(reduction="none")(query, items, pos_id).shape == (num_rows,)


@pytest.mark.parametrize("option", ["logq", "accidental_hits", "sparse_grad", "log_proposal"])
def test_what_a_module_was_made_for_stays(option):
    with pytest.raises(ValueError, match=f"{option}: expected an option of the module"):
        in_batch()(*parts(), IDS, **{option: "none"})
