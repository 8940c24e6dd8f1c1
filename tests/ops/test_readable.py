"""What reaches an op besides plain tensors: subclasses, wrappers, transforms, array-likes, shared memory."""

import functools
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.testing._internal.two_tensor import TwoTensor

from fastpop import ops, optim
from fastpop.kernels import native
from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.popularity import InBatch, uniform

V, B, D = 20, 6, 4
IDS = torch.arange(B)


@functools.cache
def rows(num_rows, dim=D):
    return torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(num_rows))


# op -> (a call with its tensor arguments by name, these)
CALLS = {
    "full_softmax": (
        ops.full_softmax,
        {
            "query": rows(B),
            "items": rows(V),
            "pos_id": IDS,
            "log_prior": torch.zeros(V),
            "row_weight": torch.ones(B),
            "scale": torch.tensor(1.0),
            "prior_weight": torch.tensor(0.5),
        },
    ),
    "sampled_softmax": (
        ops.sampled_softmax,
        {
            "query": rows(B),
            "items": rows(V),
            "pos_id": IDS,
            "neg_id": IDS + 9,
            "log_prior": torch.zeros(V),
            "log_proposal": torch.zeros(V),
            "row_weight": torch.ones(B),
        },
    ),
    "gathered_softmax": (
        lambda **given: ops.gathered_softmax(**given, accidental_hits="drop"),
        {
            "query": rows(B),
            "pos_item": rows(B) + 1,
            "neg_item": rows(9),
            "pos_id": IDS,
            "neg_id": torch.arange(9),
            "pos_log_prior": torch.zeros(B),
            "neg_log_prior": torch.zeros(9),
            "pos_log_proposal": torch.zeros(B),
            "neg_log_proposal": torch.zeros(9),
        },
    ),
    "top_items": (
        lambda **given: ops.top_items(**given, k=3),
        {
            "query": rows(B),
            "items": rows(V),
            "bias": torch.zeros(V),
            "exclude_item": IDS,
            "exclude_offsets": torch.arange(B + 1),
        },
    ),
    "target_ranks": (
        ops.target_ranks,
        {
            "query": rows(B),
            "items": rows(V),
            "bias": torch.zeros(V),
            "target_item": IDS,
            "target_offsets": torch.arange(B + 1),
        },
    ),
    "row_sgd_": (
        lambda **given: ops.row_sgd_(**given, lr=0.1),
        {"table": rows(V), "ids": IDS, "rows": rows(B)},
    ),
    "row_adagrad_": (
        lambda **given: ops.row_adagrad_(**given, lr=0.1),
        {"table": rows(V), "ids": IDS, "rows": rows(B), "square": torch.zeros(V)},
    ),
    "row_adam_": (
        lambda **given: ops.row_adam_(**given, lr=0.1),
        {
            "table": rows(V),
            "ids": IDS,
            "rows": rows(B),
            "mean": torch.zeros(V, D),
            "square": torch.zeros(V),
            "step": torch.zeros(V, dtype=torch.int64),
        },
    ),
    "score_energy": (
        ops.score_energy,
        {"query": rows(B), "items": rows(V), "log_prior": torch.arange(20.0), "bias": torch.zeros(V)},
    ),
    "permutation": (
        lambda **given: ops.permutation(**given, num_permutations=3),
        {"labels": torch.arange(20.0), "items": rows(V)},
    ),
}
ARGUMENTS = [(op, name) for op, (_, given) in CALLS.items() for name in given]
# The statistics take arrays of any kind; lists of ids may be numpy or lists, too.
TENSORS_ONLY = [
    (op, name)
    for op, name in ARGUMENTS
    if op not in ("score_energy", "permutation")
    and name not in ("exclude_item", "exclude_offsets", "target_item", "target_offsets")
    and name not in ("scale", "prior_weight")
]


