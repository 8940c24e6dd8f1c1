"""An op's inputs are listed once: torch, C++, CUDA and Triton know them by the same names."""

import importlib
import inspect
import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fastpop import _C
from fastpop.kernels import fields, native
from fastpop.ops import _dispatch, _full_softmax_op, _sampled_softmax_op
from fastpop.ops._signature import Signature

OPERATORS = {"sampled_softmax": _sampled_softmax_op, "full_softmax": _full_softmax_op}


class Inputs(NamedTuple):
    query_BD: Tensor
    ids_n: Tensor
    scale: Tensor
    num_groups: int
    log_prior_V: Tensor | None = None
    logq: str = "none"


class Options(NamedTuple):
    share: float
    drop: bool


class Needs(NamedTuple):
    query: bool
    log_prior: bool
    scale: bool


def test_schema_places_and_gradients_come_from_the_fields():
    signature = Signature(Inputs, Options, Needs)
    assert signature.schema == (
        "Tensor query, Tensor ids, Tensor scale, SymInt num_groups, "
        "Tensor? log_prior, str logq, float share, bool drop"
    )
    assert signature.differentiable == (0, 4, 2)
    args = (1, 2, 3, 4, 5, 6, 7, 8, "more")
    assert signature.split(args) == (Inputs(1, 2, 3, 4, 5, 6), Options(7, 8), ("more",))
    assert signature.likes(args) == [1, 5, 3]
    assert signature.gradients(["q", "p", "s"], 1) == ("q", None, "s", None, "p", None, None, None, None)
    for bits in range(8):
        assert signature.bits(signature.needs_of(bits)) == bits


def test_what_backward_keeps_comes_back_in_its_place():
    class Context:
        def save_for_backward(self, *tensors):
            self.saved_tensors = tensors

    signature, ctx, made = Signature(Inputs, Options, Needs), Context(), [torch.zeros(n) for n in range(4)]
    args = (made[0], made[1], made[2], 7, None, "standard", 0.5, True, "added")
    signature.keep(ctx, args, made[3])
    kept, others = signature.kept(ctx)
    assert all(one is other for one, other in zip(kept, args[:8], strict=True))
    assert others == (made[3],)


@pytest.mark.parametrize("op", OPERATORS)
def test_the_operators_have_the_inputs_of_the_reference(op):
    module = OPERATORS[op]
    names = (*fields.names(module.Inputs), *module.Options._fields)
    for name in ("forward", "backward"):
        schema = getattr(torch.ops.fastpop, f"{op}_{name}").default._schema
        assert tuple(argument.name for argument in schema.arguments)[: len(names)] == names
    assert set(module.Needs._fields) <= set(names)


@pytest.mark.parametrize("op", _dispatch.IMPLEMENTATIONS)
def test_every_implementation_has_the_same_functions(op):
    """By the signatures of the reference, whatever it returns and keeps to itself."""
    backward = op in OPERATORS
    for name in _dispatch.IMPLEMENTATIONS[op]:
        if name == "triton":
            pytest.importorskip("triton")
        module = _dispatch.load(op, name)
        inputs = importlib.import_module(f"fastpop.kernels.{op}.reference").Inputs
        for function in ("unsupported", "forward", *(["backward"] if backward else [])):
            parameters = list(inspect.signature(getattr(module, function)).parameters.values())
            assert parameters[0].name == "inputs"
            assert parameters[0].annotation is inputs
            rest = [one.name for one in parameters[1:] if one.default is one.empty]
            assert rest == (
                ["lse_B", "pos_logit_B", "d_lse_B", "d_pos_B", "needs"] if function == "backward" else []
            ), (op, name, function)


def top_items(**change):
    query, items, ids, score = (
        torch.zeros(2, 4),
        torch.zeros(3, 4),
        torch.zeros(2, 1).long(),
        torch.zeros(2, 1),
    )
    given = {
        "query": native.matrix(query),
        "item": native.matrix(items),
        "B": 2,
        "V": 3,
        "D": 4,
        "k": 1,
        "scale": 1.0,
        "id": native.address(ids),
        "score": native.address(score),
        "threads": 1,
        "path": "auto",
    } | change
    _C.top_items(**{name: value for name, value in given.items() if value is not None})
    return ids


def test_a_binding_says_which_name_is_missing_or_unread():
    assert top_items().tolist() == [[0], [0]]
    with pytest.raises(TypeError, match="k: expected an argument of this name"):
        top_items(k=None)
    with pytest.raises(TypeError, match="biass: expected no argument of this name"):
        top_items(biass=0)


def test_a_choice_has_to_be_one_of_the_names():
    given = dict.fromkeys(("table", "rows"), native.matrix(torch.zeros(1, 1)))
    with pytest.raises(TypeError, match="rule: expected another name, got adamw"):
        _C.row_update(
            **given,
            V=1,
            D=1,
            n=0,
            ids=0,
            mean=0,
            mean_stride=0,
            square=0,
            step=0,
            lr=0.1,
            eps=0.1,
            beta1=0.5,
            beta2=0.5,
            rule="adamw",
            rounding_seed=0,
            rounding_step=-1,
            threads=1,
            path="auto",
        )


def test_a_triton_kernel_that_does_not_read_an_input_is_not_started():
    tiles = pytest.importorskip("fastpop.kernels.triton_tiles")

    class Kernel:
        arg_names, __name__ = ["query_ptr", "num_rows"], "forward_kernel"

    shared = {"query_ptr": torch.zeros(1), "num_rows": 3, "num_groups": 2, "key_ptr": None}
    assert set(tiles.taken(Kernel(), shared)) == {"query_ptr", "num_rows"}
    with pytest.raises(TypeError, match="forward_kernel: expected a kernel that reads key_ptr"):
        tiles.taken(Kernel(), shared | {"key_ptr": torch.zeros(1)})


def test_names_lose_their_shapes_and_nothing_else():
    shapes = {
        "query_BD": "query",
        "ids_n": "ids",
        "rows_nD": "rows",
        "table_V2": "table",
        "neg_id_GK": "neg_id",
        "num_groups": "num_groups",
        "exclude_item": "exclude_item",
        "k": "k",
        "beta1": "beta1",
    }
    structure = NamedTuple("structure", [(name, int) for name in shapes])
    assert fields.names(structure) == tuple(shapes.values())
    assert [name for name, is_rows in fields.kinds(structure) if is_rows] == ["query", "rows"]
    assert not any(
        re.search("[A-Z]", name)
        for op in _dispatch.IMPLEMENTATIONS
        for name in fields.names(importlib.import_module(f"fastpop.kernels.{op}.reference").Inputs)
    )