def freed(tensor):
    """As FSDP leaves what it gathered: a shape, and a storage of 0 bytes."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


def fake(tensor):
    with FakeTensorMode() as mode:
        return mode.from_tensor(tensor)


def masked(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.masked.masked_tensor(tensor, torch.ones_like(tensor, dtype=torch.bool))


WITHOUT_NUMBERS = {
    "fake": fake,
    "two tensors": lambda tensor: TwoTensor(tensor, tensor),
    "masked": masked,
    "freed": freed,
    "symbol of zeros": lambda tensor: torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype),
    "functional": torch._to_functional_tensor,
}


@pytest.mark.parametrize("kind", WITHOUT_NUMBERS)
@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_what_keeps_its_numbers_elsewhere_is_refused_by_name(op, name, kind):
    call, given = CALLS[op]
    given = {key: value.clone() for key, value in given.items()}
    table = given.get("table")
    before = None if table is None else table.clone()
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=rf"^{name}: expected"):
        call(**given | {name: WITHOUT_NUMBERS[kind](given[name])})
    assert table is None or torch.equal(table, before)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # where torch hands one out
@pytest.mark.parametrize("kind", WITHOUT_NUMBERS)
def test_no_address_of_nothing_reaches_a_kernel(kind):
    """The last guard, whoever forgot the first."""
    with pytest.raises((TypeError, RuntimeError)):
        native.matrix(WITHOUT_NUMBERS[kind](rows(3)))


def in_pandas(array):
    import pandas as pd

    return pd.DataFrame(array) if array.ndim == 2 else pd.Series(array)


@pytest.mark.parametrize(("op", "name"), TENSORS_ONLY)
@pytest.mark.parametrize("kind", ["list", "numpy", "pandas"])
def test_array_likes_are_refused_by_name(op, name, kind):
    call, given = CALLS[op]
    array = given[name].numpy()
    value = {"list": np.ndarray.tolist, "numpy": np.asarray, "pandas": in_pandas}[kind](array)
    with pytest.raises(TypeError, match=rf"^{name}: expected .*tensor; got {kind}"):
        call(**given | {name: value})


def test_lists_of_ids_are_tensors_arrays_or_lists():
    query, items = rows(B), rows(V)
    expected = ops.top_items(query, items, 3, exclude_offsets=torch.arange(B + 1), exclude_item=IDS)
    for made in (np.asarray, list):
        got = ops.top_items(query, items, 3, exclude_offsets=made(range(B + 1)), exclude_item=made(range(B)))
        assert torch.equal(got[0], expected[0])
    with pytest.raises(TypeError, match=r"exclude_item: expected a 1-d array of int64 .*; got int64"):
        ops.top_items(query, items, 3, exclude_offsets=[0] * B + [1], exclude_item=in_pandas(np.array([1])))


class WithMethods(torch.Tensor):
    """A subclass that lies in memory as any tensor does."""


@pytest.mark.parametrize("op", CALLS)
def test_subclasses_that_only_add_methods_are_taken(op):
    call, given = CALLS[op]
    plain, other = ({key: value.clone() for key, value in given.items()} for _ in range(2))
    found = [call(**plain), call(**{key: value.as_subclass(WithMethods) for key, value in other.items()})]
    for one, two in zip(*(one if isinstance(one, tuple) else (one,) for one in found)):
        assert one is None or np.array_equal(one, two)
    for key in given:
        assert torch.equal(plain[key], other[key])


def test_parameters_and_buffers_are_tensors():
    query, items = torch.nn.Parameter(rows(B)), torch.nn.Buffer(rows(V))
    assert torch.equal(ops.top_items(query, items, 3)[0], ops.top_items(rows(B), rows(V), 3)[0])
    with pytest.raises(TypeError, match="items: expected a plain torch tensor; got UninitializedParameter"):
        ops.full_softmax(rows(B), torch.nn.UninitializedParameter(), IDS)


@pytest.mark.parametrize("nested", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused(nested):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        query = torch.nested.nested_tensor([rows(2), rows(3)], layout=nested)
    with pytest.raises(TypeError, match=r"^query: expected a (dense|plain torch) tensor; got (n|N)ested"):
        ops.full_softmax(query, rows(V), IDS)


DIFFERENTIABLE = {
    "full_softmax": lambda q: ops.full_softmax(q, rows(V), IDS, reduction="mean"),
    "sampled_softmax": lambda q: ops.sampled_softmax(q, rows(V), IDS, IDS, logq="none", reduction="mean"),
    "sampled_softmax rows": lambda q: ops.sampled_softmax(q, rows(V), IDS, IDS, logq="none").sum(),
    "gathered_softmax": lambda q: ops.gathered_softmax(q, rows(B) + 1, rows(9), logq="none", reduction="sum"),
    "items": lambda q: ops.full_softmax(rows(3), q, IDS[:3], reduction="mean"),
    "log_prior": lambda q: ops.full_softmax(rows(3), rows(B), IDS[:3], log_prior=q[:, 0], reduction="mean"),
    "scale": lambda q: ops.full_softmax(rows(3), rows(V), IDS[:3], scale=q[0, 0].abs(), reduction="mean"),
    "row_weight": lambda q: ops.sampled_softmax(
        rows(B), rows(V), IDS, IDS, logq="none", row_weight=q[:, 0].abs(), reduction="mean"
    ),
    "FullSoftmaxLoss": lambda q: FullSoftmaxLoss()(q, rows(V), IDS),
    "SampledSoftmaxLoss": lambda q: SampledSoftmaxLoss(None, uniform(V), num_negatives=4)(q, rows(V), IDS),
    "in batch": lambda q: SampledSoftmaxLoss(None, InBatch.from_counts(np.ones(V)))(q, rows(V), IDS),
}
FOUR = ("full_softmax", "sampled_softmax", "sampled_softmax rows", "gathered_softmax")
TRANSFORMS = {
    "jvp": lambda f, q: torch.func.jvp(f, (q,), (q,)),
    "jacfwd": lambda f, q: torch.func.jacfwd(f)(q),
    "grad": lambda f, q: torch.func.grad(f)(q),
    "vjp": lambda f, q: torch.func.vjp(f, q),
    "jacrev": lambda f, q: torch.func.jacrev(f)(q),
    "hessian": lambda f, q: torch.func.hessian(f)(q),
    "vmap": lambda f, q: torch.vmap(f)(torch.stack([q, q])),
    "vmap of grad": lambda f, q: torch.vmap(torch.func.grad(f))(torch.stack([q, q])),
    "functionalize": lambda f, q: torch.func.functionalize(f)(q),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("of", DIFFERENTIABLE)
def test_transforms_are_refused_at_once(of, transform):
    with pytest.raises(NotImplementedError, match="the ops are differentiated once, by backward"):
        TRANSFORMS[transform](DIFFERENTIABLE[of], rows(B))


@pytest.mark.parametrize("of", DIFFERENTIABLE)
def test_a_forward_mode_tangent_is_refused_and_its_absence_is_not(of):
    function, query = DIFFERENTIABLE[of], rows(B)
    with forward_ad.dual_level():
        assert function(query) == function(query.clone())
        dual = forward_ad.make_dual(query, torch.ones_like(query))
        with pytest.raises(NotImplementedError, match="expected a tensor without a forward-mode tangent"):
            function(dual)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")  # rows, above
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("of", ["full_softmax", "sampled_softmax", "sampled_softmax rows", "scale"])
def test_a_tangent_that_reaches_a_compiled_program_is_refused(of, backend):
    """Validation on entry saw a symbol: the operators check when the program runs."""
    torch._dynamo.reset()
    query = rows(B)
    if of == "scale":  # through the operator that checks numbers
        query = torch.tensor(2.0)
        compiled = torch.compile(
            lambda scale: ops.full_softmax(rows(B), rows(V), IDS, scale=scale), backend=backend
        )
    else:
        compiled = torch.compile(DIFFERENTIABLE[of], backend=backend)
    expected = compiled(query)
    with forward_ad.dual_level():
        assert torch.equal(compiled(query), expected)
        with pytest.raises(NotImplementedError, match="expected a tensor without a forward-mode tangent"):
            compiled(forward_ad.make_dual(query, torch.ones_like(query)))
    with pytest.raises(NotImplementedError, match=r"outside of torch\.func transforms"):
        torch.func.jvp(compiled, (query,), (query,))


def test_an_operator_refuses_a_tangent_itself():
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(rows(B), rows(B))
        with pytest.raises(NotImplementedError, match=r"^rows: expected a tensor without a forward-mode"):
            torch.ops.fastpop.row_sgd(rows(V).clone(), IDS, dual, 0.1, "auto")


ONE, ITEMS = torch.tensor(1.0), rows(V)
SHARED = (
    1,
    3,
    B,
    torch.tensor([[0, 2, 4]]),
    None,
    None,
    None,
    None,
    None,
    "none",
    False,
    False,
    False,
    False,
    -100,
    "auto",
)
FULL = (ITEMS, IDS, ONE, ONE, None, -100, "auto", False)
SAMPLED = (ITEMS, IDS, ONE, ONE, *SHARED, False, False)
EACH = (torch.ones(B),) * 4
OPERATORS = {
    "full_softmax_forward": lambda op, q: op(q, *FULL)[0],
    "full_softmax_backward": lambda op, q: op(q, *FULL, *EACH, 3)[0],
    "sampled_softmax_forward": lambda op, q: op(q, *SAMPLED)[0],
    "sampled_softmax_loss": lambda op, q: op(q, *SAMPLED, EACH[0], 3)[0],
    "sampled_softmax_backward": lambda op, q: op(q, *SAMPLED, *EACH, 3)[0],
    "checked": lambda op, q: op(q, q, "query", "a finite number"),
    "row_sgd": lambda op, q: op(ITEMS, IDS, q, 0.1, "auto") or q,
}
FORWARD_MODES = {
    **{name: TRANSFORMS[name] for name in ("jvp", "jacfwd")},
    "linearize": lambda f, q: torch.func.linearize(f, q)[1](q),
    "compiled jvp": lambda f, q: torch.compile(lambda q: torch.func.jvp(f, (q,), (q,)), backend="eager")(q),
}


@pytest.mark.parametrize("mode", FORWARD_MODES)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_bare_operator_gives_no_tangent_of_zeros(name, mode):
    """Called by its own name it has no validation before it, and its arguments come unwrapped."""
    operator = getattr(torch.ops.fastpop, name)
    torch._dynamo.reset()
    with pytest.raises((NotImplementedError, RuntimeError), match=r"expected a tensor (outside|without)"):
        FORWARD_MODES[mode](lambda query: OPERATORS[name](operator, query), rows(B))


@pytest.mark.parametrize("of", FOUR)
def test_a_second_derivative_is_refused_in_one_sentence(of):
    query = rows(B).requires_grad_()
    (grad,) = torch.autograd.grad(DIFFERENTIABLE[of](query), query, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"^fastpop\.ops\.\w+ is differentiable once; expected no "):
        grad.square().sum().backward()


@pytest.mark.parametrize("of", FOUR)
def test_batched_gradients_are_right(of):
    """torch.autograd.functional.jacobian(vectorize=True) and is_grads_batched."""
    query = rows(B).requires_grad_()
    upstream = torch.tensor([1.0, -2.0, 0.0])
    loss = DIFFERENTIABLE[of](query)
    (each,) = torch.autograd.grad(loss, query, retain_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it loops
        (batched,) = torch.autograd.grad(loss, query, upstream, is_grads_batched=True)
    torch.testing.assert_close(batched, upstream[:, None, None] * each)


ADAM = {"table": (V, D), "mean": (V, D), "square": (V,), "step": (V,)}


def adam(**given):
    made = {
        name: torch.zeros(shape, dtype=torch.int64 if name == "step" else torch.float32)
        for name, shape in ADAM.items()
    }
    made |= given
    ops.row_adam_(
        made["table"],
        IDS,
        made.get("rows", torch.ones(B, D)),
        made["mean"],
        made["square"],
        made["step"],
        lr=0.1,
    )
    return made


def test_state_that_lies_on_other_numbers_is_refused():
    whole, line = torch.zeros(2 * V, D), torch.zeros(2 * V)
    for message, given in {
        "mean: expected memory apart from that of table": {"table": whole[:V], "mean": whole[:V]},
        "mean: expected memory apart from that of table ": {"table": whole[:V], "mean": whole[5 : V + 5]},
        "square: expected memory apart from that of mean": {"mean": whole[:V], "square": whole.flatten()[:V]},
        "square: expected memory apart from that of table": {"table": whole[:V], "square": whole[:V, 1]},
        "step: expected memory apart from that of square": {
            "square": line[:V],
            "step": line.view(torch.int64)[:V],
        },
        "rows: expected memory apart from that of table": {"table": whole[:V], "rows": whole[3 : B + 3]},
    }.items():
        with pytest.raises(ValueError, match=f"^{message.strip()}; got"):
            adam(**given)
    table = torch.zeros(V, D)
    with pytest.raises(ValueError, match="square: expected memory apart"):
        ops.row_adagrad_(table, IDS, torch.ones(B, D), table[:, 0], lr=0.1)
    with pytest.raises(ValueError, match="rows: expected memory apart"):
        ops.row_sgd_(table, IDS, table[:B], lr=0.1)


def test_parts_of_one_buffer_are_taken():
    expected = adam()
    one = torch.zeros(2 * V * D + V)
    table, mean = one[: 2 * V * D].view(2, V, D)
    flat = adam(table=table, mean=mean, square=one[2 * V * D :])
    wide = torch.zeros(V, 2 * D + 1)
    beside = adam(table=wide[:, :D], mean=wide[:, D : 2 * D], square=wide[:, 2 * D])
    for made in (flat, beside):
        for name in ADAM:
            assert torch.equal(made[name], expected[name])


@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
def test_an_optimizer_refuses_a_table_that_lost_its_numbers(kind):
    table = torch.nn.Parameter(rows(V).clone())
    optimizer = kind([table])
    table.grad = torch.ones(V, D)
    table.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="table: expected a tensor whose numbers are in memory"):
        optimizer.step()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # read by dynamo
@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap"])
@pytest.mark.parametrize("op", ["full", "sampled", "gathered"])
def test_transforms_within_a_compiled_function_are_refused_too(op, transform):
    items, others = rows(V), rows(9)

    def loss(query):
        if op == "full":
            return ops.full_softmax(query, items, IDS, reduction="mean")
        if op == "sampled":
            return ops.sampled_softmax(query, items, IDS, IDS, logq="none", reduction="mean")
        return ops.gathered_softmax(query, items[:B], others, logq="none", reduction="mean")

    for fullgraph, kind in ((False, NotImplementedError), (True, torch._dynamo.exc.Unsupported)):
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda query: TRANSFORMS[transform](loss, query), fullgraph=fullgraph, backend="aot_eager"
        )
        with pytest.raises(kind, match=r"query: expected a tensor outside of torch\.func transforms"):
            compiled(rows(B))
